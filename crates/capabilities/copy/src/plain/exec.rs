//! The shell's streams: an exec, pumped by two tasks, so that neither direction waits for the other.

use super::session::{Heard, LOOP};
use bytes::Bytes;
use postern_exec::ExecError;
use postern_exec::target::Place;
use postern_kube::Cluster;
use postern_kube::exec::{ExecEnd, ExecEvent, ExecReader, ExecWriter};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often the server is asked for a sign of life, and how long it may owe one.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(20);

/// Of what tools say on stderr.
const MOST: usize = 2_000;

/// Starts a shell in the container.
pub(super) async fn open(
    cluster: &Cluster,
    place: &Place,
) -> Result<(mpsc::Sender<Bytes>, mpsc::Receiver<Heard>), ExecError> {
    let command = ["sh", "-c", LOOP].map(|word| word.as_bytes().to_vec());
    let (reader, writer) = place.open(cluster, &command, true, false).await?;
    let (to, requests) = mpsc::channel(4);
    let (answers, from) = mpsc::channel(16);
    tokio::spawn(write(writer, requests));
    tokio::spawn(read(reader, answers));
    Ok((to, from))
}

/// Ends with the translator: the shell's stdin ends then, and with it the shell.
async fn write(mut writer: ExecWriter, mut requests: mpsc::Receiver<Bytes>) {
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    loop {
        let sent = tokio::select! {
            request = requests.recv() => match request {
                Some(bytes) => writer.stdin(&bytes).await,
                None => break,
            },
            _ = ping.tick() => writer.ping().await,
        };
        if sent.is_err() {
            return; // why, the reader hears
        }
    }
    writer.close().await;
}

async fn read(mut reader: ExecReader, answers: mpsc::Sender<Heard>) {
    let mut said = Vec::new();
    let why = loop {
        let event = tokio::select! {
            event = tokio::time::timeout(SILENCE, reader.next()) => event,
            () = answers.closed() => return,
        };
        match event {
            Ok(Ok(Some(ExecEvent::Stdout(bytes)))) => {
                if answers.send(Ok(bytes)).await.is_err() {
                    return;
                }
            }
            Ok(Ok(Some(ExecEvent::Stderr(bytes)))) if said.len() < MOST => said.extend_from_slice(&bytes),
            Ok(Ok(Some(ExecEvent::Stderr(_) | ExecEvent::Alive))) => {}
            Ok(Ok(Some(ExecEvent::End(ExecEnd::Exited(code))))) => {
                break format!("its shell ended with code {code}");
            }
            Ok(Ok(Some(ExecEvent::End(ExecEnd::Failed(why))))) => break why,
            Ok(Ok(None)) => break "the stream was closed".to_owned(),
            Ok(Err(error)) => break error.to_string(),
            Err(_) => break format!("it was silent for {} s", SILENCE.as_secs()),
        }
    };
    let said = postern_files::name::show(said.trim_ascii()).into_owned();
    let why = if said.is_empty() { why } else { format!("{why}; it said: {said}") };
    let _ = answers.send(Err(why)).await; // nobody listens any more
}
