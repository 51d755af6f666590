//! What the cluster needs of the machine: namespaces, mounts, cgroups, kernel settings.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::layout::{Cluster, NODE_CIDR, Node, POD_CIDR, SERVICE_CIDR};
use super::process::Process;
use super::state::State;
use crate::sh;

/// Kernel settings of the whole machine that a kubelet changes.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];
/// Directories that fixed paths in the kubelet, runc and CNI bring about.
const SHARED: [&str; 5] =
    ["/var/lib/kubelet", "/var/lib/cni", "/run/containerd", "/var/log/containers", "/run/netns"];
const CGROUPS: &str = "/sys/fs/cgroup";

/// Makes the node's network: its own address on the loopback device, and no way out.
pub(super) fn make_netns(node: &Node) -> Result<()> {
    if netns_exists(node) {
        return Ok(());
    }
    let _ = fs::remove_file(node.netns_path()); // a name without a mount, left by a reboot
    ip(&["netns", "add", &node.netns])?;
    let inside = |args: &[&str]| ip(&[&["-n", &node.netns][..], args].concat());
    inside(&["link", "set", "lo", "up"])?;
    inside(&["address", "add", &format!("{}/32", node.ip), "dev", "lo"])?;
    // Who runs on the node finds services too: kube-proxy turns them elsewhere, once there is a route at all.
    inside(&["route", "add", SERVICE_CIDR, "dev", "lo"])?;
    // Whatever looks for the outside (image pulls above all) fails at once instead of timing out.
    inside(&["route", "add", "unreachable", "default"])?;
    let netns = format!("--net={}", node.netns_path().display());
    let forward = "echo 1 >/proc/sys/net/ipv4/ip_forward";
    sh::run(&mut sh::command("nsenter", [&netns, "--", "sh", "-c", forward]))
}

/// Connects another node with the first one, which routes between all of them.
pub(super) fn connect(first: &Node, other: &Node) -> Result<()> {
    let (here, there) = (format!("to-{}", other.name), format!("to-{}", first.name));
    let in_first = |args: &[&str]| ip(&[&["-n", &first.netns][..], args].concat());
    let in_other = |args: &[&str]| ip(&[&["-n", &other.netns][..], args].concat());
    in_first(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &other.netns])?;
    in_first(&["link", "set", &here, "up"])?;
    in_other(&["link", "set", &there, "up"])?;
    // Each address is on the loopback device of its node, and so is nobody else's.
    in_first(&["route", "add", &other.ip, "dev", &here, "src", &first.ip])?;
    in_first(&["route", "add", &other.pod_cidr, "via", &other.ip, "dev", &here, "onlink", "src", &first.ip])?;
    in_other(&["route", "add", &first.ip, "dev", &there, "src", &other.ip])?;
    for rest in [NODE_CIDR, POD_CIDR] {
        in_other(&["route", "add", rest, "via", &first.ip, "dev", &there, "onlink", "src", &other.ip])?;
    }
    Ok(())
}

fn ip(args: &[&str]) -> Result<()> {
    sh::run(&mut sh::command("ip", args))
}

pub(super) fn netns_exists(node: &Node) -> bool {
    mounts().iter().any(|m| *m == node.netns_path())
}

pub(super) fn remove_netns(node: &Node) -> Result<()> {
    let path = node.netns_path();
    if netns_exists(node) {
        ip(&["netns", "delete", &node.netns])?;
    } else if path.exists() {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Every mount point this process sees, oldest first.
pub(super) fn mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let field = |line: &str| line.split(' ').nth(4).map(|p| p.replace("\\040", " ").replace("\\011", "\t"));
    table.lines().filter_map(field).map(PathBuf::from).collect()
}

/// Makes the checkout's disk reachable by a short path.
pub(super) fn bind_data(cluster: &Cluster) -> Result<()> {
    fs::create_dir_all(cluster.disk())?;
    fs::create_dir_all(cluster.data())?;
    if mounts().contains(&cluster.data()) {
        return Ok(());
    }
    sh::run(sh::command("mount", ["--bind"]).arg(cluster.disk()).arg(cluster.data()))?;
    // Or what is mounted below it would also appear in the checkout.
    sh::run(sh::command("mount", ["--make-private"]).arg(cluster.data()))
}

/// Takes away every mount below a directory, the newest first; says so when one stays.
pub(super) fn unmount_below(dir: &Path) -> Result<()> {
    for _ in 0..5 {
        let below: Vec<PathBuf> = mounts().into_iter().rev().filter(|m| m.starts_with(dir)).collect();
        if below.is_empty() {
            return Ok(());
        }
        for some in below.chunks(64) {
            let _ = sh::run(sh::command("umount", ["--lazy"]).args(some)); // judged by what is left
        }
    }
    let left = mounts().into_iter().filter(|m| m.starts_with(dir)).count();
    if left > 0 {
        bail!("{left} mounts below {} do not go away", dir.display());
    }
    Ok(())
}

/// The node's cgroup in every hierarchy of version 1, or the one of version 2.
fn cgroups(node: &Node) -> Vec<PathBuf> {
    let base = Path::new(CGROUPS);
    if base.join("cgroup.controllers").exists() {
        return vec![base.join(&node.cgroup)];
    }
    let Ok(entries) = fs::read_dir(base) else { return Vec::new() };
    let hierarchies = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink());
    hierarchies.map(|p| p.join(&node.cgroup)).collect()
}

