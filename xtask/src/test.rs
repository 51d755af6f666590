//! `cargo xtask test`: everything CI runs, step by step, each with its name and time.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{browser, changed, chart, debian, dist, docs, e2e, paths, say, sh, tools};

/// `cargo xtask test [STEP…]`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these steps: fmt, clippy, dist, images, cluster, providers, test, browser, e2e, doc, docs, chart, deny
    steps: Vec<String>,
    /// Only fmt, clippy and the unit tests, and of the crates only those that a change reaches: what differs from BASE,
    /// committed or not
    #[arg(long, value_name = "BASE", num_args = 0..=1, default_missing_value = "HEAD", conflicts_with = "steps")]
    changed: Option<String>,
}

/// What came of a step that did not fail.
enum Outcome {
    Done,
    Skipped(String),
}

/// One step: its name, whether those after it make no sense without it, and what it does.
struct Step {
    name: &'static str,
    needed: bool,
    run: fn(&mut Vec<String>) -> Result<Outcome>,
}

const STEPS: [Step; 13] = [
    Step { name: "fmt", needed: false, run: |_| shown(&mut cargo(["fmt", "--all", "--check"])) },
    Step { name: "clippy", needed: false, run: |_| clippy() },
    Step { name: "dist", needed: true, run: |_| dist::postern().map(|_| Outcome::Done) },
    Step { name: "images", needed: true, run: |_| itself(&["images"]) },
    Step { name: "cluster", needed: true, run: |_| itself(&["cluster", "up"]) },
    Step { name: "providers", needed: true, run: |_| Ok(providers()) },
    Step { name: "test", needed: false, run: unit },
    Step { name: "browser", needed: false, run: |_| browser() },
    Step { name: "e2e", needed: false, run: end_to_end },
    Step { name: "doc", needed: false, run: |_| doc() },
    Step { name: "docs", needed: false, run: |_| book() },
    Step { name: "chart", needed: false, run: |_| chart::run().map(|()| Outcome::Done) },
    Step { name: "deny", needed: false, run: |_| deny() },
];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
    if let Some(other) = args.steps.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no step {other:?}; there are {}", names.join(", "));
    }
    prerequisites()?;
    if let Some(base) = &args.changed {
        return changed_only(base);
    }
    dist::build_quickly();
    let begin = Instant::now();
    let (mut results, mut table, mut failed) = (Vec::new(), Vec::new(), false);
    for step in STEPS.iter().filter(|s| args.steps.is_empty() || args.steps.iter().any(|n| n == s.name)) {
        say::note(format!("==> {}", step.name));
        let started = Instant::now();
        let outcome = (step.run)(&mut results);
        let word = match &outcome {
            Ok(Outcome::Done) => "ok".to_owned(),
            Ok(Outcome::Skipped(why)) => format!("skipped: {why}"),
            Err(error) => format!("FAILED: {error:#}"),
        };
        let line = format!("{:9} {:7.1}s  {word}", step.name, started.elapsed().as_secs_f64());
        say::note(format!("    {line}"));
        table.push(line);
        failed |= outcome.is_err();
        if outcome.is_err() && step.needed {
            break;
        }
    }
    say::result("");
    table.iter().for_each(say::result);
    say::result(format!("{:9} {:7.1}s", "all", begin.elapsed().as_secs_f64()));
    say::result("");
    results.iter().for_each(say::result);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Tests the crates that a change reaches.
fn changed_only(base: &str) -> Result<ExitCode> {
    let packages = match changed::packages(base)? {
        None => vec!["--workspace".to_owned()],
        Some(packages) if packages.is_empty() => {
            say::note("no crate has changed");
            return Ok(ExitCode::SUCCESS);
        }
        Some(packages) => packages.into_iter().flat_map(|package| ["-p".to_owned(), package]).collect(),
    };
    say::note(format!("testing {}", packages.join(" ")));
    sh::run_shown(&mut cargo(["fmt", "--all", "--check"]))?;
    let mut clippy = cargo(["clippy", "--quiet", "--all-targets"]);
    sh::run_shown(clippy.args(&packages).args(["--", "-D", "warnings"]))?;
    // Without POSTERN_E2E, the end-to-end tests say that they were skipped.
    let mut tests = cargo(["test", "--no-fail-fast"]);
    sh::run_shown(tests.args(&packages).env("INSTA_UPDATE", "no").env_remove("POSTERN_E2E"))?;
    say::note("the end-to-end tests did not run: cargo xtask test e2e");
    Ok(ExitCode::SUCCESS)
}

/// Says in one line what this machine lacks.
fn prerequisites() -> Result<()> {
    debian::check_machine()?;
    let wanted = [
        ("cargo-fmt", "rustfmt (rustup component add rustfmt)"),
        ("cargo-clippy", "clippy (rustup component add clippy)"),
        ("go", "Go 1.26 or newer"),
        ("cc", "a C compiler"),
    ];
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(tool, _)| sh::which(Path::new(tool)).is_none())
        .map(|(_, what)| *what)
        .collect();
    if missing.is_empty() { Ok(()) } else { bail!("missing: {}", missing.join(", ")) }
}

/// Cargo in this checkout, as it is when called by hand.
pub(crate) fn cargo<const N: usize>(args: [&str; N]) -> Command {
    let mut command = sh::command(tools::cargo(), args);
    // What `cargo run` tells us of ourselves: build scripts that watch these variables would run anew each time.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command.current_dir(paths::root());
    command
}

