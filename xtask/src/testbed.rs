//! The cluster's programs: built from Go modules once per content, kept outside the checkout.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::say::{self, Progress};
use crate::{paths, sh};

/// Programs every build must have produced.
const PROGRAMS: [&str; 5] = ["postern-testbed", "testctl", "kubectl", "pause", "app"];
const KEEP: usize = 3;
const OLDEST_GO: (u32, u32) = (1, 26);

/// A finished build.
pub(crate) struct Programs {
    pub(crate) dir: PathBuf,
    /// Content hash of everything that went into it.
    pub(crate) id: String,
}

impl Programs {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The release that `testbed/go.mod` asks for, such as `v1.36.3`.
pub(crate) fn kubernetes_version() -> Result<String> {
    let file = paths::root().join("testbed/go.mod");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let line = text.lines().find_map(|l| l.trim().strip_prefix("k8s.io/kubernetes "));
    let version = line.and_then(|l| l.split_whitespace().next());
    Ok(version.context("testbed/go.mod does not require k8s.io/kubernetes")?.to_owned())
}

/// Returns the programs, building them when this content was never built on this machine.
pub(crate) fn programs(progress: Progress) -> Result<Programs> {
    let id = content_id()?;
    let base = paths::cache()?.join("testbed");
    let dir = base.join(&id);
    if complete(&dir) {
        return Ok(Programs { dir, id });
    }
    check_go()?;
    fs::create_dir_all(&base).with_context(|| base.display().to_string())?;
    let lock = File::create(base.join("lock"))?;
    if lock.try_lock().is_err() {
        progress.step("waiting for another checkout that is building Kubernetes");
        lock.lock()?;
    }
    if !complete(&dir) {
        build(progress, &base, &dir)?;
    }
    Ok(Programs { dir, id })
}

fn complete(dir: &Path) -> bool {
    PROGRAMS.iter().all(|p| dir.join(p).is_file())
}

/// Builds beside the final place and renames, so that a build cut short never looks finished.
fn build(progress: Progress, base: &Path, dir: &Path) -> Result<()> {
    for entry in fs::read_dir(base)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("unfinished-") {
            fs::remove_dir_all(entry.path())?; // we hold the lock, so nobody is writing it
        }
    }
    let unfinished = base.join(format!("unfinished-{}", std::process::id()));
    fs::create_dir_all(&unfinished)?;
    let version = kubernetes_version()?;
    progress.step(format!("building Kubernetes {version} from source: 5 to 10 minutes on two cores, once"));
    let (done, waiting) = mpsc::channel::<()>();
    let ticker = std::thread::spawn(move || {
        while waiting.recv_timeout(Duration::from_secs(30)) == Err(mpsc::RecvTimeoutError::Timeout) {
            progress.step("still building");
        }
    });
    let outcome = sh::run(
        sh::command("go", ["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
            .args(["-ldflags", &linker_flags(&version)?, "-o"])
            .arg(format!("{}/", unfinished.display()))
            .arg("./cmd/...")
            .current_dir(paths::root().join("testbed"))
            .env("CGO_ENABLED", "0")
            .env("GOWORK", "off")
            .env_remove("GOFLAGS")
            .env_remove("GOOS")
            .env_remove("GOARCH"),
    );
    drop(done);
    let _ = ticker.join();
    outcome.context("build the testbed")?;
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::rename(&unfinished, dir)?;
    prune(base)?;
    progress.step(format!("built; kept in {} (`cargo xtask cluster clean-cache` clears it)", dir.display()));
    Ok(())
}

/// Keeps the newest few builds: each takes 200 MB, and clusters hold links to what they run.
fn prune(base: &Path) -> Result<()> {
    let mut builds = Vec::new();
    for entry in fs::read_dir(base)?.flatten().filter(|e| e.path().is_dir()) {
        builds.push((entry.metadata()?.modified()?, entry.path()));
    }
    builds.sort();
    for (_, old) in builds.iter().rev().skip(KEEP) {
        fs::remove_dir_all(old)?;
    }
    Ok(())
}

/// Strips, and stamps the release as its own build would.
fn linker_flags(version: &str) -> Result<String> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let major = numbers.next().context("no major version")?;
    let minor = numbers.next().context("no minor version")?;
    let mut flags = vec!["-s -w".to_owned()];
    for package in ["k8s.io/client-go/pkg/version", "k8s.io/component-base/version"] {
        let values =
            [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")];
        flags.extend(values.map(|(name, value)| format!("-X {package}.{name}={value}")));
    }
    Ok(flags.join(" "))
}

fn check_go() -> Result<()> {
    let wanted = format!("Go {}.{} or newer is needed to build the test cluster", OLDEST_GO.0, OLDEST_GO.1);
    let Some(go) = sh::which(Path::new("go")) else { bail!("{wanted}: there is no `go` in PATH") };
    let version = sh::output(&mut sh::command(go, ["env", "GOVERSION"]))?;
    let mut numbers =
        version.trim().trim_start_matches("go").split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < OLDEST_GO {
        bail!("{wanted}: this is {}", version.trim());
    }
    Ok(())
}

/// Hashes the module's files, and how they are built.
fn content_id() -> Result<String> {
    let root = paths::root().join("testbed");
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    hash.update(linker_flags(&kubernetes_version()?)?);
    hash.update(std::env::consts::ARCH);
    for file in files {
        let content = fs::read(&file)?;
        let name = file.strip_prefix(&root).unwrap_or(&file);
        hash.update(format!("\n{} {}\n", name.display(), content.len()));
        hash.update(content);
    }
    Ok(paths::hex(&hash.finalize())[..16].to_owned())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A module of its own is a program of its own.
        if path.is_dir() && name != "bin" && !path.join("go.mod").is_file() {
            collect(&path, files)?;
        } else if name.ends_with(".go") || name == "go.mod" || name == "go.sum" {
            files.push(path);
        }
    }
    Ok(())
}

/// Returns the registry of the distribution project, building it when this content was never built on this machine.
pub(crate) fn registry(progress: Progress) -> Result<PathBuf> {
    let source = paths::root().join("testbed/registry");
    let mut files = Vec::new();
    collect(&source, &mut files)?;
    files.sort();
    let mut content = std::env::consts::ARCH.as_bytes().to_vec();
    for file in files {
        content.extend(fs::read(&file).with_context(|| file.display().to_string())?);
    }
    let base = paths::cache()?.join("registry");
    let program = base.join(&paths::digest(&content)[..16]);
    if program.is_file() {
        return Ok(program);
    }
    check_go()?;
    fs::create_dir_all(&base).with_context(|| base.display().to_string())?;
    let lock = File::create(base.join("lock"))?;
    lock.lock()?;
    if program.is_file() {
        return Ok(program);
    }
    progress.step("building the registry from source, once");
    let unfinished = base.join("unfinished");
    let mut build = sh::command("go", ["build", "-mod=readonly", "-trimpath", "-buildvcs=false"]);
    build.args(["-ldflags", "-s -w", "-o"]).arg(&unfinished).arg(".").current_dir(&source);
    build.env("CGO_ENABLED", "0").env("GOWORK", "off");
    build.env_remove("GOFLAGS").env_remove("GOOS").env_remove("GOARCH");
    sh::run(&mut build).context("build the registry")?;
    // A build cut short never looks finished.
    fs::rename(&unfinished, &program)?;
    Ok(program)
}

/// Removes everything kept outside the checkout.
pub(crate) fn clean_cache() -> Result<()> {
    let base = paths::cache()?;
    for part in ["testbed", "debian", "tools", "providers", "registry"] {
        let dir = base.join(part);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
            say::result(format!("removed {}", dir.display()));
        }
    }
    Ok(())
}
