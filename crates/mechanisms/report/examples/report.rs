//! Writes an example report: `cargo run -p postern-report --example report -- html > report.html`. A second
//! argument, `hostile` or `large`, names another report.
#![allow(clippy::print_stdout, reason = "the example has no other output")]

#[path = "../tests/sample/mod.rs"]
mod sample;

use postern_report::{Format, Options, render};

fn main() -> Result<(), postern_report::ReportError> {
    let format: Format = std::env::args().nth(1).as_deref().unwrap_or("text").parse()?;
    let report = match std::env::args().nth(2).as_deref() {
        Some("hostile") => sample::hostile(),
        Some("large") => sample::large(2000),
        _ => sample::report(),
    };
    let mut out = String::new();
    render(&report, format, Options::default(), &mut out)?;
    print!("{out}");
    Ok(())
}
