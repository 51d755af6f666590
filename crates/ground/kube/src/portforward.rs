//! One port of a pod as a byte stream, with separate reader and writer.
//!
//! The protocol is `v4.channel.k8s.io` as port-forward uses it: binary WebSocket messages whose first byte is 0 for
//! data and 1 for the runtime's errors. On each channel the port number comes first, little-endian.

use crate::connect::Cluster;
use crate::error::{KubeError, Reason};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use postern_net::error::chain;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

const DATA: u8 = 0;
const ERROR: u8 = 1;

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// The stream broke, or nothing listens on the port.
#[derive(Debug, thiserror::Error)]
#[error("the port-forward to the pod broke: {0}")]
pub struct PortBroke(pub String);

/// The reading half.
#[derive(Debug)]
pub struct PortReader {
    stream: futures_util::stream::SplitStream<Socket>,
    /// The channels whose port number has arrived.
    began: [bool; 2],
}

/// The writing half.
#[derive(Debug)]
pub struct PortWriter(futures_util::stream::SplitSink<Socket, Message>);

/// Connects to a port on the pod's loopback. Only a read shows whether anything listens there.
pub async fn open(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
) -> Result<(PortReader, PortWriter), KubeError> {
    let attempt = || format!("forwarding port {port} of pod {namespace}/{pod}");
    let escape = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let (escaped, name) = (escape(namespace), escape(pod));
    let path = format!("/api/v1/namespaces/{escaped}/pods/{name}/portforward?ports={port}");
    let http = http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| cluster.error(attempt(), &kube::Error::HttpError(error)))?;
    let connection = cluster.client.connect(http).await.map_err(|error| {
        let error = cluster.error(attempt(), &error);
        match error.reason {
            // From 1.35 on the server requires both verbs, and does not report the second one.
            Reason::Forbidden(message) | Reason::Refused { code: 403, message } => {
                let message = format!(
                    "{message}: a WebSocket to it needs get and create on resource \"pods/portforward\""
                );
                KubeError::new(error.attempt, Reason::Forbidden(message))
            }
            _ => error,
        }
    })?;
    let (sink, stream) = connection.into_stream().split();
    Ok((PortReader { stream, began: [false; 2] }, PortWriter(sink)))
}

impl PortReader {
    /// Returns the next bytes; `None` after the stream was closed.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PortBroke> {
        loop {
            let message = match self.stream.next().await {
                None | Some(Err(tungstenite::Error::ConnectionClosed)) => return Ok(None),
                Some(Err(error)) => return Err(PortBroke(chain(&error))),
                Some(Ok(message)) => message,
            };
            match message {
                Message::Binary(bytes) => {
                    if let Some(data) = data(bytes, &mut self.began)? {
                        return Ok(Some(data));
                    }
                }
                Message::Close(_) => return Ok(None),
                Message::Pong(_) | Message::Ping(_) | Message::Text(_) | Message::Frame(_) => {}
            }
        }
    }
}

fn data(mut message: Bytes, began: &mut [bool; 2]) -> Result<Option<Bytes>, PortBroke> {
    if message.is_empty() {
        return Ok(None);
    }
    let mut rest = message.split_off(1);
    let channel = message[0];
    let Some(began) = began.get_mut(usize::from(channel)) else {
        return Err(PortBroke(format!("channel {channel} was not requested")));
    };
    if !*began {
        if rest.len() < 2 {
            return Err(PortBroke("the port number is missing".to_owned()));
        }
        *began = true;
        rest = rest.split_off(2);
    }
    match channel {
        _ if rest.is_empty() => Ok(None),
        DATA => Ok(Some(rest)),
        ERROR => Err(PortBroke(String::from_utf8_lossy(&rest).trim().to_owned())),
        _ => Ok(None),
    }
}

impl PortWriter {
    /// Sends bytes.
    pub async fn send(&mut self, data: &[u8]) -> Result<(), PortBroke> {
        let mut message = Vec::with_capacity(data.len() + 1);
        message.push(DATA);
        message.extend_from_slice(data);
        let message = Message::Binary(message.into());
        self.0.send(message).await.map_err(|error| PortBroke(chain(&error)))
    }

    /// Closes the stream.
    pub async fn close(&mut self) {
        let _ = self.0.send(Message::Close(None)).await;
        let _ = self.0.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_comes_first_on_each_channel() {
        let mut began = [false; 2];
        let mut take = |bytes: &'static [u8]| data(Bytes::from_static(bytes), &mut began);
        assert_eq!(take(&[0, 0x3b, 0x1d]).unwrap(), None);
        assert_eq!(take(&[1, 0x3b, 0x1d]).unwrap(), None);
        assert_eq!(take(&[0, 7, 8, 9]).unwrap().unwrap(), Bytes::from_static(&[7, 8, 9]));
        assert_eq!(take(&[0]).unwrap(), None);
        assert_eq!(take(b"\x01connection refused\n").unwrap_err().0, "connection refused");
    }

    #[test]
    fn what_no_server_sends_is_an_error() {
        assert!(data(Bytes::from_static(&[2, 1, 1]), &mut [true; 2]).is_err());
        assert!(data(Bytes::from_static(&[0, 1]), &mut [false; 2]).is_err());
        assert_eq!(data(Bytes::new(), &mut [false; 2]).unwrap(), None);
    }
}
