//! One end of a copy, for a client at the other end of stdin and stdout.

use crate::{sys, target_root};
use postern_files::link::{Arrived, Descriptor, Incoming as _, LinkError, Outbox};
use postern_files::{destination, source};
use postern_wire::copy::{Ask, FromDestination, FromSource};
use postern_wire::{CLIENT_SILENCE_MS, Decoder, FIRST_SILENCE_MS, FromAgent, HEARTBEAT_MS, Hello};
use rustix::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(CLIENT_SILENCE_MS);

/// How long the request may take: the client reaches the other end of the copy first, and a busy runtime connects our streams
/// long after our start.
const REQUEST: Duration = Duration::from_millis(FIRST_SILENCE_MS);

const HEARTBEAT: Duration = Duration::from_millis(HEARTBEAT_MS);

/// Serves one client. Exits 0 when the copy came to an end that it was told, 1 when the client was lost.
///
/// `of` is the container whose files are meant, where they are not our own.
pub fn main(of: Option<&str>) -> ExitCode {
    sys::harden();
    match serve(of) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // there is nobody to tell
    }
}

fn serve(of: Option<&str>) -> Result<(), LinkError> {
    let own = |end: rustix::io::Result<OwnedFd>| end.map_err(|error| LinkError::Lost(error.to_string()));
    roomy(rustix::stdio::stdin());
    roomy(rustix::stdio::stdout());
    let mut input = Descriptor::new(own(rustix::io::dup(rustix::stdio::stdin()))?);
    let out = Outbox::new(std::fs::File::from(own(rustix::io::dup(rustix::stdio::stdout()))?));
    let hello = Hello { agent_version: env!("CARGO_PKG_VERSION").to_owned() };
    out.put(|buffer| FromAgent::Hello(hello).encode(buffer))?;
    out.flush()?;
    let mut decoder = Decoder::default();
    let ask = loop {
        if let Some((kind, payload)) = decoder.next_frame()? {
            break Ask::decode(kind, payload)?;
        }
        match input.read(&mut decoder, Some(REQUEST)) {
            Ok(Arrived::Bytes) => {}
            Ok(Arrived::Quiet | Arrived::Ended) => return Err(LinkError::Lost("no request".to_owned())),
            Err(error) => return Err(LinkError::Lost(error.to_string())),
        }
    };
    let root = match of.map(target_root::find).transpose() {
        Ok(root) => root.map(|root| root.into_os_string().into_vec()),
        Err(error) => {
            match ask {
                Ask::Send(_) => out.put(|buffer| FromSource::Fatal(error.to_string()).encode(buffer))?,
                Ask::Receive(_) => {
                    out.put(|buffer| FromDestination::Fatal(error.to_string()).encode(buffer))?;
                }
            }
            out.flush()?;
            linger(&mut input);
            return Ok(());
        }
    };
    match ask {
        Ask::Send(mut spec) => {
            spec.root = root.or(spec.root);
            out.keep_alive(|buffer| FromSource::Heartbeat.encode(buffer), HEARTBEAT);
            source::send(&spec, input, decoder, &out, Some(PATIENCE), || std::process::exit(1))
        }
        Ask::Receive(mut spec) => {
            spec.root = root.or(spec.root);
            out.keep_alive(|buffer| FromDestination::Heartbeat.encode(buffer), HEARTBEAT);
            let received = destination::receive(&spec, &mut input, decoder, &out, Some(PATIENCE));
            if received.is_ok() {
                linger(&mut input);
            }
            received
        }
    }
}

/// Makes room in a pipe, so that the runtime at its other end is waited for less often.
fn roomy(end: impl rustix::fd::AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(end, 1024 * 1024); // it works as it is
}

/// Stays until the client has read everything and goes: runtimes drop the tail of what an exiting process wrote.
fn linger(input: &mut Descriptor<OwnedFd>) {
    let mut heard = Decoder::default();
    while let Ok(Arrived::Bytes) = input.read(&mut heard, Some(PATIENCE)) {
        heard = Decoder::default();
    }
}
