//! Validates servers' addresses, and finds the proxy for an address.

use crate::error::WebError;
use hyper_util::client::proxy::matcher::Matcher;

/// Parses the address of a server: `https://…`, or `http://…` on loopback; without credentials and without a query.
pub(crate) fn base(address: &str) -> Result<http::Uri, WebError> {
    let refused = |why: &str| WebError::Address { address: address.to_owned(), why: why.to_owned() };
    let base: http::Uri = address.parse().map_err(|_| refused("not a URL"))?;
    let host = base.host().ok_or_else(|| refused("expected a URL such as https://api.example.com"))?;
    match base.scheme_str() {
        Some("https") => {}
        Some("http") if is_loopback(host) => {}
        _ => return Err(refused("only https:// is spoken to, and http:// on loopback")),
    }
    if base.query().is_some() || base.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refused("leave out what follows '?' and what precedes '@'"));
    }
    Ok(base)
}

/// Returns the trusted CA certificates for a server. Without TLS none are needed, so an image without certificates
/// works for it.
pub(crate) fn trusted(base: &http::Uri, certificates: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    certificates.or_else(|| (base.scheme_str() == Some("http")).then(Vec::new))
}

/// Whether the host of an address is this machine, by name or number.
pub fn is_loopback(host: &str) -> bool {
    let number = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || number.is_ok_and(|ip| ip.is_loopback())
}

/// Returns the proxy for an address, from `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`; never one for loopback, as in
/// Go's programs. It includes the user and password.
pub fn proxy(base: &http::Uri) -> Option<http::Uri> {
    base.scheme_str().filter(|scheme| *scheme == "https")?;
    if is_loopback(base.host()?) {
        return None;
    }
    let found = Matcher::from_env().intercept(base);
    let named = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let whole = named.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let whole = whole.and_then(|whole| whole.parse().ok());
    match found {
        // Users write `proxy:3128` for an http:// proxy.
        Some(found) => {
            whole.filter(|proxy: &http::Uri| proxy.scheme().is_some()).or_else(|| Some(found.uri().clone()))
        }
        // A scheme that the library does not support is an error, and does not mean no proxy.
        None => whole.filter(|proxy: &http::Uri| {
            let known = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
            proxy.scheme_str().is_some_and(|scheme| !known.contains(&scheme))
        }),
    }
}
