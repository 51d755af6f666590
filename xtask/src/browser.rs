//! The report's page in a real browser: Chromium from Debian, driven by node modules of a lock file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::apt::Apt;
use crate::{paths, sh};

/// What is needed, by the program that shows that it is there.
const PACKAGES: [(&str, &str); 3] = [("chromium", "chromium"), ("node", "nodejs"), ("npm", "npm")];

/// Where the test's `package.json` lies.
const TEST: &str = "crates/mechanisms/report/tests/browser";

/// The browser and the folder with its node modules.
pub(crate) struct Browser {
    pub(crate) chromium: PathBuf,
    pub(crate) modules: PathBuf,
}

/// Installs what is missing.
pub(crate) fn get() -> Result<Browser> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| sh::which(Path::new(program)).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        let apt = Apt::of_this_machine();
        let install = || {
            let mut command = apt.get(["install", "-y", "-q", "--no-install-recommends"]);
            sh::run(command.args(&missing))
        };
        apt.refresh_if_never()
            .and_then(|()| install())
            .or_else(|_| apt.refresh().and_then(|()| install()))
            .with_context(|| format!("install {}", missing.join(" ")))?;
    }
    let chromium = sh::which(Path::new("chromium")).context("there is no chromium")?;
    Ok(Browser { chromium, modules: modules()? })
}

/// The node modules of the lock file, kept outside the checkout.
fn modules() -> Result<PathBuf> {
    let from = paths::root().join(TEST);
    let lock = fs::read(from.join("package-lock.json")).context("read the lock file of the browser test")?;
    let modules = paths::cache()?.join("tools").join(format!("browser-{}", &paths::digest(&lock)[..16]));
    let done = modules.join("done");
    if !done.is_file() {
        fs::create_dir_all(&modules)?;
        for name in ["package.json", "package-lock.json"] {
            fs::copy(from.join(name), modules.join(name)).with_context(|| name.to_owned())?;
        }
        let mut npm = sh::command("npm", ["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
        sh::run(npm.arg(&modules)).context("install the node modules of the browser test")?;
        fs::write(&done, "")?;
    }
    Ok(modules)
}
