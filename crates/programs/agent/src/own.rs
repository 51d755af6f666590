//! `own`: gives trees to one user and group, as an init container does for a volume.
//!
//! It differs from `chown -R` in what it protects. It follows no symlink and enters no other mount. It leaves a
//! file with several hard links, as another name of it may be outside the volume. It looks before it changes, so a
//! tree that is right already is not written to. The root of the tree comes last: if it has the right owner, then the
//! tree was finished.

mod entry;
mod queue;
mod report;
mod walk;

use crate::sys::Signals;
use report::Report;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use walk::Walk;

/// How to call it.
const USAGE: &str =
    "usage: postern-agent own [--allow-hard-links] [--keep-setuid] [--on-root-mismatch] UID:GID PATH...\n";

/// Time between two lines of progress.
const PROGRESS: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The exit code after a SIGTERM or SIGINT, without the signal's number.
const SIGNALLED: u8 = 128;

/// What to change, and what not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Rules {
    uid: u32,
    gid: u32,
    /// Whether files with several hard links are changed.
    allow_hard_links: bool,
    /// Whether files keep their set-user-ID and set-group-ID bits, which the kernel clears.
    keep_setuid: bool,
    /// Whether a tree is skipped if its root has the right owner.
    on_root_mismatch: bool,
}

/// Runs `own` with these arguments.
pub fn main(arguments: &[&str]) -> ExitCode {
    let Some((rules, paths)) = parse(arguments) else {
        report::error(USAGE);
        return ExitCode::from(2);
    };
    let signals = match Signals::catch(&[libc::SIGTERM, libc::SIGINT]) {
        Ok(signals) => signals,
        Err(error) => {
            report::error(&format!("cannot catch signals: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    // A deep tree needs a descriptor for each level.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let limit = rustix::process::Rlimit { current: limit.maximum, ..limit };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let mut code = 0;
    for path in paths {
        let report = Report::new(path);
        let stop = AtomicBool::new(false);
        let started = Instant::now();
        let signal = run(&Walk::new(rules, &report, &stop), &signals, &stop);
        report.summary(rules, started.elapsed(), signal.is_some());
        if let Some(signal) = signal {
            return ExitCode::from(SIGNALLED + signal);
        }
        if report.failed() {
            code = 1;
        }
    }
    ExitCode::from(code)
}

/// Walks in threads, and reports progress meanwhile. Returns the signal that stopped it.
fn run(walk: &Walk<'_>, signals: &Signals, stop: &AtomicBool) -> Option<u8> {
    std::thread::scope(|scope| {
        let (done, running) = match rustix::pipe::pipe() {
            Ok(pipe) => pipe,
            Err(error) => {
                walk.report().problem(format!("cannot create a pipe: {error}"));
                return None;
            }
        };
        scope.spawn(move || {
            walk.run();
            drop(running);
        });
        wait(&done, signals, stop, walk.report())
    })
}

/// Waits until the other end of `done` is closed.
fn wait(done: &OwnedFd, signals: &Signals, stop: &AtomicBool, report: &Report<'_>) -> Option<u8> {
    let mut caught = None;
    loop {
        let mut interest = [PollFd::new(done, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        let ready = rustix::event::poll(&mut interest, Some(&PROGRESS));
        if !interest[0].revents().is_empty() {
            return caught;
        }
        if let Some(&signal) = signals.take().first() {
            stop.store(true, Ordering::Relaxed);
            caught = u8::try_from(signal).ok();
        } else if ready == Ok(0) {
            report.progress();
        }
    }
}

/// The rules and the paths, or `None` if the arguments are wrong.
fn parse<'a>(arguments: &'a [&'a str]) -> Option<(Rules, &'a [&'a str])> {
    let mut rules = Rules::default();
    let mut rest = arguments;
    while let [flag, more @ ..] = rest {
        match *flag {
            "--allow-hard-links" => rules.allow_hard_links = true,
            "--keep-setuid" => rules.keep_setuid = true,
            "--on-root-mismatch" => rules.on_root_mismatch = true,
            _ => break,
        }
        rest = more;
    }
    let [owner, paths @ ..] = rest else { return None };
    let (uid, gid) = owner.split_once(':')?;
    (rules.uid, rules.gid) = (id(uid)?, id(gid)?);
    let paths = paths.strip_prefix(&["--"]).unwrap_or(paths);
    (!paths.is_empty() && paths.iter().all(|path| !path.is_empty())).then_some((rules, paths))
}

/// A UID or GID. The largest number means "do not change" to chown(2), so it is none.
fn id(text: &str) -> Option<u32> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&id| is_decimal && id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_flags_an_owner_and_paths() {
        let rules = Rules { uid: 1000, gid: 2000, ..Rules::default() };
        assert_eq!(parse(&["1000:2000", "/a", "/b"]), Some((rules, &["/a", "/b"][..])));
        assert_eq!(parse(&["1000:2000", "--", "--a"]), Some((rules, &["--a"][..])));
        let all = Rules { allow_hard_links: true, keep_setuid: true, on_root_mismatch: true, ..rules };
        let flags = ["--allow-hard-links", "--keep-setuid", "--on-root-mismatch", "1000:2000", "/a"];
        assert_eq!(parse(&flags), Some((all, &["/a"][..])));
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for wrong in [
            &[][..],
            &["1000:2000"],
            &["1000", "/a"],
            &["1000:", "/a"],
            &["+1:2", "/a"],
            &["-1:2", "/a"],
            &["4294967295:2", "/a"],
            &["root:root", "/a"],
            &["--unknown", "1:2", "/a"],
            &["1:2", ""],
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
