//! The head of a request, where it is of the plain kind. Every other is hyper's: one that changes the protocol, whose body is
//! long or of unknown length, that names no API of ours, or that is not as it should be.

use super::HEADERS;
use crate::proxy::forward::REPLAYABLE;
use http::{Method, Uri};

/// A head longer than this, in bytes, is hyper's.
const LONGEST: usize = 16 * 1024;

/// What a client's bytes are.
pub(super) enum Said {
    /// Not a whole head yet.
    More,
    /// Nothing for us.
    Other,
    /// A plain request.
    Plain(Plain),
}

/// A plain request.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) host: String,
    /// It is the last one of its connection.
    pub(super) close: bool,
    /// Length of the head, in bytes.
    pub(super) head: usize,
    /// Length of the body, where there is one.
    pub(super) body: Option<usize>,
    /// The headers that go on, as they are written.
    headers: Vec<u8>,
}

/// Reads what a client said.
pub(super) fn read(bytes: &[u8]) -> Said {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => plain(&request, head).map_or(Said::Other, Said::Plain),
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => Said::More,
        _ => Said::Other,
    }
}

fn plain(request: &httparse::Request<'_, '_>, head: usize) -> Option<Plain> {
    let method = Method::from_bytes(request.method?.as_bytes()).ok()?;
    let known = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    let target = request.path?;
    if request.version != Some(1) || !known.contains(&method) || !target.starts_with('/') {
        return None;
    }
    let uri: Uri = target.parse().ok()?;
    // A fragment is lost in parsing, and is no part of a target.
    if uri.path_and_query()?.as_str() != target {
        return None;
    }
    let (mut host, mut body, mut close) = (None, None, false);
    let mut headers = Vec::with_capacity(head);
    for header in request.headers.iter() {
        let name = header.name;
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            if host.replace(std::str::from_utf8(header.value).ok()?.to_owned()).is_some() {
                return None;
            }
        } else if is("content-length") {
            if body.replace(super::decimal(header.value)?).is_some() {
                return None;
            }
        } else if is("connection") {
            for option in header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    close = true;
                } else if !option.is_empty() && !option.eq_ignore_ascii_case(b"keep-alive") {
                    return None;
                }
            }
        } else if ["transfer-encoding", "upgrade", "expect", "http2-settings", "trailer", "origin"]
            .iter()
            .any(|other| is(other))
            || is("sec-fetch-site")
        {
            return None;
        } else if super::is_for_one_hop(name) || is("authorization") {
            // Not the client's to say.
        } else if !is("te") || header.value.eq_ignore_ascii_case(b"trailers") {
            super::write_header(&mut headers, name.as_bytes(), header.value);
        }
    }
    let body = body.map(usize::try_from).transpose().ok()?;
    let short = body.is_none_or(|length| length as u64 <= REPLAYABLE);
    short.then_some(Plain { method, uri, host: host?, close, head, body, headers })
}

impl Plain {
    /// Length of head and body.
    pub(super) fn length(&self) -> usize {
        self.head + self.body.unwrap_or(0)
    }

    /// Whether it may be sent again when nobody knows whether it was heard (RFC 9110 section 9.2.1).
    pub(super) fn is_safe(&self) -> bool {
        self.method.is_safe()
    }

    /// The request for an API, with our token.
    pub(super) fn write(
        &self,
        path: [&str; 2],
        authority: &str,
        authorization: &[u8],
        body: &[u8],
    ) -> Vec<u8> {
        // No reallocation: what is left behind would hold the token.
        let mut out = Vec::with_capacity(
            self.headers.len()
                + path[0].len()
                + path[1].len()
                + authority.len()
                + authorization.len()
                + body.len()
                + 128,
        );
        for part in [self.method.as_str(), " ", path[0], path[1], " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        super::write_header(&mut out, b"host", authority.as_bytes());
        super::write_header(&mut out, b"authorization", authorization);
        out.extend_from_slice(&self.headers);
        let expected = [Method::POST, Method::PUT, Method::PATCH].contains(&self.method);
        if let Some(length) = self.body.or(expected.then_some(0)) {
            super::write_header(&mut out, b"content-length", length.to_string().as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(request: &str) -> Option<String> {
        match read(request.as_bytes()) {
            Said::Plain(plain) => {
                let body = &request.as_bytes()[plain.head..];
                let rest = plain.uri.to_string();
                let out = plain.write(["/v1", &rest], "api:1", b"Bearer t", body);
                Some(String::from_utf8(out).unwrap())
            }
            Said::More | Said::Other => None,
        }
    }

    #[test]
    fn a_plain_request_goes_on_with_our_token_and_without_what_was_for_us() {
        assert_eq!(
            sent(
                "POST /x?a=%20b HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer mine\r\nX-A: 1\r\nproxy-authorization: b\r\n\
                 Keep-Alive: 1\r\nTE: gzip\r\nContent-Length: 2\r\nConnection: keep-alive, Close\r\nCookie: c\r\n\r\nab"
            )
            .unwrap(),
            "POST /v1/x?a=%20b HTTP/1.1\r\nhost: api:1\r\nauthorization: Bearer t\r\nX-A: 1\r\nCookie: c\r\n\
             content-length: 2\r\n\r\nab"
        );
        let found = sent("PUT / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\n\r\n").unwrap();
        assert!(found.ends_with("\r\nTE: trailers\r\ncontent-length: 0\r\n\r\n"), "{found}");
    }

    #[test]
    fn what_is_not_plain_is_left_to_hyper() {
        let head = "GET /x HTTP/1.1\r\nHost: h\r\n";
        assert!(sent(&format!("{head}\r\n")).is_some());
        for more in [
            "Transfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 65537\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Host: h\r\n",
            "Upgrade: websocket\r\n",
            "Expect: 100-continue\r\n",
            "Origin: http://h\r\n",
            "Sec-Fetch-Site: none\r\n",
            "Connection: X-A\r\n",
            "X: a\r\n folded\r\n",
            "X : a\r\n",
        ] {
            assert!(sent(&format!("{head}{more}\r\n")).is_none(), "{more}");
        }
        for line in [
            "CONNECT h:1 HTTP/1.1",
            "GET http://h/ HTTP/1.1",
            "OPTIONS * HTTP/1.1",
            "GET /x#y HTTP/1.1",
            "GET / HTTP/1.0",
            "FROB / HTTP/1.1",
            "PRI * HTTP/2.0",
        ] {
            assert!(sent(&format!("{line}\r\nHost: h\r\n\r\n")).is_none(), "{line}");
        }
        assert!(sent("GET / HTTP/1.1\r\n\r\n").is_none(), "without a host");
        assert!(matches!(read(b"GET / HTT"), Said::More));
        assert!(matches!(read(&[b'a'; LONGEST]), Said::Other));
    }
}
