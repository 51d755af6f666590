//! What of a message's head is for the next hop, and what is not (RFC 9110 section 7.6.1).

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// What is never passed on, beside what `Connection` names and what has its own rule.
const FOR_ONE_HOP: [&str; 5] =
    ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "http2-settings"];

/// Removes what was meant for us only. `Trailer` stays: trailers pass.
pub(super) fn strip_hops(headers: &mut HeaderMap) {
    // The common request names nothing there.
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in FOR_ONE_HOP {
        headers.remove(name);
    }
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    // gRPC needs this one to be passed (RFC 9110 section 10.1.4).
    let trailers = headers.get(TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if !trailers {
        headers.remove(TE);
    }
}

/// What the client may not decide.
pub(super) fn strip_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    headers.remove(PROXY_AUTHORIZATION);
    // Set anew from the address that we send to.
    headers.remove(HOST);
}

/// The protocol that a client wants to change to, when it wants to.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wants = named.any(|value| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("upgrade")));
    headers.get(UPGRADE).filter(|_| wants).cloned()
}

/// Whether a page of somebody else's, in a browser of this machine, sends this request: it could use our token without
/// seeing it, and by WebSocket see the answers too. `ours` says whether a host is this proxy itself.
pub(super) fn is_of_a_foreign_page(headers: &HeaderMap, ours: impl Fn(&str) -> bool) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let foreign = matches!(site, Some("cross-site" | "same-site"));
    let origin = headers
        .get_all(ORIGIN)
        .iter()
        .any(|origin| !origin.to_str().ok().and_then(|text| text.strip_prefix("http://")).is_some_and(&ours));
    foreign || origin
}

/// What makes a message's end ambiguous, and two servers see two different requests (RFC 9112 section 6.3).
pub(super) fn ambiguous(headers: &HeaderMap) -> Option<&'static str> {
    let count = |name| headers.get_all(name).iter().count();
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        Some("it has both Content-Length and Transfer-Encoding")
    } else if count(CONTENT_LENGTH) > 1 {
        Some("it has several Content-Length")
    } else if count(HOST) > 1 {
        Some("it has several Host")
    } else if headers.get(TRAILER).is_some_and(|value| value.to_str().is_err()) {
        Some("its Trailer is not text")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_is_for_one_hop_stays_on_it() {
        let mut found = headers(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("trailer", "grpc-status"),
            ("accept", "x"),
        ]);
        strip_hops(&mut found);
        let mut left: Vec<_> = found.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "te", "trailer"]);
        let mut found = headers(&[("te", "gzip"), ("connection", "")]);
        strip_hops(&mut found);
        assert!(found.is_empty());
    }

    #[test]
    fn every_authorization_of_the_client_goes() {
        let mut found = headers(&[
            ("authorization", "Bearer a"),
            ("Authorization", "Basic b"),
            ("proxy-authorization", "x"),
            ("host", "h"),
        ]);
        strip_credentials(&mut found);
        assert!(found.is_empty());
    }

    #[test]
    fn two_ways_to_read_a_request_are_none() {
        assert!(ambiguous(&headers(&[("content-length", "1"), ("transfer-encoding", "chunked")])).is_some());
        assert!(ambiguous(&headers(&[("content-length", "1"), ("content-length", "1")])).is_some());
        assert!(ambiguous(&headers(&[("host", "a"), ("host", "b")])).is_some());
        assert!(ambiguous(&headers(&[("host", "a"), ("content-length", "1")])).is_none());
    }

    #[test]
    fn pages_of_others_are_told_from_programs() {
        let ours = |host: &str| host == "127.0.0.1:8080";
        let foreign = |pairs: &[(&str, &str)]| is_of_a_foreign_page(&headers(pairs), ours);
        assert!(!foreign(&[("accept", "*/*")]));
        assert!(!foreign(&[("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-origin")]));
        assert!(foreign(&[("origin", "https://evil.example.com")]));
        assert!(foreign(&[("origin", "null")]));
        assert!(foreign(&[("origin", "http://127.0.0.1:9090")]));
        assert!(foreign(&[("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn an_upgrade_is_asked_for_by_two_headers() {
        assert!(
            upgrade(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")])).is_some()
        );
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_none());
        assert!(upgrade(&headers(&[("connection", "upgrade")])).is_none());
    }
}
