//! Debian packages: those the cluster runs on, and those that images are made of.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::Apt;
use crate::say::Progress;
use crate::{paths, sh};

/// What must be present, and the package that brings it.
const TOOLS: [(&str, &str); 14] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("iptables-restore", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("dpkg-deb", "dpkg"),
];

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What the tests of the keychain and of certificates need besides.
const TEST_TOOLS: [(&str, &str); 4] = [
    ("dbus-run-session", "dbus"),
    ("gnome-keyring-daemon", "gnome-keyring"),
    ("secret-tool", "libsecret-tools"),
    ("openssl", "openssl"),
];

fn missing() -> BTreeSet<&'static str> {
    TOOLS
        .iter()
        .chain(&TEST_TOOLS)
        .filter(|(tool, _)| sh::which(Path::new(tool)).is_none())
        .map(|(_, package)| *package)
        .collect()
}

/// Says in one line why this machine cannot carry the cluster.
pub(crate) fn check_machine() -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("the test cluster needs Linux; this is {}", std::env::consts::OS);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("the test cluster needs root: it makes network namespaces, mounts and cgroups");
    }
    Ok(())
}

/// Installs what is missing, without leaving a system-wide containerd running.
pub(crate) fn install_tools(progress: Progress) -> Result<()> {
    let wanted = missing();
    if wanted.is_empty() {
        return Ok(());
    }
    let list = wanted.iter().copied().collect::<Vec<_>>().join(" ");
    if sh::which(Path::new("apt-get")).is_none() {
        bail!("not a Debian machine: install what these packages hold, then run this again: {list}");
    }
    progress.step(format!("installing Debian packages, some seconds, once: {list}"));
    let policy = hold_services()?;
    let install = || {
        let args = ["install", "-y", "-q", "--no-install-recommends"];
        sh::run(sh::command("apt-get", args).args(&wanted).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let apt = Apt::of_this_machine();
    let outcome =
        apt.refresh_if_never().and_then(|()| install()).or_else(|_| apt.refresh().and_then(|()| install()));
    if policy {
        fs::remove_file(POLICY)?;
    }
    outcome.with_context(|| format!("install {list}"))?;
    if wanted.contains("containerd") && Path::new("/run/systemd/system").is_dir() {
        sh::run(&mut sh::command("systemctl", ["disable", "--now", "containerd"]))?;
    }
    let still = missing();
    if !still.is_empty() {
        bail!("still missing after the installation: {}", still.into_iter().collect::<Vec<_>>().join(" "));
    }
    Ok(())
}

/// Tells package scripts not to start services. True when we wrote the policy and must remove it.
fn hold_services() -> Result<bool> {
    let opened = File::options().write(true).create_new(true).mode(0o755).open(POLICY);
    match opened {
        Ok(mut file) => file.write_all(b"#!/bin/sh\nexit 101\n").map(|()| true).context(POLICY),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).context(POLICY),
    }
}

/// A directory with the given packages and all they depend on unpacked, made once and kept. The packages are of this
/// machine's Debian.
pub(crate) fn rootfs(progress: Progress, packages: &[&str], leave_out: &[&str]) -> Result<PathBuf> {
    let recipe = format!("{packages:?} {leave_out:?} {}", release());
    unpacked(progress, &recipe, |_| Ok(Apt::of_this_machine()), packages, leave_out)
}

/// The same of Debian's unstable suite, with packages of other architectures too (`NAME:arm64`). It is what the suite
/// held on the day of the first call, until the cache is cleared.
pub(crate) fn unstable_rootfs(progress: Progress, packages: &[&str]) -> Result<PathBuf> {
    unpacked(progress, &format!("unstable {packages:?}"), Apt::of_unstable, packages, &[])
}

fn unpacked(
    progress: Progress,
    recipe: &str,
    apt: impl FnOnce(&Path) -> Result<Apt>,
    packages: &[&str],
    leave_out: &[&str],
) -> Result<PathBuf> {
    if sh::which(Path::new("apt-get")).is_none() {
        bail!("this is made of Debian packages, and there is no apt-get here");
    }
    let recipe = format!("{recipe} {} {}", include_str!("debian.rs"), include_str!("apt.rs"));
    let base = paths::cache()?.join("debian");
    let dir = base.join(&paths::digest(recipe.as_bytes())[..16]);
    if dir.is_dir() {
        return Ok(dir);
    }
    fs::create_dir_all(&base)?;
    let lock = File::create(base.join("lock"))?;
    lock.lock()?;
    if dir.is_dir() {
        return Ok(dir);
    }
    progress.step(format!("fetching Debian packages, once: {}", packages.join(" ")));
    let unfinished = base.join("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?; // a fetch cut short; we hold the lock
    }
    let (debs, root) = (unfinished.join("debs"), unfinished.join("root"));
    fs::create_dir_all(&debs)?;
    skeleton(&root)?;
    let apt = apt(&unfinished.join("apt"))?;
    apt.refresh_if_never()?;
    let names = apt.closure(packages)?;
    let names: Vec<&String> = names.iter().filter(|n| !leave_out.contains(&n.as_str())).collect();
    let fetch = || sh::run(apt.get(["download", "-q"]).args(&names).current_dir(&debs));
    fetch().or_else(|_| apt.refresh().and_then(|()| fetch()))?;
    for deb in fs::read_dir(&debs)? {
        let unpack = r#"set -e; dpkg-deb --fsys-tarfile "$1" | tar -x -p --keep-directory-symlink -C "$2""#;
        sh::run(sh::command("sh", ["-c", unpack, "sh"]).arg(deb?.path()).arg(&root))?;
    }
    trim(&root)?;
    fs::rename(&root, &dir)?;
    fs::remove_dir_all(&unfinished)?;
    Ok(dir)
}

fn release() -> String {
    fs::read_to_string("/etc/debian_version").unwrap_or_default()
}

/// Today's Debian has one directory each for programs and libraries; packages still use the old names.
fn skeleton(root: &Path) -> Result<()> {
    for (link, to) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("lib32", "usr/lib32"),
    ] {
        fs::create_dir_all(root.join(to))?;
        symlink(to, root.join(link))?;
    }
    Ok(())
}

/// Leaves out what only people read.
fn trim(root: &Path) -> Result<()> {
    const UNWANTED: [&str; 14] = [
        "usr/share/doc",
        "usr/share/man",
        "usr/share/info",
        "usr/share/locale",
        "usr/share/lintian",
        "usr/share/bash-completion",
        "usr/share/bug",
        "usr/share/zsh",
        "usr/share/common-licenses",
        "usr/share/doc-base",
        "usr/lib32",
        "lib32",
        "var/cache",
        "var/lib/dpkg",
    ];
    for path in UNWANTED.map(|p| root.join(p)) {
        if path.is_symlink() {
            fs::remove_file(path)?;
        } else if path.is_dir() {
            fs::remove_dir_all(path)?;
        }
    }
    for arch in fs::read_dir(root.join("usr/lib"))?.flatten() {
        let conversions = arch.path().join("gconv");
        if conversions.is_dir() {
            fs::remove_dir_all(conversions)?;
        }
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
