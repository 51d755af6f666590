//! Patterns of repositories, such as `registry.example.com:5000/team` or `*.example.com`.

use crate::Image;
use std::fmt;
use std::str::FromStr;

/// The host that Docker's configuration uses for Docker Hub.
const DOCKER_HUB: &str = "index.docker.io";

/// A registry, or the repositories below a path of it. A label of the host may be `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    /// The host in lower case, with its port if it has one.
    host: String,
    /// The path without slashes at its ends; empty for all repositories.
    path: String,
}

/// A text is no pattern of repositories.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a registry or repository: {why}")]
pub struct InvalidPattern {
    /// The text.
    pub text: String,
    /// What is wrong.
    pub why: &'static str,
}

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why| InvalidPattern { text: text.to_owned(), why };
        if text.contains("://") {
            return Err(wrong("write it without a scheme, such as registry.example.com/team"));
        }
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:*[]".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_host) {
            return Err(wrong("it starts with the host of a registry"));
        }
        if !(host.contains(['.', ':', '*']) || host == "localhost") {
            return Err(wrong("the host has a dot or a port, such as docker.io/library"));
        }
        let is_path =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte);
        if !path.bytes().all(is_path) || path.starts_with('/') || path.contains("//") {
            return Err(wrong("the path has lower-case letters, digits and ._- only, and no tag"));
        }
        Ok(Self::new(host, path))
    }
}

/// As it is written in Docker's configuration.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, path } = self;
        if path.is_empty() { f.write_str(host) } else { write!(f, "{host}/{path}") }
    }
}

impl Pattern {
    fn new(host: &str, path: &str) -> Self {
        let host = host.to_lowercase();
        let host = match host.as_str() {
            "docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
            _ => host,
        };
        Self { host, path: path.trim_matches('/').to_owned() }
    }

    /// Reads a key of Docker's configuration as the kubelet does: the scheme and `/v1/` or `/v2/` mean nothing.
    pub(crate) fn of_key(key: &str) -> Self {
        let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let path = ["v1/", "v2/"].iter().find_map(|version| path.strip_prefix(version)).unwrap_or(path);
        let path = if path == "v1" || path == "v2" { "" } else { path };
        Self::new(host, path)
    }

    /// The repository of an image.
    pub(crate) fn of_image(image: &Image) -> Self {
        Self::new(image.registry(), image.repository())
    }

    /// Whether an image is in one of the repositories.
    pub fn matches(&self, image: &Image) -> bool {
        self.covers(&Self::of_image(image))
    }

    /// Whether everything that the other pattern matches is matched by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        covers_host(&self.host, &other.host) && covers_path(&self.path, &other.path)
    }

    /// What both match; `None` if nothing.
    pub fn and(&self, other: &Self) -> Option<Self> {
        let narrower = |a: &String, b: &String, covers: fn(&str, &str) -> bool| {
            if covers(a, b) {
                Some(b.clone())
            } else if covers(b, a) {
                Some(a.clone())
            } else {
                None
            }
        };
        let host = narrower(&self.host, &other.host, covers_host)?;
        let path = narrower(&self.path, &other.path, covers_path)?;
        Some(Self { host, path })
    }
}

/// What both lists match; an empty list matches everything. `None` if nothing is matched by both.
pub fn intersection(a: &[Pattern], b: &[Pattern]) -> Option<Vec<Pattern>> {
    if a.is_empty() || b.is_empty() {
        return Some([a, b].concat());
    }
    let mut both: Vec<_> = a.iter().flat_map(|one| b.iter().filter_map(|other| one.and(other))).collect();
    both.sort();
    both.dedup();
    (!both.is_empty()).then_some(both)
}

/// A `*` stands for one label, or for a part of one.
fn covers_host(pattern: &str, host: &str) -> bool {
    if pattern == host {
        return true;
    }
    let (labels, parts) = (pattern.split('.'), host.split('.'));
    labels.clone().count() == parts.clone().count()
        && labels.zip(parts).all(|(label, part)| covers_label(label, part))
}

/// In one pass: patterns come from people who are not trusted.
fn covers_label(pattern: &str, label: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == label };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut left) = label.strip_prefix(start).and_then(|left| left.strip_suffix(end)) else {
        return false;
    };
    // The first place of each part leaves the most for those after it.
    middle.split('*').all(|part| match left.find(part) {
        Some(at) => {
            left = &left[at + part.len()..];
            true
        }
        None => false,
    })
}

fn covers_path(pattern: &str, path: &str) -> bool {
    pattern.is_empty()
        || path.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_matches_whole_parts_of_a_path() {
        let matches = |text: &str, image: &str| pattern(text).matches(&image.parse().unwrap());
        for (text, image, want) in [
            ("quay.io", "quay.io/team/app:1", true),
            ("quay.io/team", "quay.io/team/app:1", true),
            ("quay.io/team/", "quay.io/team", true),
            ("quay.io/team", "quay.io/team2/app", false),
            ("quay.io:443", "quay.io/team/app", false),
            ("*.example.com", "a.example.com/x", true),
            ("*.example.com", "a.b.example.com/x", false),
            ("*.example.com", "example.com/x", false),
            ("eu-*.example.com", "eu-1.example.com/x", true),
            ("eu-*.example.com", "us-1.example.com/x", false),
            ("a*b*c.example.com", "axxbyyc.example.com/x", true),
            ("a*b*c.example.com", "axxcyyb.example.com/x", false),
            ("ab*ba.example.com", "aba.example.com/x", false),
            ("docker.io", "nginx", true),
            ("docker.io/library", "nginx:1", true),
            ("docker.io/team", "nginx", false),
            (
                "index.docker.io/team",
                "team/app@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                true,
            ),
            ("localhost:5000", "localhost:5000/a", true),
        ] {
            assert_eq!(matches(text, image), want, "{text} {image}");
        }
    }

    #[test]
    fn what_two_lists_match_is_matched_by_both() {
        let list = |texts: &[&str]| texts.iter().map(|text| pattern(text)).collect::<Vec<_>>();
        for (a, b, want) in [
            (&["a.io"][..], &["a.io/team"][..], Some(&["a.io/team"][..])),
            (&["a.io/team/x"], &["a.io/team"], Some(&["a.io/team/x"])),
            (&[], &["a.io"], Some(&["a.io"])),
            (&[], &[], Some(&[])),
            (&["*.io/x"], &["a.io", "b.io/x/y"], Some(&["a.io/x", "b.io/x/y"])),
            (&["a.io"], &["b.io"], None),
            (&["a.io/x"], &["a.io/y"], None),
        ] {
            assert_eq!(intersection(&list(a), &list(b)), want.map(list), "{a:?} {b:?}");
            assert_eq!(intersection(&list(b), &list(a)), want.map(list), "{b:?} {a:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_said_to_be_none() {
        for text in ["", "nginx", "https://a.io", "a.io/App", "a.io/app:1", "/x", "a.io//x", "a io/x"] {
            assert_eq!(text.parse::<Pattern>().unwrap_err().text, text);
        }
    }

    #[test]
    fn keys_of_dockers_configuration_are_read_as_by_the_kubelet() {
        for (key, want) in [
            ("https://index.docker.io/v1/", "index.docker.io"),
            ("http://a.io:5000/v2/team/", "a.io:5000/team"),
            ("A.io", "a.io"),
            ("a.io/v1", "a.io"),
            ("a.io/v1x", "a.io/v1x"),
        ] {
            assert_eq!(Pattern::of_key(key).to_string(), want);
        }
    }
}
