//! Which of our own standard streams were closed when we began.
//!
//! Rust's runtime opens /dev/null in the place of those that are, before `main`: what is written there is lost without an
//! error, and what is read is an empty file. Looking is done before that, where the C library calls constructors.

use rustix::fs::{Mode, OFlags};
use std::sync::atomic::{AtomicU8, Ordering};

/// A bit for each of 0, 1 and 2.
static CLOSED: AtomicU8 = AtomicU8::new(0);

#[cfg(target_os = "linux")]
#[used]
#[allow(unsafe_code, reason = "a constructor is one by its section")]
// SAFETY: what the section holds are pointers to functions of this type; this one needs nothing of the runtime.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

#[cfg(target_os = "linux")]
extern "C" fn look() {
    for number in 0..3 {
        // SAFETY: F_GETFD takes any number and touches no memory.
        #[allow(unsafe_code, reason = "nothing that is safe asks about a descriptor that may be closed")]
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags == -1 {
            CLOSED.fetch_or(1 << number, Ordering::Relaxed);
        }
    }
}

/// Makes reading of a standard input that was closed, and writing to a standard output that was, the errors that they are.
pub fn restore() {
    let closed = CLOSED.load(Ordering::Relaxed);
    let null = |flags| rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty());
    // A descriptor that is only for the other direction: EBADF, as of one that is closed.
    if closed & 1 != 0
        && let Ok(unreadable) = null(OFlags::WRONLY)
    {
        let _ = rustix::stdio::dup2_stdin(unreadable);
    }
    if closed & 2 != 0
        && let Ok(unwritable) = null(OFlags::RDONLY)
    {
        let _ = rustix::stdio::dup2_stdout(unwritable);
    }
}
