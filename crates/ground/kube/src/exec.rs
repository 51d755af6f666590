//! Exec streams with separate readers and writers. Neither waits for the other, so bulk data in both directions at
//! once cannot deadlock, and memory is bounded by one message.
//!
//! The protocol is SPDY if every proxy on the path supports it, otherwise WebSocket.

mod spdy;
mod websocket;

use crate::connect::Cluster;
use crate::error::{KubeError, Reason, of_status};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::Body;
use postern_net::error::chain;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The time limit for the server to accept the streams.
const STREAMS: Duration = Duration::from_secs(30);

/// The only protocol to try, for servers behind a proxy that accepts a protocol and does not forward it.
const PROTOCOL: &str = "POSTERN_EXEC_PROTOCOL";

/// Whether SPDY was refused and a WebSocket was accepted: this process does not try SPDY again.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// The protocols to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocols {
    Either,
    Spdy,
    WebSocket,
}

impl Protocols {
    fn parse(chosen: &str) -> Result<Self, KubeError> {
        match chosen {
            "" | "auto" => Ok(Self::Either),
            "spdy" => Ok(Self::Spdy),
            "websocket" => Ok(Self::WebSocket),
            other => {
                let why = format!("it is {other:?}; use auto, spdy or websocket");
                Err(KubeError::new(format!("reading the variable {PROTOCOL}"), Reason::Setting(why)))
            }
        }
    }
}

/// The command, and its container.
#[derive(Debug, Clone)]
pub struct ExecRequest<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// The container; by default the pod's only one.
    pub container: Option<&'a str>,
    /// The command and its arguments, as bytes: Linux requires no encoding.
    pub command: &'a [Vec<u8>],
    /// Whether stdin is attached.
    pub stdin: bool,
    /// Whether the runtime allocates a terminal; stderr is then part of stdout.
    pub tty: bool,
}

/// How the remote command ended, as the runtime reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEnd {
    /// It exited with this code.
    Exited(i32),
    /// It never started, or the runtime lost it; the runtime's message.
    Failed(String),
}

/// An event from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecEvent {
    /// Bytes of stdout.
    Stdout(Bytes),
    /// Bytes of stderr.
    Stderr(Bytes),
    /// The end of the command. Without it an exec has not succeeded, whatever arrived before.
    End(ExecEnd),
    /// The server answered a ping.
    Alive,
}

/// The stream broke.
#[derive(Debug, thiserror::Error)]
#[error("the exec stream broke: {0}")]
pub struct StreamBroke(pub String);

type Connection = TokioIo<hyper::upgrade::Upgraded>;

/// The reading half.
#[derive(Debug)]
pub struct ExecReader {
    half: Half<spdy::Reader<Connection>, websocket::Reader>,
    unread: Option<Bytes>,
}

/// The writing half.
#[derive(Debug)]
pub struct ExecWriter(Half<spdy::Writer<Connection>, websocket::Writer>);

#[derive(Debug)]
enum Half<S, W> {
    Spdy(S),
    WebSocket(W),
}

/// Starts a command in a running container. Sends one request, and reads nothing before.
pub async fn open(
    cluster: &Cluster,
    request: &ExecRequest<'_>,
) -> Result<(ExecReader, ExecWriter), KubeError> {
    let attempt = || format!("starting a command in pod {}/{}", request.namespace, request.pod);
    let mut refused = None;
    let protocols = Protocols::parse(&std::env::var(PROTOCOL).unwrap_or_default())?;
    if protocols == Protocols::Spdy || protocols == Protocols::Either && !REFUSED.load(Ordering::Relaxed) {
        match by_spdy(cluster, request, &attempt).await? {
            Spdy::Opened(opened) => return Ok(*opened),
            Spdy::Refused(Some(refused)) if protocols == Protocols::Spdy => return Err(refused),
            Spdy::Refused(None) if protocols == Protocols::Spdy => {
                let why = format!("SPDY/3.1 was refused, and {PROTOCOL} allows nothing else");
                return Err(KubeError::new(attempt(), Reason::Answer(why)));
            }
            Spdy::Refused(why) => refused = why,
        }
    }
    let http = http::Request::get(path(request))
        .body(Vec::new())
        .map_err(|error| cluster.error(attempt(), &kube::Error::HttpError(error)))?;
    // Before 1.35 a server that does not permit POST may permit GET; otherwise the first answer names the missing
    // permission.
    let connection = cluster.client.connect(http).await;
    let connection =
        connection.map_err(|error| refused.unwrap_or_else(|| cluster.error(attempt(), &error)))?;
    REFUSED.store(protocols == Protocols::Either, Ordering::Relaxed);
    let (reader, writer) = websocket::open(connection);
    Ok((ExecReader { half: Half::WebSocket(reader), unread: None }, ExecWriter(Half::WebSocket(writer))))
}

/// The result of a request for SPDY.
enum Spdy {
    Opened(Box<(ExecReader, ExecWriter)>),
    /// The server, or a proxy before it, did not accept the protocol. The API server's own reason, if it is about the
    /// user.
    Refused(Option<KubeError>),
}

