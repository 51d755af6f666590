//! Addresses of servers: which are allowed, and which proxy leads to them.

use crate::error::WebError;
use hyper_util::client::proxy::matcher::Matcher;

/// An address that we speak to: `https://…`, or `http://…` on loopback; neither credentials nor a query in it.
pub(crate) fn base(address: &str) -> Result<http::Uri, WebError> {
    let refused = |why: &str| WebError::Address { address: address.to_owned(), why: why.to_owned() };
    let base: http::Uri = address.parse().map_err(|_| refused("this is no URL"))?;
    let host = base.host().ok_or_else(|| refused("a URL such as https://api.example.com is needed"))?;
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

/// Who vouches for a server. For one without TLS nobody has to: an image without certificates serves for it.
pub(crate) fn trusted(base: &http::Uri, certificates: Option<Vec<Vec<u8>>>) -> Option<Vec<Vec<u8>>> {
    certificates.or_else(|| (base.scheme_str() == Some("http")).then(Vec::new))
}

/// Whether a host of an address is this machine, by name or number.
pub fn is_loopback(host: &str) -> bool {
    let number = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || number.is_ok_and(|ip| ip.is_loopback())
}

/// The proxy for an address, as `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` have it, and never for loopback, as Go's programs
/// have it; with the user and password in it.
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
        // `proxy:3128` is an http:// proxy to who wrote it.
        Some(found) => {
            whole.filter(|proxy: &http::Uri| proxy.scheme().is_some()).or_else(|| Some(found.uri().clone()))
        }
        // What the library does not know is an error, not no proxy.
        None => whole.filter(|proxy: &http::Uri| {
            let known = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"];
            proxy.scheme_str().is_some_and(|scheme| !known.contains(&scheme))
        }),
    }
}
