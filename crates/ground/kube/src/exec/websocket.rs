//! Exec over a WebSocket: `v5.channel.k8s.io` (KEP-4006), or `v4` on servers before 1.30. The first byte of each
//! binary message is the channel. Only v5 can half-close stdin; closing it on v4 would close everything and lose
//! output.

use super::{ExecEvent, StreamBroke, end};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use postern_net::error::chain;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

#[derive(Debug)]
pub(super) struct Reader(futures_util::stream::SplitStream<Socket>);

#[derive(Debug)]
pub(super) struct Writer {
    sink: futures_util::stream::SplitSink<Socket, Message>,
    half_close: bool,
}

pub(super) fn open(connection: kube::client::Connection) -> (Reader, Writer) {
    let half_close = connection.supports_stream_close();
    let (sink, stream) = connection.into_stream().split();
    (Reader(stream), Writer { sink, half_close })
}

impl Reader {
    /// Returns the next event; `None` after the stream was closed.
    pub(super) async fn next(&mut self) -> Result<Option<ExecEvent>, StreamBroke> {
        loop {
            let message = match self.0.next().await {
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
}

fn event(mut message: Bytes) -> Result<Option<ExecEvent>, StreamBroke> {
    // A message of at most one byte opens or closes a channel and has no data.
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

impl Writer {
    /// Sends bytes of stdin.
    pub(super) async fn stdin(&mut self, data: &[u8]) -> Result<(), StreamBroke> {
        self.channel(STDIN, data).await
    }

    /// Ends stdin; returns whether that was possible.
    pub(super) async fn end_stdin(&mut self) -> Result<bool, StreamBroke> {
        if self.half_close {
            self.channel(CLOSE, &[STDIN]).await?;
        }
        Ok(self.half_close)
    }

    pub(super) async fn resize(&mut self, size: &[u8]) -> Result<(), StreamBroke> {
        self.channel(RESIZE, size).await
    }

    pub(super) async fn ping(&mut self) -> Result<(), StreamBroke> {
        self.sink.send(Message::Ping(Bytes::new())).await.map_err(|error| StreamBroke(chain(&error)))
    }

    pub(super) async fn close(&mut self) {
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
}