fn shown(command: &mut Command) -> Result<Outcome> {
    sh::run_shown(command).map(|()| Outcome::Done)
}

/// Another command of this program, as a process of its own: it prints its own progress.
fn itself(args: &[&str]) -> Result<Outcome> {
    shown(sh::command(tools::itself()?, args).env(dist::QUICK, "1"))
}

/// Where a registry cannot be reached, what needs its server says that it was skipped, and everything else is tested.
fn providers() -> Outcome {
    match itself(&["providers", "get"]) {
        Ok(done) => done,
        Err(error) => Outcome::Skipped(format!("not every provider could be had: {error:#}")),
    }
}

fn clippy() -> Result<Outcome> {
    shown(&mut cargo(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn unit(results: &mut Vec<String>) -> Result<Outcome> {
    tested(cargo(["test", "--workspace", "--exclude", "e2e", "--no-fail-fast"]), results)
}

/// Where the browser or its modules cannot be had, the step says so.
fn browser() -> Result<Outcome> {
    let browser = match browser::get() {
        Ok(browser) => browser,
        Err(error) => return Ok(Outcome::Skipped(format!("{error:#}"))),
    };
    let mut command = cargo(["test", "--quiet", "-p", "postern-report", "--test", "browser"]);
    shown(command.env("POSTERN_BROWSER", browser.chromium).env("POSTERN_BROWSER_MODULES", browser.modules))
}

fn end_to_end(results: &mut Vec<String>) -> Result<Outcome> {
    e2e::run(results).map(|()| Outcome::Done)
}

/// Runs tests, shows what they print, and keeps their result lines for the end.
fn tested(mut command: Command, results: &mut Vec<String>) -> Result<Outcome> {
    Testbed::build()?.set(&mut command);
    let mut child = command.stdout(Stdio::piped()).spawn().context("run cargo test")?;
    let output = child.stdout.take().context("no pipe from cargo test")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        say::result(&line);
        if line.starts_with("test result:") {
            results.push(line.into_owned());
        }
    }
    let status = child.wait()?;
    if status.success() { Ok(Outcome::Done) } else { bail!("cargo test: {status}") }
}

/// The variables by which tests find what they test.
pub(crate) struct Testbed {
    postern: PathBuf,
    agent: PathBuf,
    controller: PathBuf,
}

impl Testbed {
    /// Builds what is to be tested.
    pub(crate) fn build() -> Result<Self> {
        Ok(Self { postern: dist::postern()?, agent: dist::agent()?, controller: dist::controller()? })
    }

    pub(crate) fn set(&self, command: &mut Command) {
        command.env("POSTERN_BIN", &self.postern).env("POSTERN_AGENT", &self.agent);
        command.env("POSTERN_CONTROLLER", &self.controller);
        command.env("POSTERN_E2E", "1").env("KUBECONFIG", paths::target().join("testbed/kubeconfig"));
        command.env("INSTA_UPDATE", "no");
    }
}

fn doc() -> Result<Outcome> {
    let mut command = cargo(["doc", "--quiet", "--workspace", "--no-deps"]);
    shown(command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// The generated reference is current, and the book builds.
fn book() -> Result<Outcome> {
    docs::reference(&dist::postern()?, true)?;
    let book = paths::root().join("docs");
    if !book.join("book.toml").is_file() {
        return Ok(Outcome::Skipped(
            "the reference is current; there is no docs/book.toml to build".to_owned(),
        ));
    }
    match tools::MDBOOK.get(Duration::from_secs(900)) {
        Ok(mdbook) => {
            let mut build = sh::command(mdbook, ["build", "--dest-dir"]);
            shown(build.arg(paths::target().join("book")).arg(book))
        }
        Err(why) => Ok(Outcome::Skipped(format!("the reference is current; no book: {why:#}"))),
    }
}

/// Licences, bans and sources; advisories where their database can be had.
fn deny() -> Result<Outcome> {
    if !paths::root().join("deny.toml").is_file() {
        return Ok(Outcome::Skipped("there is no deny.toml".to_owned()));
    }
    let program = match tools::CARGO_DENY.get(Duration::from_secs(1200)) {
        Ok(program) => program,
        Err(why) => return Ok(Outcome::Skipped(format!("{why:#}"))),
    };
    let deny = |checks: &[&str]| {
        let mut command = sh::command(&program, ["--workspace", "--all-features", "check"]);
        command.args(checks).current_dir(paths::root());
        command
    };
    let check = |checks: &[&str]| -> Result<(bool, String)> {
        let said = deny(checks).output()?;
        let text = [said.stdout, said.stderr].concat();
        Ok((said.status.success(), String::from_utf8_lossy(&text).trim_end().to_owned()))
    };
    let (fine, text) = check(&["licenses", "bans", "sources"])?;
    if !fine {
        say::note(&text);
        bail!("cargo deny check licenses bans sources");
    }
    say::note(text.lines().last().unwrap_or_default()); // the rest is warnings of two versions of one crate
    let (fine, text) = check(&["advisories"])?;
    if fine {
        return Ok(Outcome::Done);
    }
    if text.contains("failed to fetch advisory database") || text.contains("failed to load advisory database")
    {
        say::note("advisories were not checked: their database cannot be reached from here");
        return Ok(Outcome::Done);
    }
    say::note(&text);
    bail!("cargo deny check advisories")
}
