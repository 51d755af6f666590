//! Starts the command.

use crate::sys;
use postern_wire::{Failure, FailureKind, Request, TerminalSize};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, Signal};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The started command and our ends of its streams.
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    /// The controlling side of the command's terminal, if it has one.
    pub(super) terminal: Option<OwnedFd>,
}

/// Our ends of the streams and the command's.
struct Streams {
    ours: [Option<OwnedFd>; 3],
    theirs: [Stdio; 3],
    terminal: Option<OwnedFd>,
}

impl Child {
    pub(super) fn start(request: &Request, environment: &[(Vec<u8>, Vec<u8>)]) -> Result<Self, Failure> {
        let system = |error: io::Error| Failure {
            kind: FailureKind::System,
            message: format!("preparing streams: {error}"),
        };
        let mut command = Command::new(OsStr::from_bytes(&request.argv[0]));
        command.args(request.argv[1..].iter().map(|argument| OsStr::from_bytes(argument)));
        for (name, value) in environment {
            command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
        }
        if let Some(workdir) = &request.workdir {
            let workdir = Path::new(OsStr::from_bytes(workdir));
            check_workdir(workdir)?;
            command.current_dir(workdir);
        }
        let streams = match request.terminal {
            Some(size) => Streams::terminal(size),
            None => Streams::pipes(request.stdin),
        };
        let Streams { ours: [stdin, stdout, stderr], theirs, terminal } = streams.map_err(system)?;
        let [their_stdin, their_stdout, their_stderr] = theirs;
        command.stdin(their_stdin).stdout(their_stdout).stderr(their_stderr);
        sys::own_session(&mut command, terminal.is_some());
        // The std handle is dropped: we reap every child ourselves, and it holds nothing else.
        let started = command.spawn().map_err(|error| refused(&request.argv[0], &error))?;
        let pid = i32::try_from(started.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| system(io::Error::other("the process id is out of range")))?;
        Ok(Self { pid, stdin, stdout, stderr, terminal })
    }

    /// Sends a signal to the command's process group.
    pub(super) fn signal(&self, number: u8) {
        if let Some(signal) = Signal::from_named_raw(i32::from(number)) {
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }

    pub(super) fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            let _ = rustix::termios::tcsetwinsize(terminal, winsize(size));
        }
    }
}

impl Streams {
    fn pipes(with_stdin: bool) -> io::Result<Self> {
        // The standard library's pipes close on exec on every system; pipe2(2) does not exist on every
        // system.
        let pipe = || io::pipe().map(|(read, write)| (OwnedFd::from(read), OwnedFd::from(write)));
        let (our_stdin, their_stdin) = if with_stdin {
            let (read, write) = pipe()?;
            (Some(write), Stdio::from(read))
        } else {
            (None, Stdio::null())
        };
        let ((our_stdout, their_stdout), (our_stderr, their_stderr)) = (pipe()?, pipe()?);
        let ours = [our_stdin, Some(our_stdout), Some(our_stderr)];
        for end in ours.iter().flatten() {
            rustix::io::ioctl_fionbio(end, true)?;
            sys::widen(end);
        }
        Ok(Self { ours, theirs: [their_stdin, their_stdout.into(), their_stderr.into()], terminal: None })
    }

    fn terminal(size: TerminalSize) -> io::Result<Self> {
        let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)?;
        rustix::pty::grantpt(&ours)?;
        rustix::pty::unlockpt(&ours)?;
        rustix::termios::tcsetwinsize(&ours, winsize(size))?;
        let theirs = open_other_side(&ours)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let copy = || ours.as_fd().try_clone_to_owned();
        Ok(Self {
            ours: [Some(copy()?), Some(copy()?), None],
            theirs: [theirs.try_clone()?.into(), theirs.try_clone()?.into(), theirs.into()],
            terminal: Some(ours),
        })
    }
}

fn open_other_side(ours: &OwnedFd) -> io::Result<File> {
    let name = rustix::pty::ptsname(ours, Vec::new())?;
    // Rust opens with CLOEXEC; NOCTTY keeps it from becoming our controlling terminal.
    let mut options = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOCTTY);
    options.read(true).write(true).open(OsStr::from_bytes(name.as_bytes()))
}

fn winsize(TerminalSize { rows, columns }: TerminalSize) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// `chdir` fails in the child process, where it would look as if the command were missing, so it is checked
/// first.
fn check_workdir(workdir: &Path) -> Result<(), Failure> {
    let failure = |why: &dyn std::fmt::Display| Failure {
        kind: FailureKind::Workdir,
        message: format!("changing to the working directory {}: {why}", workdir.display()),
    };
    match std::fs::metadata(workdir) {
        Ok(metadata) if !metadata.is_dir() => Err(failure(&"it is not a directory")),
        Ok(_) => rustix::fs::access(workdir, rustix::fs::Access::EXEC_OK)
            .map_err(|error| failure(&io::Error::from(error))),
        Err(error) => Err(failure(&error)),
    }
}

fn refused(program: &[u8], error: &io::Error) -> Failure {
    let program = String::from_utf8_lossy(program).into_owned();
    let (kind, message) = match error.kind() {
        io::ErrorKind::NotFound if program.contains('/') => {
            (FailureKind::NotFound, format!("{program}: no such file"))
        }
        io::ErrorKind::NotFound => (FailureKind::NotFound, format!("{program}: no such program in PATH")),
        io::ErrorKind::PermissionDenied => (
            FailureKind::PermissionDenied,
            format!("{program}: permission denied (not executable by this user)"),
        ),
        _ => (FailureKind::System, format!("starting {program}: {error}")),
    };
    Failure { kind, message }
}
