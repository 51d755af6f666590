//! How `run` reaches the ops pod's agent.

use super::Context;
use crate::cli::run::Transport;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_exec::exit;
use postern_exec::stream::{Connection, Key, StreamError};
use postern_kube::Cluster;
use postern_ops::OpsPod;
use postern_ops::install::Reporter as _;
use postern_ops::stream::{self, OpenError};
use std::path::PathBuf;

/// The transport from the flag, else from the config.
pub(super) fn chosen(context: &Context, flag: Option<Transport>) -> Transport {
    flag.unwrap_or(match context.config.transport.as_deref() {
        Some("stream") => Transport::Stream,
        Some("auto") => Transport::Auto,
        _ => Transport::Exec,
    })
}

/// A stream to the agent, or `None` if exec is used instead.
pub(super) async fn stream(
    context: &Context,
    cluster: &Cluster,
    pod: &OpsPod,
    transport: Transport,
    key: Option<PathBuf>,
    printer: &mut Printer,
) -> Result<Option<Connection>, Failure> {
    if transport == Transport::Exec {
        return match key {
            Some(_) => Err(Failure::usage("--stream-key is for --transport stream or auto", None)),
            None => {
                printer.verbose("by exec");
                Ok(None)
            }
        };
    }
    let own = match key.or_else(|| context.config.stream_key.clone()) {
        Some(path) => Some(read(&path)?),
        None => None,
    };
    match stream::connect(cluster, pod, own.as_ref(), transport == Transport::Stream).await {
        Ok(connection) => {
            printer.verbose("by stream");
            Ok(Some(connection))
        }
        Err(error) if transport == Transport::Auto && error.is_unavailable() => {
            printer.verbose(&format!("by exec: {error}"));
            Ok(None)
        }
        // Never silently: whoever installed it wants to know that it does not work.
        Err(error @ (OpenError::Stream(_) | OpenError::Damaged(..))) if transport == Transport::Auto => {
            printer.warn(&format!("the stream to the ops pod does not open ({error}): going on by exec"));
            Ok(None)
        }
        Err(error) => Err(not_reached(error)),
    }
}

pub(super) fn read(path: &std::path::Path) -> Result<Key, Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = path.display().to_string();
    let mode = std::fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & 0o077 != 0 {
        let why = format!("the stream key {shown} is open to others (mode {:04o})", mode & 0o7777);
        return Err(Failure::usage(
            why,
            Some(format!("a private key is for its owner alone: chmod 600 {shown}")),
        ));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("reading the stream key {shown}: {error}"), None))?;
    Key::from_pem(&text, &shown).map_err(|error| Failure::usage(error.to_string(), None))
}

fn not_reached(error: OpenError) -> Failure {
    let hint = match &error {
        OpenError::Stream(StreamError::Refused) => Some(
            "the key in the pod and ours differ: `postern ops install --stream` makes both anew, `postern ops \
             authorize` adds one's own"
                .to_owned(),
        ),
        OpenError::Stream(StreamError::Broke(_) | StreamError::Silent | StreamError::NotAnAgent) => Some(
            "see `postern ops logs` for what the agent says; `postern ops install --stream --force` starts it anew"
                .to_owned(),
        ),
        OpenError::Kube(error) if error.is_forbidden() => {
            Some("`postern ops rbac` prints the Role postern-streamer, which holds it".to_owned())
        }
        _ => None,
    };
    let failure = Failure::from(error);
    let refusal = if hint.is_some() { None } else { failure.refusal };
    let hint = hint.or(failure.hint);
    Failure { code: exit::NEVER_REACHED, kind: "never-reached", hint, refusal, ..failure }
}
