//! The agent's memory, read from outside: the pod's processes are processes of this machine.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::sh;
use crate::subject::Subject;

/// Peak memory in MiB of `postern-agent serve`, and of `postern-agent run` during a stream of so many bytes.
pub(super) fn memory(subject: &Subject, bytes: u64) -> Result<(f64, f64)> {
    let uid = sh::output(&mut subject.kubectl(&[
        "get",
        "pod",
        "-n",
        "postern-ops",
        "postern-ops",
        "-o",
        "jsonpath={.metadata.uid}",
    ]))?;
    let serve = peak(&uid, "serve").context("no `postern-agent serve` among this machine's processes")?;
    let size = bytes.to_string();
    let mut stream = subject.run(false, &["head", "-c", &size, "/dev/zero"]);
    let mut child = stream.stdout(Stdio::null()).spawn()?;
    let mut highest: Option<f64> = None;
    let status = loop {
        if let Some(now) = peak(&uid, "run") {
            highest = Some(highest.map_or(now, |before| before.max(now)));
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    if !status.success() {
        bail!("postern run: {status}");
    }
    Ok((serve, highest.context("no `postern-agent run` was seen")?))
}

/// The highest memory, in MiB, that an agent of this pod with this first argument ever had.
fn peak(uid: &str, argument: &str) -> Option<f64> {
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let peaks = pids.filter_map(|pid| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let line = read("cmdline")?;
        let mut words = line.split('\0');
        if !words.next()?.ends_with("postern-agent")
            || words.next()? != argument
            || !read("cgroup")?.contains(uid)
        {
            return None;
        }
        let status = read("status")?;
        let kib =
            status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?.trim().strip_suffix(" kB")?.parse::<u32>();
        Some(f64::from(kib.ok()?) / 1024.0)
    });
    peaks.max_by(f64::total_cmp)
}
