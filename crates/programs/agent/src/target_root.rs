//! The file system of another container, from a container that shares its process namespace: `/proc/PID/root`
//! of one of its processes.
//!
//! The cgroup identifies the processes of the target: `/proc/PID/cgroup` contains the container's id in both
//! versions of cgroups, and is readable by anyone. With a private cgroup namespace the path is relative to
//! our own cgroup (`0::/../ID`) and still contains it. PID 1 is used only if no ids are visible (gVisor). It
//! is then the target's own, unless the pod shares its process namespace (the pause container's) or the
//! node's (the node's init).
//!
//! The kernel decides what may be opened (ptrace(2), "access mode checking"): it requires the same UID and
//! GID, no capability that we lack, and a dumpable process.

mod parse;

pub use parse::Identity;

use parse::{names_container, shows_an_id, started};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The inode of the node's process namespace, the same in every kernel (`PROC_PID_INIT_INO`).
const NODE_PROCESSES: &str = "pid:[4026531836]";

/// Programs that hold a pod's namespaces and belong to no container.
const HOLDERS: [&str; 3] = ["pause", "pod", "catatonit"];

/// Why the root of a container is not available.
#[derive(Debug, thiserror::Error)]
pub enum TargetRootError {
    /// The argument is not a container id.
    #[error("looking for the processes of container {0:?}: this is not a container id")]
    NotAnId(String),
    /// The process table cannot be read.
    #[error("looking for the processes of container {id} in /proc: {source}")]
    Proc {
        /// The container.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// No process of the container is visible.
    #[error(
        "looking for the processes of container {id} in /proc: {why}; it may have ended or been restarted, or this \
         container does not share its process namespace"
    )]
    NotHere {
        /// The container.
        id: String,
        /// What is visible instead.
        why: &'static str,
    },
    /// The kernel denies access.
    #[error(
        "opening /proc/{pid}/root, the file system of container {id}: permission denied, as {}; other ways: an \
         image with the agent or a shell, a sidecar, or a volume that both mount",
        .why
    )]
    Denied {
        /// The container.
        id: String,
        /// Its process.
        pid: u32,
        /// The reason.
        why: String,
    },
    /// It cannot be opened.
    #[error("opening /proc/{pid}/root, the file system of container {id}: {source}")]
    Open {
        /// The container.
        id: String,
        /// Its process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
}

/// A process, with its public attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: u32,
    /// In clock ticks since boot.
    started: u64,
    cgroup: String,
}

/// The result of looking for a container's first process.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// Its first process.
    First(u32),
    /// No ids are visible, so it can only be PID 1.
    PerhapsPid1,
    /// Ids are visible, but not this one.
    Absent,
}

/// The root directory of the container with this id, as a path in `/proc` that is valid as long as its first
/// process runs. Open it once: a restarted container has another.
pub fn find(container_id: &str) -> Result<PathBuf, TargetRootError> {
    open(locate(container_id)?, container_id)
}

/// The UID and GID of the container with this id. They are public; accessing its files requires the same.
pub fn user(container_id: &str) -> Result<(u32, u32), TargetRootError> {
    let pid = locate(container_id)?;
    let its = identity(&pid.to_string()).ok_or_else(|| not_here(container_id, "its process has ended"))?;
    Ok((its.uids[1], its.gids[1]))
}

fn not_here(id: &str, why: &'static str) -> TargetRootError {
    TargetRootError::NotHere { id: id.to_owned(), why }
}

/// The container's first process.
fn locate(id: &str) -> Result<u32, TargetRootError> {
    if id.len() < 12 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(TargetRootError::NotAnId(id.to_owned()));
    }
    let all = processes(Path::new("/proc"));
    let all = all.map_err(|source| TargetRootError::Proc { id: id.to_owned(), source })?;
    match choose(&all, id) {
        Choice::First(pid) => Ok(pid),
        Choice::PerhapsPid1 => not_a_containers().map_or(Ok(1), |why| Err(not_here(id, why))),
        Choice::Absent => Err(not_here(id, "other containers' processes are there, none of its own")),
    }
}

