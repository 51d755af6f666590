//! `postern identity doctor`.

use super::{exchanger, one_or_all};
use crate::cli::identity::Doctor as Args;
use crate::commands::{Context, reports};
use crate::failure::Failure;
use crate::printer::Printer;
use postern_identity::doctor::{self, Report};
use postern_identity::exchange::Browser;
use postern_ops::install::Reporter as _;

pub(in crate::commands) async fn run(
    context: &Context,
    args: Args,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let Args { provider: named, reporting } = args;
    let mut report = reports::new("Identity providers");
    for (name, provider) in one_or_all(context, named.as_deref())? {
        printer.progress(&format!("examining {name}"));
        let examined = doctor::examine(&exchanger(context, name, provider, Browser::Leave)).await;
        let Report { findings, only_the_provider_sees } = examined;
        report.findings.extend(findings);
        report.notes.push(format!("{name}: {only_the_provider_sees}"));
    }
    reports::print(&report, &reporting, printer)
}
