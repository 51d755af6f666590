//! Detects which of our standard streams were closed at startup.
//!
//! Rust's runtime replaces closed ones with /dev/null before `main`: output would be lost without an error,
//! and input would be empty. The check runs before that, in a constructor that the C library calls.

use rustix::fs::{Mode, OFlags};
use std::sync::atomic::{AtomicU8, Ordering};

/// One bit for each of the descriptors 0, 1 and 2.
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

/// Makes reading from a closed stdin and writing to a closed stdout fail again.
pub fn restore() {
    let closed = CLOSED.load(Ordering::Relaxed);
    let null = |flags| rustix::fs::open("/dev/null", flags | OFlags::CLOEXEC, Mode::empty());
    // A descriptor opened for the other direction only: EBADF, as for a closed one.
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
