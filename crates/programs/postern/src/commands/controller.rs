//! `postern controller`.

use super::Context;
use crate::cli::Format;
use crate::cli::controller::{self as args, Install, Manifests, Show, Uninstall};
use crate::failure::Failure;
use crate::printer::{Printer, yaml};
use postern_install::chart::{self, Files};
use postern_install::{InstallError, InvalidSetting, Part, Settings, Shown, Uninstalled, objects};
use postern_ops::install::Reporter as _;
use serde_json::json;
use std::path::Path;

/// `postern controller install`.
pub(super) async fn install(context: &Context, args: Install, printer: &mut Printer) -> Result<u8, Failure> {
    let Install { settings, timeout, dry_run } = args;
    let settings = of(context, settings);
    settings.check()?;
    let cluster = context.cluster().await?;
    printer.progress("installing the controller");
    let installed = postern_install::install(&cluster, &settings, timeout, dry_run, |change, object| {
        printer.changed(change, object, &[]);
    })
    .await?;
    printer.result(&installed, || {
        if dry_run {
            "Nothing was changed (--dry-run).\n".to_owned()
        } else {
            format!("✓ Deployment {}/{} is available\n", settings.namespace, postern_install::NAME)
        }
    });
    Ok(0)
}

/// `postern controller show`.
pub(super) async fn show(context: &Context, args: Show, printer: &mut Printer) -> Result<u8, Failure> {
    let cluster = context.cluster().await?;
    let shown = postern_install::show(&cluster, &args.namespace).await?;
    printer.result(&shown, || text(&shown));
    Ok(u8::from(!shown.installed || shown.problem.is_some()))
}

fn text(shown: &Shown) -> String {
    let Shown {
        namespace,
        installed,
        image,
        parts,
        replicas,
        available,
        problem,
        leader,
        webhook,
        custom_resources,
    } = shown;
    if !installed {
        return format!("The controller is not installed in namespace {namespace}.\n");
    }
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    let mut lines = vec![
        ("namespace", namespace.clone()),
        ("image", or_none(image)),
        ("parts", parts.join(", ")),
        ("replicas", format!("{available} of {replicas} available")),
        ("leader", or_none(leader)),
        (
            "webhook",
            if *webhook { "called by the API server" } else { "not announced to the API server" }.to_owned(),
        ),
        ("custom resources", custom_resources.join(", ")),
    ];
    lines.extend(problem.iter().map(|problem| ("problem", problem.clone())));
    let lines: Vec<_> =
        lines.iter().map(|(name, value)| format!("{:<18}{value}", format!("{name}:"))).collect();
    lines.join("\n") + "\n"
}

/// `postern controller uninstall`.
pub(super) async fn uninstall(
    context: &Context,
    args: Uninstall,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let Uninstall { namespace, custom_resources, confirm, timeout } = args;
    let cluster = context.cluster().await?;
    let done = postern_install::uninstall(
        &cluster,
        &namespace,
        custom_resources,
        timeout,
        !confirm,
        |change, object| {
            if confirm {
                printer.changed(change, object, &[]);
            }
        },
    )
    .await?;
    printer.result(&done, || uninstalled(&done, custom_resources));
    Ok(0)
}

fn uninstalled(done: &Uninstalled, custom_resources: bool) -> String {
    let Uninstalled { changes, service_accounts, copies, dry_run } = done;
    if changes.is_empty() && *copies == 0 && *service_accounts == 0 {
        return "Nothing of the controller is installed here.\n".to_owned();
    }
    let made =
        format!("{copies} copies of pull Secrets, and the entries in {service_accounts} ServiceAccounts");
    if !dry_run {
        return format!("✓ deleted {made}\n");
    }
    let mut text = String::from("Would delete:\n");
    changes.iter().for_each(|one| text.push_str(&format!("  {}\n", one.object)));
    text.push_str(&format!("  {made}\n"));
    if !custom_resources {
        text.push_str("The custom resources stay; --custom-resources deletes them too.\n");
    }
    text.push_str("Run it with --confirm to delete them.\n");
    text
}

/// `postern controller manifests`.
pub(super) fn manifests(context: &Context, args: Manifests, printer: &mut Printer) -> Result<u8, Failure> {
    let Manifests { settings, helm, kustomize } = args;
    let settings = of(context, settings);
    settings.check()?;
    if let Some(directory) = helm {
        return write(&directory, &chart::helm(env!("CARGO_PKG_VERSION"), yaml), printer);
    }
    if let Some(directory) = kustomize {
        let Settings { image, agent_image, version, .. } = &settings;
        return write(&directory, &chart::kustomize(version, image, agent_image, yaml), printer);
    }
    let objects = objects(&settings);
    match printer.format() {
        Format::Json => {
            printer.result(&json!({"apiVersion": "v1", "kind": "List", "items": objects}), String::new);
        }
        Format::Text | Format::Yaml => {
            objects.iter().for_each(|object| printer.raw(&format!("---\n{}", yaml(object))));
        }
    }
    Ok(0)
}

/// Writes the files, and removes templates of an earlier version.
fn write(directory: &Path, files: &Files, printer: &mut Printer) -> Result<u8, Failure> {
    let failed = |path: &Path, error: &std::io::Error| {
        let mut failure = Failure::denied(error, None);
        failure.message = format!("writing {}: {}", path.display(), failure.message);
        failure
    };
    for (name, text) in files {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| failed(parent, &error))?;
        }
        std::fs::write(&path, text).map_err(|error| failed(&path, &error))?;
    }
    let names: Vec<_> = files.keys().collect();
    printer.result(&json!({"directory": directory, "files": names}), || {
        format!("✓ wrote {} files to {}\n", files.len(), directory.display())
    });
    Ok(0)
}

fn of(context: &Context, settings: args::Settings) -> Settings {
    let args::Settings {
        namespace,
        parts,
        image,
        agent_image,
        replicas,
        certificate_secret,
        image_pull_secret,
        trace_endpoint,
    } = settings;
    Settings {
        namespace,
        image: context.release_image(image.as_deref(), postern_ops::names::CONTROLLER_REPOSITORY),
        agent_image: context.agent_image(agent_image.as_deref()),
        replicas,
        parts: parts
            .into_iter()
            .map(|part| match part {
                args::Part::PullSecrets => Part::PullSecrets,
                args::Part::RestartStuck => Part::RestartStuck,
                args::Part::Volumes => Part::Volumes,
            })
            .collect(),
        certificate_secret,
        image_pull_secret: image_pull_secret.or_else(|| context.config.image_pull_secret.clone()),
        trace_endpoint,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

impl From<InvalidSetting> for Failure {
    fn from(error: InvalidSetting) -> Self {
        Self::usage(error.to_string(), None)
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        match error {
            InstallError::Invalid(error) => error.into(),
            InstallError::Kube(error) => error.into(),
            InstallError::NotAvailable { ref namespace, .. } => {
                let hint = format!(
                    "kubectl -n {namespace} describe pods -l app.kubernetes.io/name={}; then run install again",
                    postern_install::NAME
                );
                Self::denied(&error, Some(hint))
            }
            InstallError::Object(_) => Self::denied(&error, None),
        }
    }
}
