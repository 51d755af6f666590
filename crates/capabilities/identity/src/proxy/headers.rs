//! Hop-by-hop headers (RFC 9110 section 7.6.1), and other checks of a message's headers.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Headers that are never forwarded, in addition to those that `Connection` names and those with a separate rule.
const FOR_ONE_HOP: [&str; 5] =
    ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "http2-settings"];

/// Removes hop-by-hop headers. `Trailer` stays, because trailers are forwarded.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most requests name nothing there.
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
    // gRPC needs this one to be forwarded (RFC 9110 section 10.1.4).
    let trailers = headers.get(TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if !trailers {
        headers.remove(TE);
    }
}

/// Removes the headers that the client must not set.
pub(super) fn strip_credentials(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    headers.remove(PROXY_AUTHORIZATION);
    // Set again from the API's address.
    headers.remove(HOST);
}

/// Returns the protocol that a client wants to upgrade to, if any.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut named = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wants = named.any(|value| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("upgrade")));
    headers.get(UPGRADE).filter(|_| wants).cloned()
}

/// Whether a page of another site in a browser on this machine sends this request. Such a page could use our token
/// without seeing it, and with WebSocket it could read the answers too. `ours` returns whether a host is this proxy
/// itself.
pub(super) fn is_cross_site(headers: &HeaderMap, ours: impl Fn(&str) -> bool) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let foreign = matches!(site, Some("cross-site" | "same-site"));
    let origin = headers
        .get_all(ORIGIN)
        .iter()
        .any(|origin| !origin.to_str().ok().and_then(|text| text.strip_prefix("http://")).is_some_and(&ours));
    foreign || origin
}

/// Returns what makes a message's end ambiguous: two servers could parse two different requests (RFC 9112 section
/// 6.3).
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
        strip_hop_by_hop(&mut found);
        let mut left: Vec<_> = found.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "te", "trailer"]);
        let mut found = headers(&[("te", "gzip"), ("connection", "")]);
        strip_hop_by_hop(&mut found);
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
        let foreign = |pairs: &[(&str, &str)]| is_cross_site(&headers(pairs), ours);
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
