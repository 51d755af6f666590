//! The process's own stdin, stdout and stderr, unbuffered.

use postern_exec::{Output, Streams};
use rustix::fd::BorrowedFd;
use std::fs::File;
use std::io;

/// Stdout and stderr, and stdin if `with_stdin` is set.
pub(super) fn own(with_stdin: bool) -> io::Result<Streams> {
    let file = |fd: BorrowedFd<'static>| -> io::Result<File> { Ok(File::from(fd.try_clone_to_owned()?)) };
    let stdin: Option<Box<dyn io::Read + Send>> =
        if with_stdin { Some(Box::new(file(rustix::stdio::stdin())?)) } else { None };
    Ok(Streams {
        stdin,
        stdout: Output::to(file(rustix::stdio::stdout())?),
        stderr: Output::to(file(rustix::stdio::stderr())?),
    })
}

/// Only stdout and stderr.
pub(super) fn outputs() -> io::Result<(File, File)> {
    let file = |fd: BorrowedFd<'static>| -> io::Result<File> { Ok(File::from(fd.try_clone_to_owned()?)) };
    Ok((file(rustix::stdio::stdout())?, file(rustix::stdio::stderr())?))
}
