//! Finds all processes of a command through `/proc`: as a subreaper we are an ancestor of all of them.

#[cfg(target_os = "linux")]
use rustix::process::Pid;
use rustix::process::Signal;

/// Sends `signal` to every descendant; returns their number.
#[cfg(target_os = "linux")]
pub(super) fn signal(signal: Signal) -> u32 {
    let mut sent = 0;
    for pid in all() {
        if rustix::process::kill_process(pid, signal).is_ok() {
            sent += 1;
        }
        if signal == Signal::TERM {
            // A stopped process would delay its SIGTERM.
            let _ = rustix::process::kill_process(pid, Signal::CONT);
        }
    }
    sent
}

/// Other systems have neither subreapers nor `/proc`: only the command's own group is signalled.
#[cfg(not(target_os = "linux"))]
pub(super) fn signal(_: Signal) -> u32 {
    0
}

/// All our descendants.
#[cfg(target_os = "linux")]
fn all() -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let parents: Vec<(i32, i32)> = entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let (parent, state) = parent(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)?;
            (state != b'Z').then_some((pid, parent))
        })
        .collect();
    below(rustix::process::getpid().as_raw_nonzero().get(), &parents)
        .into_iter()
        .filter_map(Pid::from_raw)
        .collect()
}

/// Parent and state from `/proc/PID/stat` (proc(5)). The name in parentheses may contain anything.
#[cfg(target_os = "linux")]
fn parent(stat: &[u8]) -> Option<(i32, u8)> {
    let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let mut fields = std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    Some((fields.next()?.parse().ok()?, state))
}

#[cfg(target_os = "linux")]
fn below(root: i32, parents: &[(i32, i32)]) -> Vec<i32> {
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.remove(0);
    found
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_mislead() {
        assert_eq!(parent(b"12 (a) S 99 (x)) R 7 12 12 0"), Some((7, b'R')));
        assert_eq!(parent(b"garbage"), None);
    }

    #[test]
    fn all_generations_are_found() {
        let parents = [(2, 1), (3, 2), (4, 3), (5, 1), (9, 8)];
        let mut found = below(1, &parents);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 4, 5]);
    }
}
