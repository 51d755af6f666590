//! `postern ops uninstall`.

use super::{Context, trusted_profile};
use crate::cli::ops::Uninstall as Args;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_identity::ibm::{self, Ibm};
use postern_identity::{Grant, Provider as _};
use postern_kube::apply::{Change, ObjectRef};
use postern_ops::install::{Changed, Reporter as _};
use postern_ops::{OpsPod, uninstall};
use serde::Serialize;
use std::error::Error as _;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted_profile: Option<String>,
    would_delete: Vec<ObjectRef>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    trusted_profile: Option<Profile>,
    changes: Vec<Changed>,
    warnings: Vec<String>,
}

/// The result for a trusted profile.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    id: String,
    deleted: bool,
}

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args { pod, confirm, provider_only, timeout } = args;
    let pod = context.ops_pod(pod)?;
    if provider_only {
        return by_name(context, &pod, confirm, printer).await;
    }
    let cluster = context.cluster().await?;
    let uninstall::Installation { plan, trusted } = uninstall::plan(&cluster, &pod).await?;
    let mut warnings = plan.warnings();
    warnings.iter().for_each(|warning| printer.warn(warning));
    if !confirm {
        let denied = uninstall::denied(&cluster, &plan).await?;
        if !denied.is_empty() {
            let denied: Vec<String> = denied.iter().map(ToString::to_string).collect();
            let warning = format!("you may not delete {}: an uninstall would stop there", denied.join(", "));
            printer.warn(&warning);
            warnings.push(warning);
        }
        let preview = Preview { trusted_profile: trusted, would_delete: plan.objects, warnings };
        printer.result(&preview, || preview_text(preview.trusted_profile.as_deref(), &preview.would_delete));
        return Ok(0);
    }
    // First: should the cluster become unreachable on the way, nothing of ours is left with the provider.
    let trusted_profile = match trusted {
        Some(id) => Some(revoke(context, &pod, id, &mut warnings, printer).await),
        None => None,
    };
    let mut report = Report { trusted_profile, changes: Vec::new(), warnings };
    for object in plan.objects {
        printer.progress(&format!("deleting {object}"));
        if uninstall::remove(&cluster, &object, timeout).await? {
            printer.changed(Change::Deleted, &object, &[]);
            report.changes.push(Changed { change: Change::Deleted, object, differences: Vec::new() });
        }
    }
    printer.result(&report, || match report.changes.as_slice() {
        [] if report.trusted_profile.is_none() => NOTHING.to_owned(),
        _ => String::new(),
    });
    Ok(0)
}

const NOTHING: &str = "Nothing of the ops pod is installed here.\n";

/// Deletes a trusted profile, or prints the command that does it.
async fn revoke(
    context: &Context,
    pod: &OpsPod,
    id: String,
    warnings: &mut Vec<String>,
    printer: &mut Printer,
) -> Profile {
    printer.progress(&format!("deleting trusted profile {id}"));
    let why = match trusted_profile::provider(context, pod, printer) {
        Ok(Ok(provider)) => match provider.revoke(&id).await {
            Ok(true) => {
                printer.receipt(&format!("✓ deleted trusted profile {id}"));
                return Profile { id, deleted: true };
            }
            Ok(false) => {
                printer.receipt(&format!("✓ trusted profile {id} was gone already"));
                return Profile { id, deleted: true };
            }
            Err(error) => match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
        },
        Ok(Err(why)) => why,
        Err(failure) => failure.message,
    };
    let warning =
        format!("trusted profile {id} was not deleted ({why}); delete it with: {}", Ibm::by_hand(&id));
    printer.warn(&warning);
    warnings.push(warning);
    Profile { id, deleted: false }
}

/// `--provider-only`: the profile of the config's workspace.
async fn by_name(
    context: &Context,
    pod: &OpsPod,
    confirm: bool,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let provider = trusted_profile::provider(context, pod, printer)?.map_err(|why| {
        Failure::usage(
            format!("--provider-only takes an IBM Cloud API key: {why}"),
            Some(format!("export {}=…, or put it into the config or the keychain", ibm::CREDENTIAL)),
        )
    })?;
    let away = |error| trusted_profile::taking_away(&error);
    let found = provider.find().await.map_err(away)?;
    let Some(Grant { id, name, created: _ }) = found else {
        let report = Report { trusted_profile: None, changes: Vec::new(), warnings: Vec::new() };
        printer.result(&report, || format!("There is no trusted profile {}.\n", provider.grant_name()));
        return Ok(0);
    };
    if !confirm {
        let preview = Preview { trusted_profile: Some(id), would_delete: Vec::new(), warnings: Vec::new() };
        let shown = format!("{} ({name})", preview.trusted_profile.as_deref().unwrap_or_default());
        printer.result(&preview, || preview_text(Some(&shown), &[]));
        return Ok(0);
    }
    let deleted = provider.revoke(&id).await.map_err(away)?;
    let text = format!("✓ deleted trusted profile {name} ({id})\n");
    let profile = Profile { id, deleted };
    let report = Report { trusted_profile: Some(profile), changes: Vec::new(), warnings: Vec::new() };
    printer.result(&report, || text);
    Ok(0)
}

fn preview_text(profile: Option<&str>, plan: &[ObjectRef]) -> String {
    if plan.is_empty() && profile.is_none() {
        return NOTHING.to_owned();
    }
    let mut text = "Would delete (re-run with --confirm to proceed):\n".to_owned();
    if let Some(id) = profile {
        text.push_str(&format!("- trusted profile {id} of IBM Cloud, with its policies\n"));
    }
    for object in plan {
        let more = if object.kind == "Namespace" { ", with everything in it" } else { "" };
        text.push_str(&format!("- {object}{more}\n"));
    }
    text
}
