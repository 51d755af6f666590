//! What commands that print reports have in common.

use crate::cli::{Format, Output, Reporting};
use crate::failure::Failure;
use crate::printer::Printer;
use jiff::Timestamp;
use postern_report::{FailOn, Options, Report, Style, Tool};

/// A new report of this program, with the current time.
pub(super) fn new(title: impl Into<String>) -> Report {
    let tool = Tool { name: "postern".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    Report::new(tool, title, Timestamp::now())
}

/// Prints a report and returns the exit code.
pub(super) fn print(report: &Report, reporting: &Reporting, printer: &mut Printer) -> Result<u8, Failure> {
    let Reporting { output, fail_on: _ } = reporting;
    let format = match output {
        Output::Report(format) => *format,
        Output::Format(Format::Json) => postern_report::Format::Json,
        Output::Format(Format::Yaml) => postern_report::Format::Yaml,
        Output::Format(Format::Text) | Output::Form(_) => postern_report::Format::Text,
    };
    let mut text = String::new();
    let options = Options { style: style(printer), fail_on: fail_on(reporting) };
    postern_report::render(report, format, options, &mut text)
        .map_err(|error| Failure::denied(&error, None))?;
    printer.raw(&text);
    Ok(exit_code(report, reporting))
}

/// The exit code for a report.
pub(super) fn exit_code(report: &Report, reporting: &Reporting) -> u8 {
    report.exit_code(fail_on(reporting))
}

fn fail_on(reporting: &Reporting) -> FailOn {
    FailOn { warning: reporting.fail_on == "warning", inconclusive: false }
}

/// The style of text output: all findings are listed.
fn style(printer: &Printer) -> Style {
    Style { colour: printer.colours().stdout, all: true, width: crate::terminal::width() }
}
