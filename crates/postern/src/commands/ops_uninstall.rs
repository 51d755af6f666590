//! `postern ops uninstall`.

use super::Context;
use crate::cli::ops::Uninstall as Args;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_kube::apply::{Change, ObjectRef};
use postern_ops::install::{Changed, Reporter as _};
use postern_ops::uninstall;
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Preview {
    would_delete: Vec<ObjectRef>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    changes: Vec<Changed>,
    warnings: Vec<String>,
}

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args { confirm, timeout } = args;
    let cluster = context.cluster().await?;
    let plan = uninstall::plan(&cluster).await?;
    let warnings = plan.warnings();
    warnings.iter().for_each(|warning| printer.warn(warning));
    if !confirm {
        let preview = Preview { would_delete: plan.objects, warnings };
        printer.result(&preview, || preview_text(&preview.would_delete));
        return Ok(0);
    }
    let mut report = Report { changes: Vec::new(), warnings };
    for object in plan.objects {
        printer.progress(&format!("deleting {object}"));
        if uninstall::remove(&cluster, &object, timeout).await? {
            printer.changed(Change::Deleted, &object, &[]);
            report.changes.push(Changed { change: Change::Deleted, object, differences: Vec::new() });
        }
    }
    printer.result(&report, || match report.changes.as_slice() {
        [] => "Nothing of the ops pod is installed here.\n".to_owned(),
        _ => String::new(),
    });
    Ok(0)
}

fn preview_text(plan: &[ObjectRef]) -> String {
    if plan.is_empty() {
        return "Nothing of the ops pod is installed here.\n".to_owned();
    }
    let mut text = "Would delete (re-run with --confirm to proceed):\n".to_owned();
    for object in plan {
        let more = if object.kind == "Namespace" { ", with everything in it" } else { "" };
        text.push_str(&format!("- {object}{more}\n"));
    }
    text
}
