//! As much of HTTP/1.1 as the stand-in needs, a request a connection.

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

/// A request.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) authorization: String,
    pub(crate) body: Vec<u8>,
}

/// An answer of JSON.
pub(crate) struct Response {
    pub(crate) status: u16,
    body: String,
}

impl Response {
    pub(crate) fn new(status: u16, body: &Value) -> Self {
        Self { status, body: if body.is_null() { String::new() } else { body.to_string() } }
    }
}

/// Reads one request, and writes its answer.
pub(crate) fn answer(client: &TcpStream, judge: impl FnOnce(&Request) -> Response) {
    let Some(request) = read(client) else { return };
    let Response { status, body } = judge(&request);
    let mut client = client;
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n");
    let _ = write!(client, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
}

/// Reads one request.
pub(crate) fn read(client: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(client);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => value.trim().clone_into(&mut authorization),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path: path.to_owned(), query: query.to_owned(), authorization, body })
}

impl Request {
    pub(crate) fn has_bearer(&self) -> bool {
        self.authorization.strip_prefix("Bearer ").is_some_and(|token| token.split('.').count() == 3)
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(known, _)| *known == name)
            .map(|(_, v)| v)
    }

    pub(crate) fn form(&self) -> Vec<(String, String)> {
        let body = String::from_utf8_lossy(&self.body).into_owned();
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
    }
}

/// application/x-www-form-urlencoded, decoded.
fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte.unwrap_or(b'0')).to_digit(16).unwrap_or(0);
                u8::try_from(digit(bytes.next()) * 16 + digit(bytes.next())).unwrap_or(0)
            }
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Posts a form, or what else is read as one; the answer, whatever its status.
pub(crate) fn post(endpoint: &str, path: &str, form: &str) -> Result<Value, String> {
    let text = |error: std::io::Error| format!("{endpoint}: {error}");
    let host = endpoint.trim_start_matches("http://");
    let mut server = TcpStream::connect(host).map_err(text)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    );
    write!(server, "{head}Connection: close\r\nContent-Length: {}\r\n\r\n{form}", form.len())
        .map_err(text)?;
    let mut answer = String::new();
    server.read_to_string(&mut answer).map_err(text)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(|error| error.to_string())
}
