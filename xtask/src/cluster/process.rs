//! Daemons: started in a session of their own, remembered by pid and start time, so that a pid that
//! was given to another program is never signalled.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::layout::Cluster;
use crate::sh;

/// How to start one daemon.
pub(super) struct Daemon {
    pub(super) name: String,
    /// The network namespace it lives in; none is the machine's own.
    pub(super) netns: Option<PathBuf>,
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
}

/// One process, told apart from later ones with its pid by the tick it started at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    start: u64,
}

impl Process {
    /// The process that has this pid now.
    pub(super) fn with_pid(pid: u32) -> Option<Self> {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = line.rsplit_once(')')?; // the name before it may hold anything
        let mut fields = fields.split_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X");
        let start = fields.nth(18)?.parse().ok()?;
        (!ended).then_some(Self { pid, start })
    }

    pub(super) fn alive(self) -> bool {
        Self::with_pid(self.pid) == Some(self)
    }

    pub(super) fn signal(self, signal: Signal) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        // The descriptor holds on to one process; only then is its identity checked.
        if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty())
            && self.alive()
        {
            let _ = pidfd_send_signal(fd, signal); // gone already is as good
        }
    }
}

fn pid_file(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.run.join("pids").join(name)
}

/// The running process of a daemon, if it runs.
pub(super) fn running(cluster: &Cluster, name: &str) -> Option<Process> {
    let text = fs::read_to_string(pid_file(cluster, name)).ok()?;
    let (pid, start) = text.trim().split_once(' ')?;
    let process = Process { pid: pid.parse().ok()?, start: start.parse().ok()? };
    process.alive().then_some(process)
}

/// Starts it unless it runs. True when it was started.
pub(super) fn ensure(cluster: &Cluster, daemon: &Daemon) -> Result<bool> {
    if running(cluster, &daemon.name).is_some() {
        return Ok(false);
    }
    let log_path = cluster.log(&daemon.name);
    fs::create_dir_all(log_path.parent().unwrap_or(&cluster.dir))?;
    fs::create_dir_all(cluster.run.join("pids"))?;
    let log = File::options().create(true).append(true).open(&log_path)?;
    // Each of these replaces itself with the next, so the child's pid is the daemon's.
    let mut command = sh::command("setsid", Vec::<String>::new());
    if let Some(netns) = &daemon.netns {
        command.arg("nsenter").arg(format!("--net={}", netns.display())).arg("--");
    }
    command.arg(&daemon.program).args(&daemon.args);
    // A caller's proxies and secrets are no business of the cluster's.
    command.env_clear().env("PATH", sh::SYSTEM_PATH).env("HOME", "/root").current_dir("/");
    command.stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().with_context(|| format!("start {}", daemon.name))?;
    let process = Process::with_pid(child.id())
        .with_context(|| format!("{} ended at once; see {}", daemon.name, log_path.display()))?;
    fs::write(pid_file(cluster, &daemon.name), format!("{} {}\n", process.pid, process.start))?;
    Ok(true)
}

/// Stops one daemon and waits for its end.
pub(super) fn stop(cluster: &Cluster, name: &str, grace: Duration) {
    if let Some(process) = running(cluster, name) {
        process.signal(Signal::TERM);
        if !wait_gone(&[process], grace) {
            process.signal(Signal::KILL);
            wait_gone(&[process], Duration::from_secs(5));
        }
    }
    let _ = fs::remove_file(pid_file(cluster, name)); // it may never have run
}

/// Kills all of them at once. True when none is left.
pub(super) fn kill(processes: &[Process]) -> bool {
    for process in processes {
        process.signal(Signal::KILL);
    }
    wait_gone(processes, Duration::from_secs(5))
}

fn wait_gone(processes: &[Process], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while processes.iter().any(|p| p.alive()) {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Every process of the machine for which the test holds, given its program and command line.
pub(super) fn find(test: impl Fn(&str, &str) -> bool) -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        test(&exe.to_string_lossy(), &String::from_utf8_lossy(&line).replace('\0', " "))
    })
    .filter_map(Process::with_pid)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_no_other_with_its_pid() {
        let own = Process::with_pid(std::process::id()).unwrap();
        assert!(own.alive());
        assert!(!Process { start: own.start + 1, ..own }.alive());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let started = std::time::Instant::now();
        while Process::with_pid(child.id()).is_some() {
            assert!(started.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait().unwrap();
    }
}
