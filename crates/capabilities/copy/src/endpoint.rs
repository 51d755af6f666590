//! Parses the SRC and DST arguments.

use postern_exec::target::is_kind;
use postern_s3::Location;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// One SRC or DST argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A path on this machine.
    Local(Vec<u8>),
    /// Our stdin or stdout.
    Stream,
    /// A path in a pod.
    Pod(PodPath),
    /// An object, or the objects below a prefix.
    S3(Location),
}

/// A path in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPath {
    /// The namespace, if given.
    pub namespace: Option<String>,
    /// `NAME` or `KIND/NAME`; `None` if labels select the pods (`:PATH`).
    pub target: Option<String>,
    /// The path, as typed.
    pub path: Vec<u8>,
}

impl Endpoint {
    /// Parses `PATH`, `-`, `s3://BUCKET/KEY`, `[NAMESPACE/][KIND/]NAME:PATH` or, if labels select pods,
    /// `:PATH`. A word that starts with `/`, `./`, `../` or `~` is always local.
    pub fn parse(word: &OsStr) -> Result<Self, String> {
        let bytes = word.as_bytes();
        let shown = || word.to_string_lossy();
        if bytes.is_empty() {
            return Err("the path is empty".to_owned());
        }
        if bytes == b"-" {
            return Ok(Self::Stream);
        }
        if bytes.starts_with(b"s3://") {
            let word =
                std::str::from_utf8(bytes).map_err(|_| format!("{}: S3 requires names in UTF-8", shown()))?;
            return Location::parse(word).map(Self::S3);
        }
        let local = [&b"/"[..], b"./", b"../", b"~"].iter().any(|start| bytes.starts_with(start));
        let Some(colon) = bytes.iter().position(|&byte| byte == b':').filter(|_| !local) else {
            return Ok(Self::Local(bytes.to_vec()));
        };
        let (place, path) = (&bytes[..colon], &bytes[colon + 1..]);
        let named = place
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-./".contains(byte));
        let Some(place) = std::str::from_utf8(place).ok().filter(|_| named) else {
            return Ok(Self::Local(bytes.to_vec()));
        };
        // As in scp: an empty path after the colon is the container's working directory.
        let path = if path.is_empty() { b"." } else { path };
        let path = path.to_vec();
        let parts: Vec<&str> = place.split('/').collect();
        if place.is_empty() {
            return Ok(Self::Pod(PodPath { namespace: None, target: None, path }));
        }
        if parts.iter().any(|part| part.is_empty()) {
            return Err(format!(
                "{} names no pod: use [NAMESPACE/]POD:PATH or [NAMESPACE/]deploy/NAME:PATH",
                shown()
            ));
        }
        let (namespace, target) = match parts.as_slice() {
            [name] => (None, (*name).to_owned()),
            [kind, name] if is_kind(kind) => (None, format!("{kind}/{name}")),
            [namespace, name] => (Some((*namespace).to_owned()), (*name).to_owned()),
            [namespace, kind, name] if is_kind(kind) => {
                (Some((*namespace).to_owned()), format!("{kind}/{name}"))
            }
            _ => {
                return Err(format!(
                    "{} names no pod: use [NAMESPACE/]POD:PATH or [NAMESPACE/]deploy/NAME:PATH",
                    shown()
                ));
            }
        };
        Ok(Self::Pod(PodPath { namespace, target: Some(target), path }))
    }
}

/// Replaces `{pod}` in a local path with a pod's name.
pub fn of_pod(path: &[u8], pod: &str) -> Vec<u8> {
    const MARK: &[u8] = b"{pod}";
    let mut named = Vec::with_capacity(path.len() + pod.len());
    let mut rest = path;
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        named.extend_from_slice(&rest[..at]);
        named.extend_from_slice(pod.as_bytes());
        rest = &rest[at + MARK.len()..];
    }
    named.extend_from_slice(rest);
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: Option<&str>, target: Option<&str>, path: &str) -> Endpoint {
        Endpoint::Pod(PodPath {
            namespace: namespace.map(str::to_owned),
            target: target.map(str::to_owned),
            path: path.as_bytes().to_vec(),
        })
    }

    #[test]
    fn endpoints_are_parsed_as_kubectl_users_expect() {
        let parse = |word: &str| Endpoint::parse(OsStr::new(word)).unwrap();
        assert_eq!(parse("web-0:/tmp/x"), pod(None, Some("web-0"), "/tmp/x"));
        assert_eq!(parse("prod/web-0:data"), pod(Some("prod"), Some("web-0"), "data"));
        assert_eq!(parse("deploy/web:/x:y"), pod(None, Some("deploy/web"), "/x:y"));
        // A kind, even if a namespace could have that name.
        assert_eq!(parse("svc/web:/x"), pod(None, Some("svc/web"), "/x"));
        assert_eq!(parse("prod/sts/db:/"), pod(Some("prod"), Some("sts/db"), "/"));
        assert_eq!(parse(":/tmp"), pod(None, None, "/tmp"));
        assert_eq!(parse("web:"), pod(None, Some("web"), "."));
        for local in ["a", "./a:b", "/a:b", "../a:b", "~/a:b", "A B:c", "dir/", "a b"] {
            assert_eq!(parse(local), Endpoint::Local(local.as_bytes().to_vec()));
        }
        assert_eq!(parse("-"), Endpoint::Stream);
        let object = Location { bucket: "b".to_owned(), key: "a:b/*".to_owned() };
        assert_eq!(parse("s3://b/a:b/*"), Endpoint::S3(object));
        for wrong in ["", "s3://", "/:x/".trim_start_matches('/'), "a//b:x", "a/b/c/d:x", "a/b/c:x"] {
            assert!(Endpoint::parse(OsStr::new(wrong)).is_err() || wrong == ":x/", "{wrong}");
        }
    }

    #[test]
    fn the_pod_placeholder_is_replaced() {
        assert_eq!(of_pod(b"logs/{pod}.log", "web-0"), b"logs/web-0.log");
        assert_eq!(of_pod(b"{pod}/{pod}{", "a"), b"a/a{");
    }
}
