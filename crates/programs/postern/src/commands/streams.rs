//! Our own streams, unbuffered, as a run connects them.

use postern_exec::{Output, Streams};
use rustix::fd::BorrowedFd;
use std::fs::File;
use std::io;

/// Stdin where `with_stdin` says so, stdout and stderr.
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

/// Stdout and stderr by themselves.
pub(super) fn outputs() -> io::Result<(File, File)> {
    let file = |fd: BorrowedFd<'static>| -> io::Result<File> { Ok(File::from(fd.try_clone_to_owned()?)) };
    Ok((file(rustix::stdio::stdout())?, file(rustix::stdio::stderr())?))
}
