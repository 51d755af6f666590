//! Exec streams, with reader and writer apart: neither waits for the other, so bulk in both directions at once cannot
//! deadlock, and memory stays bounded by one message.
//!
//! The protocol is `v5.channel.k8s.io` (KEP-4006) or `v4` on servers before 1.30: binary WebSocket messages whose first
//! byte is the channel. Only v5 can half-close stdin; on v4 closing it would close everything and lose output.

use crate::connect::Cluster;
use crate::error::{KubeError, chain, of_status};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct ExecRequest<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// The container; the pod's only one when absent.
    pub container: Option<&'a str>,
    /// The command and its arguments, as bytes: Linux knows no encoding.
    pub command: &'a [Vec<u8>],
    /// Whether stdin is attached.
    pub stdin: bool,
    /// Whether the runtime allocates a terminal; stderr then comes on stdout.
    pub tty: bool,
}

/// How the remote command ended, as the runtime reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEnd {
    /// It exited with this code.
    Exited(i32),
    /// It never started, or the runtime lost it; the runtime's words.
    Failed(String),
}

/// What comes from the far side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// Bytes of stdout.
    Stdout(Bytes),
    /// Bytes of stderr.
    Stderr(Bytes),
    /// The end of the command. Without it an exec has not succeeded, whatever came before.
    End(ExecEnd),
    /// The server answered a ping.
    Alive,
}

/// The stream broke.
#[derive(Debug, thiserror::Error)]
#[error("the exec stream broke: {0}")]
pub struct StreamBroke(pub String);

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// The reading half.
#[derive(Debug)]
pub struct ExecReader {
    stream: futures_util::stream::SplitStream<Socket>,
    unread: Option<Bytes>,
}

/// The writing half.
#[derive(Debug)]
pub struct ExecWriter {
    sink: futures_util::stream::SplitSink<Socket, Message>,
    half_close: bool,
}

/// Starts a command in a running container. One request: nothing is looked up before.
pub async fn open(
    cluster: &Cluster,
    request: &ExecRequest<'_>,
) -> Result<(ExecReader, ExecWriter), KubeError> {
    let attempt = || format!("starting a command in pod {}/{}", request.namespace, request.pod);
    let http = http::Request::get(path(request))
        .body(Vec::new())
        .map_err(|error| cluster.error(attempt(), &kube::Error::HttpError(error)))?;
    let connection = cluster.client.connect(http).await.map_err(|error| cluster.error(attempt(), &error))?;
    let half_close = connection.supports_stream_close();
    let (sink, stream) = connection.into_stream().split();
    Ok((ExecReader { stream, unread: None }, ExecWriter { sink, half_close }))
}

fn path(request: &ExecRequest<'_>) -> String {
    let ExecRequest { namespace, pod, container, command, stdin, tty } = request;
    let escape = |bytes: &[u8]| form_urlencoded::byte_serialize(bytes).collect::<String>();
    let (namespace, pod) = (escape(namespace.as_bytes()), escape(pod.as_bytes()));
    let mut path =
        format!("/api/v1/namespaces/{namespace}/pods/{pod}/exec?stdout=true&stdin={stdin}&tty={tty}");
    if !tty {
        path.push_str("&stderr=true");
    }
    if let Some(container) = container {
        path.push_str("&container=");
        path.push_str(&escape(container.as_bytes()));
    }
    for argument in *command {
        path.push_str("&command=");
        path.push_str(&escape(argument));
    }
    path
}

