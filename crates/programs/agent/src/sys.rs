//! System calls that need `unsafe`, and hardening that all modes share.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Resource, Rlimit, WaitOptions, WaitStatus};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// Disables core dumps for us and our children, and tracing of us by other processes of the same user.
pub fn harden() {
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    {
        use rustix::process::DumpableBehavior;
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Makes us a subreaper, so that orphans of the command become our children.
pub(crate) fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(number: libc::c_int) {
    let byte = u8::try_from(number).unwrap_or(0);
    // SAFETY: write(2) is async-signal-safe, the pointer is to one live byte, and the descriptor is a pipe's end that
    // is never closed. errno is restored, as the interrupted code may be about to read it.
    #[allow(unsafe_code, reason = "a signal handler may use nothing but raw system calls")]
    unsafe {
        let saved = *errno();
        libc::write(SIGNAL_PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
        *errno() = saved;
    }
}

#[cfg(target_os = "linux")]
fn errno() -> *mut libc::c_int {
    // SAFETY: always valid; it is this thread's errno.
    #[allow(unsafe_code, reason = "errno has no safe accessor that can be assigned")]
    unsafe {
        libc::__errno_location()
    }
}

#[cfg(not(target_os = "linux"))]
fn errno() -> *mut libc::c_int {
    // SAFETY: always valid; it is this thread's errno.
    #[allow(unsafe_code, reason = "errno has no safe accessor that can be assigned")]
    unsafe {
        libc::__error()
    }
}

/// Enlarges a pipe, so that a stream causes fewer wake-ups: an ops pod has half a processor. Not required.
pub(crate) fn widen(pipe: impl AsFd) {
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, 256 * 1024);
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}

/// Closes a connection immediately, without leaving state in the kernel's tables.
pub(crate) fn reset(stream: std::net::TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO));
    drop(stream);
}

/// Signals as bytes on a pipe, so that the single `poll` sees them too.
#[derive(Debug)]
pub(crate) struct Signals(&'static OwnedFd);

impl Signals {
    /// Catches these signals from now on.
    pub(crate) fn catch(numbers: &[libc::c_int]) -> io::Result<Self> {
        static READ: OnceLock<OwnedFd> = OnceLock::new();
        static WRITE: OnceLock<OwnedFd> = OnceLock::new();
        let (read, write) = rustix::pipe::pipe()?;
        for end in [&read, &write] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(end, true)?;
        }
        SIGNAL_PIPE.store(std::os::fd::AsRawFd::as_raw_fd(WRITE.get_or_init(|| write)), Ordering::Relaxed);
        let signals = Self(READ.get_or_init(|| read));
        for &number in numbers {
            // SAFETY: the handler is async-signal-safe, and the structure is zeroed before its fields are set.
            #[allow(unsafe_code, reason = "there is no safe sigaction")]
            let result = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
                libc::sigaction(number, &raw const action, std::ptr::null_mut())
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(signals)
    }

    /// The signals since the last call.
    pub(crate) fn take(&self) -> Vec<libc::c_int> {
        let mut bytes = [0_u8; 64];
        let mut numbers = Vec::new();
        while let Ok(count @ 1..) = rustix::io::read(self.0, &mut bytes) {
            numbers.extend(bytes[..count].iter().map(|&byte| libc::c_int::from(byte)));
        }
        numbers
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Puts the command into a session of its own, with its stdin as controlling terminal if it is one, and makes
/// it die with us.
pub(crate) fn own_session(command: &mut Command, terminal: bool) {
    let setup = move || {
        rustix::process::setsid()?;
        if terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        #[cfg(target_os = "linux")]
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes three system calls and allocates nothing.
    #[allow(unsafe_code, reason = "there is no safe hook between fork and exec")]
    unsafe {
        command.pre_exec(setup);
    }
}

/// The result of reaping one child.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reaped {
    /// This child ended.
    Child(rustix::process::Pid, WaitStatus),
    /// There are children, but none has ended.
    None,
    /// There are no children.
    NoChildren,
}

/// Reaps one child without blocking.
pub(crate) fn reap() -> Reaped {
    match rustix::process::wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => Reaped::Child(pid, status),
        Err(rustix::io::Errno::CHILD) => Reaped::NoChildren,
        Ok(None) | Err(_) => Reaped::None,
    }
}
