//! The head of an API's answer.

use super::HEADERS;
use super::framing::{Chunks, Framing};
use http::StatusCode;

/// A head longer than this, in bytes, is none.
const LONGEST: usize = 64 * 1024;

/// What an API's bytes are.
#[derive(Debug)]
pub(super) enum Said {
    /// Not a whole head yet.
    More,
    /// So many bytes that say only that an answer will come.
    Interim(usize),
    /// The head of the answer.
    Head(Head),
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) framing: Framing,
    /// Whether another request may follow on the API's connection, when this answer has come to its end.
    pub(super) reusable: bool,
    /// Its length, in bytes.
    pub(super) length: usize,
    /// The same for the client, without the empty line at its end.
    pub(super) text: Vec<u8>,
}

/// Reads what an API said; `bodiless` when the request was a HEAD.
pub(super) fn read(bytes: &[u8], bodiless: bool) -> Result<Said, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let length = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => return Ok(Said::More),
        Ok(httparse::Status::Partial) => return Err("the head of its answer has no end"),
        Err(_) => return Err("its answer is not HTTP/1.1"),
    };
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or("its status is none")?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err("it changes the protocol, and nobody asked it to");
    }
    if status.is_informational() {
        return Ok(Said::Interim(length));
    }
    let newest = answer.version == Some(1);
    let (framing, close) = framing(answer.headers, status, bodiless, newest)?;
    let chunked = matches!(framing, Framing::Chunked(_) | Framing::UntilClose);
    let empty = status == StatusCode::NO_CONTENT;
    let mut text = Vec::with_capacity(length + 64);
    text.extend_from_slice(b"HTTP/1.1 ");
    text.extend_from_slice(status.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    text.extend_from_slice(b"\r\n");
    let mut lengths = 0;
    for header in answer.headers.iter() {
        let is = |other: &str| header.name.eq_ignore_ascii_case(other);
        if is("content-length") {
            lengths += 1;
            // Whatever `Connection` says of it: the client has to know where the body ends.
            if !chunked && !empty && lengths == 1 {
                super::write_header(&mut text, header.name.as_bytes(), header.value);
            }
            continue;
        }
        let stays = is("connection")
            || is("transfer-encoding")
            || is("upgrade")
            || is("te")
            || super::is_for_one_hop(header.name)
            || is_named(answer.headers, header.name);
        if !stays {
            super::write_header(&mut text, header.name.as_bytes(), header.value);
        }
    }
    if chunked {
        text.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    let reusable = newest && !close && framing != Framing::UntilClose;
    Ok(Said::Head(Head { status, framing, reusable, length, text }))
}

fn options<'a>(headers: &'a [httparse::Header<'_>]) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("connection"))
        .flat_map(|header| header.value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

/// Whether `Connection` says that a header is for one hop.
fn is_named(headers: &[httparse::Header<'_>], name: &str) -> bool {
    options(headers).any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
}

/// How the body ends, and whether the connection ends with it (RFC 9112 sections 6.3 and 9.3).
fn framing(
    headers: &[httparse::Header<'_>],
    status: StatusCode,
    bodiless: bool,
    newest: bool,
) -> Result<(Framing, bool), &'static str> {
    let close = options(headers).any(|option| option.eq_ignore_ascii_case(b"close"));
    let all =
        |name: &'static str| headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
    let mut length = None;
    for header in all("content-length") {
        let found = super::decimal(header.value).ok_or("its Content-Length is no number")?;
        if length.replace(found).is_some_and(|before| before != found) {
            return Err("it has several Content-Length");
        }
    }
    let mut encodings = all("transfer-encoding");
    let framing = match (encodings.next(), encodings.next()) {
        _ if bodiless || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => {
            Framing::Length(0)
        }
        (None, _) => length.map_or(Framing::UntilClose, Framing::Length),
        (Some(one), None) if newest && one.value.eq_ignore_ascii_case(b"chunked") => {
            Framing::Chunked(Chunks::new())
        }
        _ => return Err("its Transfer-Encoding is not known"),
    };
    // Who sends both is not sure of either.
    let close = close || (length.is_some() && matches!(framing, Framing::Chunked(_)));
    Ok((framing, close))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        match read(text.as_bytes(), false) {
            Ok(Said::Head(head)) => head,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn passed(text: &str) -> String {
        String::from_utf8(head(text).text).unwrap()
    }

    #[test]
    fn an_answer_goes_on_without_what_was_for_us() {
        assert_eq!(
            passed(
                "HTTP/1.1 200 Fine\r\nServer: x\r\nConnection: keep-alive, X-Hop\r\nx-hop: 1\r\nKeep-Alive: timeout=5\r\n\
                 Proxy-Authenticate: a\r\nSet-Cookie: b\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc"
            ),
            "HTTP/1.1 200 OK\r\nServer: x\r\nSet-Cookie: b\r\nContent-Length: 3\r\n"
        );
        let both = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(passed(both), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n");
        assert!(!head(both).reusable);
        let named = "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(passed(named), "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n");
        assert_eq!(passed("HTTP/1.0 200 OK\r\n\r\n"), "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n");
    }

    #[test]
    fn the_end_of_a_body_is_found_as_the_standard_says() {
        let found = |text: &str| {
            let head = head(&format!("HTTP/1.{text}\r\n\r\n"));
            (head.framing, head.reusable)
        };
        assert_eq!(found("1 200 \r\nContent-Length: 3"), (Framing::Length(3), true));
        assert_eq!(found("1 200\r\nContent-Length: 3\r\nconnection: Close"), (Framing::Length(3), false));
        assert_eq!(found("0 200 OK\r\nContent-Length: 3"), (Framing::Length(3), false));
        assert_eq!(found("1 200 OK"), (Framing::UntilClose, false));
        assert_eq!(found("1 304 X\r\nContent-Length: 3"), (Framing::Length(0), true));
        assert_eq!(found("1 204 X"), (Framing::Length(0), true));
        let chunked = Framing::Chunked(Chunks::new());
        assert_eq!(found("1 200 X\r\nTransfer-Encoding: Chunked"), (chunked, true));
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        let Ok(Said::Head(head)) = read(text, true) else { panic!("a HEAD") };
        assert!(head.framing.is_done() && head.text.ends_with(b"Content-Length: 3\r\n"));
    }

    #[test]
    fn what_two_readers_may_take_for_two_things_is_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            assert!(read(text.as_bytes(), false).is_err(), "{text}");
        }
        assert!(matches!(read(b"HTTP/1.1 200 OK\r\nA:", false), Ok(Said::More)));
        assert!(matches!(read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP", false), Ok(Said::Interim(25))));
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(LONGEST));
        assert!(read(endless.as_bytes(), false).is_err());
    }
}