pub(super) fn make_cgroups(node: &Node) -> Result<()> {
    for dir in cgroups(node) {
        let parent = dir.parent().unwrap_or(&dir);
        if !parent.join("cgroup.procs").exists() || parent.ends_with("unified") {
            continue;
        }
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let from = parent.join(name);
            if from.exists() && dir.join(name).exists() {
                fs::write(dir.join(name), fs::read(from)?)?; // empty in a new one, and then nothing may run
            }
        }
    }
    Ok(())
}

/// Kills everything that runs in the node's containers, then removes the cgroups.
pub(super) fn remove_cgroups(node: &Node) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut left = 0;
        for top in cgroups(node).into_iter().filter(|d| d.exists()) {
            let mut tree = Vec::new();
            descend(&top, &mut tree);
            for dir in tree {
                let frozen = dir.join("freezer.state");
                if frozen.exists() {
                    let _ = fs::write(frozen, "THAWED"); // a frozen process cannot die
                }
                let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                for process in members.lines().filter_map(|l| Process::with_pid(l.parse().ok()?)) {
                    process.signal(Signal::KILL);
                }
                if fs::remove_dir(&dir).is_err() && dir.exists() {
                    left += 1;
                }
            }
        }
        if left == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{left} cgroups of {} do not go away", node.cgroup);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A directory tree, leaves first.
fn descend(dir: &Path, tree: &mut Vec<PathBuf>) {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            descend(&entry.path(), tree);
        }
    }
    tree.push(dir.to_owned());
}

/// Other checkouts' clusters on this machine.
fn neighbours(cluster: &Cluster) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/run") else { return Vec::new() };
    let ours = |p: &PathBuf| *p != cluster.run && p.join("state.json").is_file();
    let named = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("postern-"));
    entries.flatten().map(|e| e.path()).filter(|p| named(p) && ours(p)).collect()
}

/// Remembers the machine as it was. A neighbour that came first knows better than we can see.
pub(super) fn remember(cluster: &Cluster, state: &mut State) {
    let boot = super::state::boot();
    for neighbour in neighbours(cluster) {
        let theirs = fs::read(neighbour.join("state.json")).ok();
        let theirs = theirs.and_then(|bytes| serde_json::from_slice::<State>(&bytes).ok());
        if let Some(theirs) = theirs.filter(|s| s.boot == boot && !s.sysctls.is_empty()) {
            state.sysctls = theirs.sysctls;
            state.made = theirs.made;
            return;
        }
    }
    for name in SYSCTLS {
        if let Ok(value) = fs::read_to_string(Path::new("/proc/sys").join(name)) {
            state.sysctls.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    state.made = SHARED.iter().filter(|d| !Path::new(d).exists()).map(|d| (*d).to_owned()).collect();
}

/// Puts the machine back, unless a neighbour still needs it as it is.
pub(super) fn restore(cluster: &Cluster, state: &State) {
    clean_shared(cluster);
    if !neighbours(cluster).is_empty() {
        return;
    }
    if state.of_this_boot() {
        for (name, value) in &state.sysctls {
            let path = Path::new("/proc/sys").join(name);
            let now = fs::read_to_string(&path).unwrap_or_default();
            if now.trim() != value {
                let _ = fs::write(path, value); // a container may forbid it; then it was not changed either
            }
        }
    }
    for dir in &state.made {
        let Some(dir) = SHARED.iter().find(|s| *s == dir) else { continue };
        let other_runtime = !super::process::find(|exe, _| exe.ends_with("/containerd")).is_empty();
        match *dir {
            // Only what fixed paths put there; anything else shows that someone else uses it.
            "/var/lib/kubelet" => {
                let _ = fs::remove_dir_all("/var/lib/kubelet/device-plugins");
                let _ = fs::remove_dir(dir);
            }
            "/run/containerd" if !other_runtime => {
                let _ = fs::remove_dir_all(dir);
            }
            // `ip netns` mounts it on itself; busy as long as somebody's namespace has a name there.
            "/run/netns" if fs::read_dir(dir).is_ok_and(|mut names| names.next().is_none()) => {
                while mounts().iter().any(|m| m == Path::new(dir)) {
                    if sh::run(&mut sh::command("umount", [dir])).is_err() {
                        break;
                    }
                }
                let _ = fs::remove_dir(dir);
            }
            "/var/lib/cni" => {
                let _ = fs::remove_dir_all("/var/lib/cni/results");
                let _ = fs::remove_dir(dir);
            }
            _ => {
                let _ = fs::remove_dir(dir);
            }
        }
    }
}

/// Removes our entries from directories that every cluster of a machine shares.
fn clean_shared(cluster: &Cluster) {
    let prefix = format!("postern-{}-", cluster.id);
    if let Ok(entries) = fs::read_dir("/var/lib/cni/results") {
        for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    if let Ok(entries) = fs::read_dir("/var/log/containers") {
        for entry in entries.flatten() {
            if fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(&cluster.run)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
