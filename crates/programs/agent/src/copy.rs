//! One end of a copy, for a client connected to stdin and stdout.

use crate::{sys, target_root};
use postern_files::link::{Arrived, Descriptor, Incoming as _, LinkError, Outbox};
use postern_files::{destination, name, pattern, source};
use postern_wire::copy::{CopyRequest, FromDestination, FromSource};
use postern_wire::{CLIENT_SILENCE_MS, Decoder, FIRST_SILENCE_MS, FromAgent, HEARTBEAT_MS, Hello};
use rustix::fd::OwnedFd;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(CLIENT_SILENCE_MS);

/// How long the request may take: the client first opens the other end of the copy, and a busy runtime may
/// connect our streams long after our start.
const REQUEST: Duration = Duration::from_millis(FIRST_SILENCE_MS);

const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS);

/// Serves one client. Exits 0 when the copy finished and the client was told, 1 when the client was lost.
///
/// `of` is the container whose files are copied, if they are not our own.
pub fn main(of: Option<&str>) -> ExitCode {
    sys::harden();
    match serve(of) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // the client cannot be told
    }
}

fn serve(of: Option<&str>) -> Result<(), LinkError> {
    let own = |end: rustix::io::Result<OwnedFd>| end.map_err(|error| LinkError::Lost(error.to_string()));
    enlarge(rustix::stdio::stdin());
    enlarge(rustix::stdio::stdout());
    let mut input = Descriptor::new(own(rustix::io::dup(rustix::stdio::stdin()))?);
    let out = Outbox::new(std::fs::File::from(own(rustix::io::dup(rustix::stdio::stdout()))?));
    let hello = Hello { agent_version: env!("CARGO_PKG_VERSION").to_owned() };
    out.put(|buffer| FromAgent::Hello(hello).encode(buffer))?;
    out.flush()?;
    let mut decoder = Decoder::default();
    let request = loop {
        if let Some((kind, payload)) = decoder.next_frame()? {
            break CopyRequest::decode(kind, payload)?;
        }
        match input.read(&mut decoder, Some(REQUEST)) {
            Ok(Arrived::Bytes) => {}
            Ok(Arrived::TimedOut | Arrived::Ended) => return Err(LinkError::Lost("no request".to_owned())),
            Err(error) => return Err(LinkError::Lost(error.to_string())),
        }
    };
    let root = match of.map(target_root::find).transpose() {
        Ok(root) => root.map(|root| root.into_os_string().into_vec()),
        Err(error) => {
            match request {
                CopyRequest::Send(_) => {
                    out.put(|buffer| FromSource::Fatal(error.to_string()).encode(buffer))?;
                }
                CopyRequest::Receive(_) => {
                    out.put(|buffer| FromDestination::Fatal(error.to_string()).encode(buffer))?;
                }
            }
            out.flush()?;
            wait_for_hangup(&mut input);
            return Ok(());
        }
    };
    let cwd = root.as_deref().and_then(working_directory);
    match request {
        CopyRequest::Send(mut spec) => {
            if let Some(cwd) = &cwd {
                let cwd = if spec.glob { pattern::quoted(cwd) } else { cwd.clone() };
                spec.sources.iter_mut().for_each(|source| below(&cwd, source));
            }
            spec.root = root.or(spec.root);
            out.keep_alive(|buffer| FromSource::Heartbeat.encode(buffer), HEARTBEAT);
            source::send(&spec, input, decoder, &out, Some(HANDSHAKE_TIMEOUT), || std::process::exit(1))
        }
        CopyRequest::Receive(mut spec) => {
            if let Some(cwd) = &cwd {
                below(cwd, &mut spec.target);
            }
            spec.root = root.or(spec.root);
            out.keep_alive(|buffer| FromDestination::Heartbeat.encode(buffer), HEARTBEAT);
            let received = destination::receive(&spec, &mut input, decoder, &out, Some(HANDSHAKE_TIMEOUT));
            if received.is_ok() {
                wait_for_hangup(&mut input);
            }
            received
        }
    }
}

/// The working directory of the process with this root: `/proc/PID/root` and `/proc/PID/cwd`.
fn working_directory(root: &[u8]) -> Option<Vec<u8>> {
    let cwd = Path::new(OsStr::from_bytes(root)).with_file_name("cwd");
    let cwd = std::fs::read_link(cwd).ok()?.into_os_string().into_vec();
    cwd.starts_with(b"/").then_some(cwd)
}

/// Prepends a directory to a relative path.
fn below(directory: &[u8], path: &mut Vec<u8>) {
    if !path.starts_with(b"/") {
        *path = name::join(directory, path);
    }
}

/// Enlarges a pipe, so that we wait less often for the runtime at its other end.
fn enlarge(end: impl rustix::fd::AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(end, 1024 * 1024); // not required
}

/// Waits until the client has read everything and closes the stream: runtimes drop the last output of an
/// exiting process.
fn wait_for_hangup(input: &mut Descriptor<OwnedFd>) {
    let mut heard = Decoder::default();
    while let Ok(Arrived::Bytes) = input.read(&mut heard, Some(HANDSHAKE_TIMEOUT)) {
        heard = Decoder::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_begins_where_the_container_works() {
        let at = |directory: &[u8], path: &[u8]| {
            let mut path = path.to_vec();
            below(directory, &mut path);
            path
        };
        assert_eq!(at(b"/srv", b"."), b"/srv/.");
        assert_eq!(at(b"/", b"a/b"), b"/a/b");
        assert_eq!(at(b"/srv", b"/a"), b"/a");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_works_where_its_own_directory_is() {
        let own = std::env::current_dir().unwrap().into_os_string().into_vec();
        assert_eq!(working_directory(b"/proc/self/root"), Some(own));
    }
}