impl ExecReader {
    /// The next event; `None` when the stream was closed.
    pub async fn next(&mut self) -> Result<Option<ExecEvent>, StreamBroke> {
        if let Some(bytes) = self.unread.take() {
            return Ok(Some(ExecEvent::Stdout(bytes)));
        }
        loop {
            let message = match self.stream.next().await {
                None | Some(Err(tungstenite::Error::ConnectionClosed)) => return Ok(None),
                Some(Err(error)) => return Err(StreamBroke(chain(&error))),
                Some(Ok(message)) => message,
            };
            match message {
                Message::Binary(bytes) => {
                    if let Some(event) = event(bytes)? {
                        return Ok(Some(event));
                    }
                }
                Message::Close(_) => return Ok(None),
                Message::Pong(_) => return Ok(Some(ExecEvent::Alive)),
                Message::Ping(_) | Message::Text(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Gives back bytes of stdout: they come first next time.
    pub fn unread(&mut self, bytes: Bytes) {
        self.unread = Some(bytes);
    }
}

fn event(mut message: Bytes) -> Result<Option<ExecEvent>, StreamBroke> {
    // A message of one byte or none opens or closes a channel and carries nothing.
    if message.len() < 2 {
        return Ok(None);
    }
    let data = message.split_off(1);
    match message[0] {
        STDOUT => Ok(Some(ExecEvent::Stdout(data))),
        STDERR => Ok(Some(ExecEvent::Stderr(data))),
        STATUS => {
            let status: Status = serde_json::from_slice(&data)
                .map_err(|error| StreamBroke(format!("its status cannot be read: {error}")))?;
            Ok(Some(ExecEvent::End(end(&status))))
        }
        _ => Ok(None),
    }
}

fn end(status: &Status) -> ExecEnd {
    if status.status.as_deref() == Some("Success") {
        return ExecEnd::Exited(0);
    }
    let code = || {
        let causes = status.details.as_ref()?.causes.as_ref()?;
        let cause = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"))?;
        cause.message.as_ref()?.parse().ok()
    };
    match code() {
        Some(code) if status.reason.as_deref() == Some("NonZeroExitCode") => ExecEnd::Exited(code),
        _ => {
            let http = u16::try_from(status.code.unwrap_or(500)).unwrap_or(500);
            let message = status.message.clone().unwrap_or_default();
            ExecEnd::Failed(if message.is_empty() { of_status(http, "").to_string() } else { message })
        }
    }
}

impl ExecWriter {
    /// Sends bytes of stdin.
    pub async fn stdin(&mut self, data: &[u8]) -> Result<(), StreamBroke> {
        self.channel(STDIN, data).await
    }

    /// Ends stdin. On a v4 server that is impossible without losing output; returns whether it was done.
    pub async fn end_stdin(&mut self) -> Result<bool, StreamBroke> {
        if self.half_close {
            self.channel(CLOSE, &[STDIN]).await?;
        }
        Ok(self.half_close)
    }

    /// Tells the size of our terminal, in character cells.
    pub async fn resize(&mut self, columns: u16, rows: u16) -> Result<(), StreamBroke> {
        let size = format!("{{\"Width\":{columns},\"Height\":{rows}}}");
        self.channel(RESIZE, size.as_bytes()).await
    }

    /// Asks the server for a sign of life.
    pub async fn ping(&mut self) -> Result<(), StreamBroke> {
        self.sink.send(Message::Ping(Bytes::new())).await.map_err(|error| StreamBroke(chain(&error)))
    }

    /// Closes the stream; the far side's stdin ends.
    pub async fn close(&mut self) {
        let _ = self.sink.send(Message::Close(None)).await;
        let _ = self.sink.close().await;
    }

    async fn channel(&mut self, channel: u8, data: &[u8]) -> Result<(), StreamBroke> {
        let mut message = Vec::with_capacity(data.len() + 1);
        message.push(channel);
        message.extend_from_slice(data);
        let message = Message::Binary(message.into());
        self.sink.send(message).await.map_err(|error| StreamBroke(chain(&error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: &str) -> ExecEnd {
        end(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn the_exit_code_is_in_the_causes() {
        assert_eq!(status(r#"{"status":"Success"}"#), ExecEnd::Exited(0));
        let failed = r#"{"status":"Failure","reason":"NonZeroExitCode","message":"x",
            "details":{"causes":[{"reason":"ExitCode","message":"42"}]}}"#;
        assert_eq!(status(failed), ExecEnd::Exited(42));
    }

    #[test]
    fn a_failure_without_a_code_is_never_an_exit() {
        let failed = r#"{"status":"Failure","reason":"InternalError","message":"no such file","code":500}"#;
        assert_eq!(status(failed), ExecEnd::Failed("no such file".to_owned()));
        assert!(matches!(status(r#"{"status":"Failure","reason":"NonZeroExitCode"}"#), ExecEnd::Failed(_)));
        assert!(matches!(status("{}"), ExecEnd::Failed(_)));
    }

    #[test]
    fn messages_without_data_are_skipped() {
        assert_eq!(event(Bytes::new()).unwrap(), None);
        assert_eq!(event(Bytes::from_static(&[1])).unwrap(), None);
        assert_eq!(
            event(Bytes::from_static(&[1, 7])).unwrap(),
            Some(ExecEvent::Stdout(Bytes::from_static(&[7])))
        );
        assert!(event(Bytes::from_static(b"\x03not json")).is_err());
    }

    #[test]
    fn arguments_of_any_bytes_are_escaped() {
        let command = [b"a b&c".to_vec(), vec![0xff]];
        let request = ExecRequest {
            namespace: "n",
            pod: "p",
            container: Some("c"),
            command: &command,
            stdin: true,
            tty: false,
        };
        let want = "/api/v1/namespaces/n/pods/p/exec?stdout=true&stdin=true&tty=false&stderr=true&container=c\
                    &command=a+b%26c&command=%FF";
        assert_eq!(path(&request), want);
    }
}
