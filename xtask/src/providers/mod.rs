//! `cargo xtask providers`: real identity providers, and S3, for the tests, from their registries, kept outside the checkout.
//!
//! Keycloak comes from Maven Central and is built for its first start here, Dex and versitygw (S3 over a directory) are
//! Go programs by their modules, and moto (AWS's API) comes from `PyPI`. Links to them lie in `target/testbed/providers`; Keycloak and Dex are started
//! beside the cluster, for pods.

mod start;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use sha2::{Digest as _, Sha256};

use crate::apt::Apt;
use crate::{paths, say, sh};

/// `cargo xtask providers COMMAND`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Get them: minutes the first time, and then nothing
    Get,
    /// Start Keycloak and Dex on the cluster's node, where pods reach them
    Up,
    /// Stop them; `cargo xtask cluster down` does it too
    Down,
}

const KEYCLOAK: &str = "26.7.3";
const KEYCLOAK_SHA256: &str = "77657f30b7e90d70f727712ce1c967f430fd6a5e9f458d32d8c6df0635345f47";
const MAVEN_DEPENDENCY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
const MOTO: &str = "5.2.5";

/// What is fixed when Keycloak is built, so that it starts in seconds.
const KEYCLOAK_BUILD: [&str; 3] = ["build", "--db=dev-file", "--cache=local"];

/// One of them: what its content hangs on, and how it is made in a folder.
struct Server {
    name: &'static str,
    id: String,
    make: fn(&Path) -> Result<()>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match args.command {
        Command::Get => get()?,
        Command::Up => {
            get()?;
            start::up()?;
        }
        Command::Down => start::down(),
    }
    Ok(ExitCode::SUCCESS)
}

fn get() -> Result<()> {
    fs::create_dir_all(links())?;
    let mut missing = Vec::new();
    for server in servers()? {
        let link = links().join(server.name);
        let dir = match server.get().or_else(|error| {
            say::note(format!("{error:#}; once more"));
            server.get()
        }) {
            Ok(dir) => dir,
            Err(error) => {
                say::note(format!("{error:#}"));
                missing.push(server.name);
                continue;
            }
        };
        if fs::read_link(&link).ok().as_deref() != Some(&dir) {
            let _ = fs::remove_file(&link); // of another version, or none
            std::os::unix::fs::symlink(&dir, &link).with_context(|| link.display().to_string())?;
        }
    }
    ensure!(missing.is_empty(), "{} could not be had", missing.join(", "));
    Ok(())
}

fn links() -> PathBuf {
    paths::target().join("testbed/providers")
}

fn sources(name: &str) -> PathBuf {
    paths::root().join("e2e/providers").join(name)
}

/// What a Go program of ours is made of.
fn module(name: &str, files: &[&str]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for file in files {
        let path = sources(name).join(file);
        all.extend(fs::read(&path).with_context(|| path.display().to_string())?);
    }
    Ok(all)
}

fn servers() -> Result<[Server; 4]> {
    let dex = module("dex", &["go.mod", "go.sum", "main.go"])?;
    let versitygw = module("versitygw", &["go.mod", "go.sum"])?;
    let keycloak = format!("{KEYCLOAK} {KEYCLOAK_SHA256} {KEYCLOAK_BUILD:?}");
    let id = |content: &[u8]| paths::digest(content)[..16].to_owned();
    Ok([
        Server { name: "keycloak", id: id(keycloak.as_bytes()), make: keycloak_in },
        Server { name: "dex", id: id(&dex), make: dex_in },
        Server { name: "versitygw", id: id(&versitygw), make: versitygw_in },
        Server { name: "moto", id: id(MOTO.as_bytes()), make: moto_in },
    ])
}

