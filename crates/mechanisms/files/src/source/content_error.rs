//! Reading a file's content, and why it ends early.

use crate::link::LinkError;
use crate::policy::CHANGED;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// Why the content of a file ends early, for users.
pub(super) struct Fault(pub(super) String);

pub(super) enum ContentError {
    Link(LinkError),
    File(Fault),
}

impl From<LinkError> for ContentError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<std::io::Error> for ContentError {
    fn from(error: std::io::Error) -> Self {
        Self::File(Fault(format!("reading it: {error}")))
    }
}

impl From<Errno> for ContentError {
    fn from(error: Errno) -> Self {
        std::io::Error::from(error).into()
    }
}

pub(super) fn fault(why: &str) -> ContentError {
    ContentError::File(Fault(why.to_owned()))
}

/// Reads at an offset; a file that ends there has changed.
pub(super) fn read(file: &File, buffer: &mut [u8], at: u64) -> Result<usize, ContentError> {
    loop {
        match file.read_at(buffer, at) {
            Ok(0) => return Err(fault(CHANGED)), // shorter than it was
            Ok(got) => return Ok(got),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
