//! Opens pages in Chromium. Runs if `POSTERN_BROWSER` is the path of Chromium and `POSTERN_BROWSER_MODULES` the folder
//! that `npm ci` filled from `tests/browser/package.json`; see `tests/browser/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "helpers of tests")]

mod sample;

use postern_report::{Format, Options, Report, render};
use std::path::Path;
use std::process::Command;

/// Runs a script of `tests/browser` with node; false if a variable is not set.
fn node(script: &str, needs: &[&str], arguments: &[&Path]) -> bool {
    for name in needs {
        if std::env::var_os(name).is_none_or(|value| value.is_empty()) {
            eprintln!("skipped: {name} is not set (see crates/mechanisms/report/tests/browser/README.md)");
            return false;
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(script);
    let status = Command::new("node").arg(&script).args(arguments).status().expect("node runs");
    assert!(status.success(), "{} fails: {status}", script.display());
    true
}

fn write(folder: &Path, name: &str, report: &Report, format: Format) -> std::path::PathBuf {
    let mut text = String::new();
    render(report, format, Options::default(), &mut text).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn pages_work_in_chromium() {
    let folder = tempfile::tempdir().unwrap();
    for (name, report) in [
        ("example.html", sample::report()),
        ("hostile.html", sample::hostile()),
        ("empty.html", sample::empty()),
        ("large.html", sample::large(2000)),
    ] {
        let page = write(folder.path(), name, &report, Format::Html);
        if !node("page.mjs", &["POSTERN_BROWSER", "POSTERN_BROWSER_MODULES"], &[&page]) {
            return;
        }
    }
}

#[test]
fn sarif_fits_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    for (name, report) in
        [("example", sample::report()), ("hostile", sample::hostile()), ("empty", sample::empty())]
    {
        let log = write(folder.path(), name, &report, Format::Sarif);
        if !node("sarif.mjs", &["POSTERN_SARIF_SCHEMA", "POSTERN_BROWSER_MODULES"], &[&log]) {
            return;
        }
    }
}