impl Server {
    /// Its folder, made first where this content never was.
    fn get(&self) -> Result<PathBuf> {
        let Self { name, id, make } = self;
        let base = paths::cache()?.join("providers");
        let dir = base.join(format!("{name}-{id}"));
        let done = dir.join(".complete");
        if done.exists() {
            return Ok(dir);
        }
        fs::create_dir_all(&base)?;
        let lock = fs::File::create(base.join("lock"))?;
        lock.lock()?;
        if !done.exists() {
            say::note(format!("getting {name}, a minute or more, once (kept in {})", dir.display()));
            if dir.exists() {
                fs::remove_dir_all(&dir)?; // cut short: a virtual environment cannot be moved into place
            }
            fs::create_dir_all(&dir)?;
            make(&dir).with_context(|| (*name).to_owned())?;
            fs::write(done, "")?;
        }
        Ok(dir)
    }
}

/// Installs Debian's packages where a program is missing.
fn need(program: &str, packages: &[&str]) -> Result<()> {
    if sh::which(Path::new(program)).is_some() { Ok(()) } else { install(packages) }
}

fn install(packages: &[&str]) -> Result<()> {
    let apt = Apt::of_this_machine();
    let once = || sh::run(apt.get(["install", "-q", "-y", "--no-install-recommends"]).args(packages));
    apt.refresh_if_never()?;
    once().or_else(|_| apt.refresh().and_then(|()| once()))
}

/// No download waits for ever.
fn patient(program: &str, seconds: u64) -> Process {
    let mut command = sh::command("timeout", [seconds.to_string()]);
    command.args(["nice", "-n", "5", program]);
    command
}

fn keycloak_in(dir: &Path) -> Result<()> {
    need("java", &["openjdk-17-jre-headless"])?;
    need("mvn", &["maven"])?;
    let mut get = patient("mvn", 600);
    get.args(["-q", "-B", &format!("{MAVEN_DEPENDENCY}:copy")]);
    get.arg(format!("-Dartifact=org.keycloak:keycloak-quarkus-dist:{KEYCLOAK}:tar.gz"));
    get.arg(format!("-DoutputDirectory={}", dir.display())).current_dir(dir);
    sh::run(&mut get).context("get it with Maven")?;
    let archive = dir.join(format!("keycloak-quarkus-dist-{KEYCLOAK}.tar.gz"));
    let mut hash = Sha256::new();
    std::io::copy(&mut fs::File::open(&archive)?, &mut hash)?;
    let found = paths::hex(&hash.finalize());
    if found != KEYCLOAK_SHA256 {
        bail!("its SHA-256 is {found}, not {KEYCLOAK_SHA256}");
    }
    sh::run(sh::command("tar", ["-xzf"]).arg(&archive).args(["--strip-components=1", "-C"]).arg(dir))?;
    fs::remove_file(archive)?;
    sh::run(patient(&dir.join("bin/kc.sh").display().to_string(), 300).args(KEYCLOAK_BUILD))
}

fn dex_in(dir: &Path) -> Result<()> {
    go_build("dex", ".", dir)
}

fn versitygw_in(dir: &Path) -> Result<()> {
    go_build("versitygw", "github.com/versity/versitygw/cmd/versitygw", dir)
}

/// Builds a package that one of our modules pins.
fn go_build(name: &str, package: &str, dir: &Path) -> Result<()> {
    let mut build = patient("go", 1_200);
    build.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o"]);
    build.arg(dir.join(name)).arg(package).current_dir(sources(name));
    build.env("CGO_ENABLED", "0").env("GOWORK", "off").env_remove("GOFLAGS");
    sh::run(&mut build)
}

fn moto_in(dir: &Path) -> Result<()> {
    // A Python without `ensurepip` is Debian's own, whose package this is.
    if sh::run(&mut sh::command("python3", ["-c", "import ensurepip"])).is_err() {
        install(&["python3-venv"])?;
    }
    sh::run(sh::command("python3", ["-m", "venv"]).arg(dir))?;
    let pip = dir.join("bin/pip").display().to_string();
    let mut install = patient(&pip, 600);
    install.args(["install", "--quiet", "--disable-pip-version-check", &format!("moto[server]=={MOTO}")]);
    sh::run(&mut install)
}