/// All processes. One that ends meanwhile is skipped.
fn processes(proc: &Path) -> io::Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let text = |name: &str| {
            fs::read(entry.path().join(name)).map(|text| String::from_utf8_lossy(&text).into_owned())
        };
        if let (Ok(cgroup), Ok(stat)) = (text("cgroup"), text("stat")) {
            all.push(Process { pid, started: started(&stat).unwrap_or(u64::MAX), cgroup });
        }
    }
    Ok(all)
}

/// The container's first process: the one that started first. (PIDs wrap around, so a command started later
/// may have a lower one.)
fn choose(all: &[Process], id: &str) -> Choice {
    let its = all.iter().filter(|process| names_container(&process.cgroup, id));
    if let Some(first) = its.min_by_key(|process| (process.started, process.pid)) {
        return Choice::First(first.pid);
    }
    let first = all.iter().find(|process| process.pid == 1);
    if first.is_some_and(|first| !shows_an_id(&first.cgroup)) { Choice::PerhapsPid1 } else { Choice::Absent }
}

/// Why PID 1 does not belong to a container, if so.
fn not_a_containers() -> Option<&'static str> {
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let name = fs::read_to_string("/proc/1/comm").unwrap_or_default();
    if namespace == Path::new(NODE_PROCESSES) {
        Some("PID 1 is the node's (hostPID)")
    } else if HOLDERS.contains(&name.trim_end()) || fs::symlink_metadata("/proc/1/root/pause").is_ok() {
        Some("PID 1 is the pause container's (shareProcessNamespace)")
    } else {
        // If it is not readable, it is not our own.
        match (fs::read_link("/proc/1/ns/mnt"), fs::read_link("/proc/self/ns/mnt")) {
            (Ok(first), Ok(own)) if first == own => Some("PID 1 is this container's own"),
            _ => None,
        }
    }
}

fn open(pid: u32, id: &str) -> Result<PathBuf, TargetRootError> {
    let id = id.to_owned();
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    match fs::metadata(&root) {
        Ok(_) => Ok(root),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let why = match (identity(&pid.to_string()), identity("self")) {
                (Some(its), Some(own)) => own.denial_reason(&its),
                _ => "the kernel does not say why".to_owned(),
            };
            Err(TargetRootError::Denied { id, pid, why })
        }
        Err(source) => Err(TargetRootError::Open { id, pid, source }),
    }
}

fn identity(process: &str) -> Option<Identity> {
    Identity::parse(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "147e0b15c89e875b723990b51f6b8f50c510b489b8e38c20fb34cc4554d9adc6";
    const OTHER: &str = "df00d5921dab1a542ef360c151fe6d44e84666730334f012f6c4d568138e8b96";

    fn process(pid: u32, started: u64, cgroup: &str) -> Process {
        Process { pid, started, cgroup: cgroup.to_owned() }
    }

    #[test]
    fn the_process_that_started_first_is_the_containers_own() {
        let its = format!("0::/../{APP}\n");
        let ours = process(40, 700, "0::/\n");
        let pause = process(1, 100, &format!("0::/../{OTHER}\n"));
        let all = [ours, pause, process(14, 200, &its), process(24, 200, &its), process(7, 900, &its)];
        assert_eq!(choose(&all, APP), Choice::First(14));
    }

    #[test]
    fn pid_1_is_used_only_without_visible_ids() {
        let pause = process(1, 100, &format!("0::/../{OTHER}\n"));
        assert_eq!(choose(&[pause, process(9, 200, "0::/\n")], APP), Choice::Absent);
        assert_eq!(choose(&[process(1, 100, "0::/\n"), process(9, 200, "0::/\n")], APP), Choice::PerhapsPid1);
        assert_eq!(choose(&[process(9, 200, "0::/\n")], APP), Choice::Absent);
    }

    #[test]
    fn invalid_ids_are_refused() {
        for id in ["", "app", "containerd://147e0b15c89e875b", "../../147e0b15c89e"] {
            assert!(matches!(find(id), Err(TargetRootError::NotAnId(_))), "{id}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_no_such_container() {
        let error = find(&"0123456789abcdef".repeat(4)).unwrap_err();
        assert!(matches!(error, TargetRootError::NotHere { .. }), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn every_process_is_seen_with_its_start() {
        let all = processes(Path::new("/proc")).unwrap();
        let own = all.iter().find(|process| process.pid == std::process::id()).unwrap();
        assert!(own.started < u64::MAX && !own.cgroup.is_empty(), "{own:?}");
    }
}
