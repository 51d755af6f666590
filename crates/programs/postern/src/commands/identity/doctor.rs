//! `postern identity doctor`.

use super::{exchanger, one_or_all};
use crate::cli::identity::Doctor as Args;
use crate::commands::Context;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_exec::exit;
use postern_identity::doctor::{self, Link, Report, State};
use postern_identity::exchange::Browser;
use postern_ops::install::Reporter as _;

pub(in crate::commands) async fn run(
    context: &Context,
    args: &Args,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let Args { provider: named } = args;
    let mut reports = Vec::new();
    for (name, provider) in one_or_all(context, named.as_deref())? {
        printer.progress(&format!("examining {name}"));
        reports.push(doctor::examine(&exchanger(context, name, provider, Browser::Leave)).await);
    }
    printer.result(&reports, || reports.iter().map(text).collect::<Vec<_>>().join("\n"));
    let broken = reports.iter().any(|report| report.broken().is_some());
    Ok(if broken { exit::DENIED } else { 0 })
}

fn text(report: &Report) -> String {
    let Report { provider, links, only_the_provider_sees } = report;
    let mut text = format!("{provider}\n");
    for Link { link, state, seen, fix } in links {
        let mark = match state {
            State::Ok => "✓",
            State::Warning => "!",
            State::Broken => "✗",
            State::Unknown => "?",
        };
        text.push_str(&format!("  {mark} {link}: {seen}\n"));
        if let Some(fix) = fix {
            text.push_str(&format!("      {fix}\n"));
        }
    }
    text.push_str(&format!("  {only_the_provider_sees}\n"));
    text
}