async fn by_spdy(
    cluster: &Cluster,
    request: &ExecRequest<'_>,
    attempt: &impl Fn() -> String,
) -> Result<Spdy, KubeError> {
    let http = http::Request::post(path(request))
        .header(http::header::CONNECTION, "Upgrade")
        .header(http::header::UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", "v4.channel.k8s.io")
        .body(Body::empty())
        .map_err(|error| cluster.error(attempt(), &kube::Error::HttpError(error)))?;
    let answer = cluster.client.send(http).await.map_err(|error| cluster.error(attempt(), &error))?;
    let upgraded = answer.headers().get(http::header::UPGRADE).and_then(|value| value.to_str().ok());
    if answer.status() != http::StatusCode::SWITCHING_PROTOCOLS
        || !upgraded.is_some_and(|protocol| protocol.eq_ignore_ascii_case("SPDY/3.1"))
    {
        return Ok(Spdy::Refused(reason(answer).await.map(|reason| KubeError::new(attempt(), reason))));
    }
    let broke = |why: String| KubeError::new(attempt(), Reason::Answer(why));
    let connection = hyper::upgrade::on(answer).await.map_err(|error| broke(chain(&error)))?;
    let opening = spdy::open(TokioIo::new(connection), request.stdin, request.tty);
    match tokio::time::timeout(STREAMS, opening).await {
        Ok(Ok((reader, writer))) => {
            let reader = ExecReader { half: Half::Spdy(reader), unread: None };
            Ok(Spdy::Opened(Box::new((reader, ExecWriter(Half::Spdy(writer))))))
        }
        Ok(Err(spdy::OpenError::Unknown)) => Ok(Spdy::Refused(None)),
        Ok(Err(spdy::OpenError::Broke(error))) => Err(broke(error.to_string())),
        Err(_) => Err(broke(format!("its streams were not created within {} s", STREAMS.as_secs()))),
    }
}

/// Returns the API server's own reason for a refusal: its Status, not the page of a proxy that does not support SPDY.
async fn reason(answer: http::Response<Body>) -> Option<Reason> {
    use http_body_util::{BodyExt as _, Limited};
    let code = answer.status().as_u16();
    if !matches!(code, 401 | 403 | 404) {
        return None;
    }
    let body = Limited::new(answer.into_body(), 64 * 1024).collect().await.ok()?.to_bytes();
    let status: serde_json::Value = serde_json::from_slice(&body).ok()?;
    (status["kind"] == "Status").then(|| of_status(code, status["message"].as_str().unwrap_or_default()))
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
    /// Returns the next event; `None` after the stream was closed.
    pub async fn next(&mut self) -> Result<Option<ExecEvent>, StreamBroke> {
        if let Some(bytes) = self.unread.take() {
            return Ok(Some(ExecEvent::Stdout(bytes)));
        }
        match &mut self.half {
            Half::Spdy(reader) => reader.next().await,
            Half::WebSocket(reader) => reader.next().await,
        }
    }

    /// Puts back bytes of stdout: the next call returns them first.
    pub fn unread(&mut self, bytes: Bytes) {
        self.unread = Some(bytes);
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
        match &mut self.0 {
            Half::Spdy(writer) => writer.stdin(data).await,
            Half::WebSocket(writer) => writer.stdin(data).await,
        }
    }

    /// Ends stdin. With a WebSocket on a server before 1.30 that is impossible without losing output. Returns whether
    /// it was done.
    pub async fn end_stdin(&mut self) -> Result<bool, StreamBroke> {
        match &mut self.0 {
            Half::Spdy(writer) => writer.end_stdin().await.map(|()| true),
            Half::WebSocket(writer) => writer.end_stdin().await,
        }
    }

    /// Sends the size of the terminal, in character cells.
    pub async fn resize(&mut self, columns: u16, rows: u16) -> Result<(), StreamBroke> {
        let size = format!("{{\"Width\":{columns},\"Height\":{rows}}}");
        match &mut self.0 {
            Half::Spdy(writer) => writer.resize(size.as_bytes()).await,
            Half::WebSocket(writer) => writer.resize(size.as_bytes()).await,
        }
    }

    /// Sends a ping.
    pub async fn ping(&mut self) -> Result<(), StreamBroke> {
        match &mut self.0 {
            Half::Spdy(writer) => writer.ping().await,
            Half::WebSocket(writer) => writer.ping().await,
        }
    }

    /// Closes the stream; stdin of the command ends.
    pub async fn close(&mut self) {
        match &mut self.0 {
            Half::Spdy(writer) => writer.close().await,
            Half::WebSocket(writer) => writer.close().await,
        }
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

    #[test]
    fn only_protocols_that_there_are_can_be_chosen() {
        assert_eq!(Protocols::parse("").unwrap(), Protocols::Either);
        assert_eq!(Protocols::parse("websocket").unwrap(), Protocols::WebSocket);
        let refused = Protocols::parse("http").unwrap_err().to_string();
        assert!(refused.contains("POSTERN_EXEC_PROTOCOL") && refused.contains("\"http\""), "{refused}");
    }

    #[tokio::test]
    async fn where_one_protocol_is_refused_the_other_says_why() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            for status in ["501 Not Implemented", "404 Not Found"] {
                let (mut connection, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    connection.read_buf(&mut head).await.unwrap();
                }
                asked.push(String::from_utf8(head).unwrap().to_lowercase());
                let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        let cluster = Cluster::at(&format!("http://{address}"));
        let command = [b"true".to_vec()];
        let request = ExecRequest {
            namespace: "n",
            pod: "p",
            container: None,
            command: &command,
            stdin: false,
            tty: false,
        };
        assert!(open(&cluster, &request).await.unwrap_err().is_not_found());
        let asked = server.await.unwrap();
        assert!(asked[0].starts_with("post ") && asked[0].contains("upgrade: spdy/3.1"), "{}", asked[0]);
        assert!(asked[1].starts_with("get ") && asked[1].contains("upgrade: websocket"), "{}", asked[1]);
    }
}
