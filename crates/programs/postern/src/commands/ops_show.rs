//! `postern ops show`.

use super::{Context, ops_install, reports, transports};
use crate::cli::Output;
use crate::cli::ops::Show as Args;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_ops::check::{self, CheckOptions};
use postern_ops::show::{OpsPodState, Presence, show};
use postern_report::{Finding, Severity};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    shown: OpsPodState,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Finding>>,
}

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args { pod, check, tool, image, reporting } = args;
    let is_report = matches!(reporting.output, Output::Report(_));
    if is_report && !check {
        let hint = "add --check: its findings are a report".to_owned();
        return Err(Failure::usage("sarif, junit and html are formats of reports", Some(hint)));
    }
    let settings = ops_install::defaults(context, context.ops_pod(pod)?, image.as_deref());
    let cluster = context.cluster().await?;
    let shown = show(&cluster, &settings.pod, &settings.image).await?;
    let checks = match check {
        true => {
            let key = context.config.stream_key.as_deref().map(transports::read).transpose()?;
            let asked = CheckOptions { tool: &tool, key: key.as_ref() };
            Some(check::check(&cluster, &settings, &shown, asked, printer).await)
        }
        false => None,
    };
    let mut findings = reports::new(format!("Ops pod {}", settings.pod));
    findings.findings = checks.clone().unwrap_or_default();
    if is_report {
        return reports::print(&findings, &reporting, printer);
    }
    let report = Report { shown, checks };
    printer.result(&report, || text(&report));
    Ok(reports::exit_code(&findings, &reporting))
}

const UNSEEN: &str = "(you may not look)";

fn text(report: &Report) -> String {
    let Report { shown, checks } = report;
    let OpsPodState {
        namespace,
        namespace_state,
        pod,
        pod_state,
        phase,
        ready,
        image,
        image_matches,
        rbac_subject,
        service_account_state,
        service_account_replaced: _,
        cluster_access,
        identity,
        trusted_profile: _,
        secret,
        secret_state,
        credentials,
        rotated_at,
        agent_version,
        listens: _,
        transports,
    } = shown;
    let named = |name: &str, state: &Presence| match state {
        Presence::Present => name.to_owned(),
        Presence::Deleting => format!("{name} (being deleted)"),
        Presence::Missing => format!("(missing: {name})"),
        Presence::Unknown => format!("{name} {UNSEEN}"),
    };
    let or = |value: &Option<String>, none: &str| value.clone().unwrap_or_else(|| none.to_owned());
    // What may not be looked at is not said to be missing.
    let none = if *pod_state == Presence::Unknown { UNSEEN } else { "(none)" };
    let image = match (image, image_matches) {
        (Some(image), Some(true)) => format!("{image} (of this version)"),
        (Some(image), _) => format!("{image} (not the one of this version: re-run install)"),
        (None, _) => none.to_owned(),
    };
    let access =
        cluster_access.as_deref().map_or(String::new(), |access| format!(" (cluster access: {access})"));
    let held = match credentials.as_deref() {
        Some([]) => ", empty".to_owned(),
        Some(held) => format!(", holds {}", held.join(", ")),
        None => String::new(),
    };
    let rotated = rotated_at.as_ref().map_or(String::new(), |at| format!(" (rotated {at}{held})"));
    let lines = [
        ("namespace", named(namespace, namespace_state)),
        ("pod", named(pod, pod_state)),
        ("phase", or(phase, none)),
        ("ready", if *pod_state == Presence::Unknown { UNSEEN.to_owned() } else { ready.to_string() }),
        ("image", image),
        ("rbac subject", format!("{}{access}", named(rbac_subject, service_account_state))),
        ("identity", or(identity, if *secret_state == Presence::Missing { "(none)" } else { UNSEEN })),
        ("secret", format!("{}{rotated}", named(secret, secret_state))),
        ("agent", or(agent_version, "(unknown)")),
        ("transports", if transports.is_empty() { none.to_owned() } else { transports.join(", ") }),
    ];
    let mut text = String::new();
    for (key, value) in lines {
        text.push_str(&format!("{:<14}{value}\n", format!("{key}:")));
    }
    for finding in checks.iter().flatten() {
        text.push_str(&check_line(finding));
    }
    text
}

/// A check in one line, and its fix in another.
fn check_line(finding: &Finding) -> String {
    let name = finding.rule.trim_start_matches("ops/");
    let mark = match finding.severity {
        Severity::Ok => "✓",
        Severity::Warning => "!",
        Severity::Problem => "✗",
        Severity::Inconclusive => "?",
        Severity::Skipped => return String::new(),
    };
    let fix = finding.fix.as_ref().map(|fix| format!("    fix: {fix}\n")).unwrap_or_default();
    format!("{mark} {name}: {}\n{fix}", finding.message)
}
