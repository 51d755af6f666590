//! Docker's configuration, as pull Secrets hold it.

use crate::{Image, Pattern};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::fmt;

/// How a pull Secret holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// `kubernetes.io/dockerconfigjson`: an object with `auths`.
    DockerConfigJson,
    /// `kubernetes.io/dockercfg`: the value of `auths` alone.
    DockerCfg,
}

impl Format {
    /// The format of a Secret's type; `None` if it is no pull Secret.
    pub fn of_type(secret_type: &str) -> Option<Self> {
        [Self::DockerConfigJson, Self::DockerCfg]
            .into_iter()
            .find(|format| format.secret_type() == secret_type)
    }

    /// The type of the Secret.
    pub fn secret_type(self) -> &'static str {
        match self {
            Self::DockerConfigJson => "kubernetes.io/dockerconfigjson",
            Self::DockerCfg => "kubernetes.io/dockercfg",
        }
    }

    /// The key of the Secret's data.
    pub fn key(self) -> &'static str {
        match self {
            Self::DockerConfigJson => ".dockerconfigjson",
            Self::DockerCfg => ".dockercfg",
        }
    }
}

/// Why a pull Secret's data is unusable. No variant shows any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDockerConfig {
    /// It cannot be parsed.
    #[error("it is not valid JSON (line {line}, column {column})")]
    NotJson {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// Something has another type.
    #[error("{0} is not an object")]
    NotAnObject(String),
}

/// Credentials for registries. `Debug` shows the registries only.
#[derive(Clone, PartialEq, Eq)]
pub struct DockerConfig {
    format: Format,
    /// By the registry or repository, as it is written.
    auths: Map<String, Value>,
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { format, auths } = self;
        f.debug_struct("DockerConfig").field("format", format).field("keys", &auths.keys()).finish()
    }
}

impl DockerConfig {
    /// Parses the data of a pull Secret.
    pub fn parse(format: Format, data: &[u8]) -> Result<Self, InvalidDockerConfig> {
        // As a value first: errors about types would quote the credential.
        let value: Value = serde_json::from_slice(data)
            .map_err(|error| InvalidDockerConfig::NotJson { line: error.line(), column: error.column() })?;
        let no_object = |what: &str| InvalidDockerConfig::NotAnObject(what.to_owned());
        let Value::Object(mut all) = value else { return Err(no_object("it")) };
        let auths = match format {
            Format::DockerCfg => all,
            Format::DockerConfigJson => match all.remove("auths") {
                Some(Value::Object(auths)) => auths,
                None => Map::new(),
                Some(_) => return Err(no_object("auths")),
            },
        };
        match auths.iter().find(|(_, auth)| !auth.is_object()) {
            Some((key, _)) => Err(no_object(&format!("the entry {key:?}"))),
            None => Ok(Self { format, auths }),
        }
    }

    /// The data of a pull Secret. Fields other than the credentials are left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let auths = Value::Object(self.auths.clone());
        let value = match self.format {
            Format::DockerCfg => auths,
            Format::DockerConfigJson => Value::Object(Map::from_iter([("auths".to_owned(), auths)])),
        };
        value.to_string().into_bytes()
    }

    /// Only the credentials for these repositories; all for an empty list. A credential for more than a pattern gets the
    /// pattern as its key, so that the kubelet uses it for nothing else.
    #[must_use]
    pub fn narrowed(&self, patterns: &[Pattern]) -> Self {
        if patterns.is_empty() {
            return self.clone();
        }
        let mut auths = Map::new();
        let mut entries: Vec<_> =
            self.auths.iter().map(|(key, auth)| (Pattern::of_key(key), key, auth)).collect();
        // The kubelet prefers the longest key, so it is the one that a narrower pattern gets.
        entries.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        for (whole, key, auth) in entries {
            for both in patterns.iter().filter_map(|pattern| pattern.and(&whole)) {
                let key = if both == whole { key.clone() } else { both.to_string() };
                auths.entry(key).or_insert_with(|| auth.clone());
            }
        }
        Self { format: self.format, auths }
    }

    /// Whether there is no credential.
    pub fn is_empty(&self) -> bool {
        self.auths.is_empty()
    }

    /// The registries and repositories, as they are written.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.auths.keys().map(String::as_str)
    }

    /// The keys of the credentials for an image, in the order in which the kubelet tries them.
    pub fn keys_for(&self, image: &Image) -> Vec<&str> {
        let image = Pattern::of_image(image);
        let mut keys: Vec<_> =
            self.auths.keys().map(String::as_str).filter(|key| Pattern::of_key(key).covers(&image)).collect();
        // The longest path comes first.
        keys.sort_by(|a, b| b.cmp(a));
        keys
    }

    /// The credential of a key: user name and password.
    pub fn login(&self, key: &str) -> Option<(String, String)> {
        let auth = self.auths.get(key)?;
        if let (Some(user), Some(password)) = (auth["username"].as_str(), auth["password"].as_str()) {
            return Some((user.to_owned(), password.to_owned()));
        }
        let decoded = String::from_utf8(STANDARD.decode(auth["auth"].as_str()?).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some((user.to_owned(), password.trim_matches('\0').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(auths: &Value) -> DockerConfig {
        let text = json!({"auths": auths, "credsStore": "desktop"}).to_string();
        DockerConfig::parse(Format::DockerConfigJson, text.as_bytes()).unwrap()
    }

    #[test]
    fn only_what_a_target_may_use_is_left() {
        let all = config(&json!({
            "https://index.docker.io/v1/": {"auth": "a"}, "quay.io": {"auth": "b"}, "quay.io/team/app": {"auth": "c"},
            "*.example.com": {"auth": "d"},
        }));
        let narrowed = |patterns: &[&str]| {
            let patterns: Vec<Pattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
            all.narrowed(&patterns).auths
        };
        let keys = |patterns: &[&str]| narrowed(patterns).keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&["docker.io"]), ["https://index.docker.io/v1/"]);
        assert_eq!(keys(&["docker.io/team"]), ["index.docker.io/team"]);
        assert_eq!(keys(&["quay.io/team"]), ["quay.io/team", "quay.io/team/app"]);
        assert_eq!(keys(&["a.example.com/x"]), ["a.example.com/x"]);
        assert_eq!(keys(&["ghcr.io"]), [""; 0]);
        assert_eq!(narrowed(&["quay.io/team/app"])["quay.io/team/app"]["auth"], "c");
        assert_eq!(narrowed(&[]).len(), 4);
    }

    #[test]
    fn a_copy_keeps_its_format_and_no_other_field() {
        let text = config(&json!({"a.io": {"auth": "x"}})).to_bytes();
        assert_eq!(String::from_utf8(text).unwrap(), r#"{"auths":{"a.io":{"auth":"x"}}}"#);
        let legacy = DockerConfig::parse(Format::DockerCfg, br#"{"a.io": {"auth": "x"}}"#).unwrap();
        assert_eq!(String::from_utf8(legacy.to_bytes()).unwrap(), r#"{"a.io":{"auth":"x"}}"#);
        for format in [Format::DockerConfigJson, Format::DockerCfg] {
            assert_eq!(Format::of_type(format.secret_type()), Some(format));
        }
        assert_eq!(Format::of_type("Opaque"), None);
    }

    #[test]
    fn no_error_shows_a_credential() {
        for text in
            ["{\"auths\": \"hunter2\"}", "{\"auths\": {\"a.io\": \"hunter2\"}}", "\"hunter2\"", "{hunter2"]
        {
            let error = DockerConfig::parse(Format::DockerConfigJson, text.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
        assert!(!format!("{:?}", config(&json!({"a.io": {"auth": "hunter2"}}))).contains("hunter2"));
    }

    #[test]
    fn the_kubelets_credential_for_an_image_is_found() {
        let all = config(&json!({
            "a.io": {"auth": STANDARD.encode("u:p:q")}, "a.io/team": {"username": "v", "password": "w"}, "b.io": {},
        }));
        assert_eq!(all.keys_for(&"a.io/team/app:1".parse().unwrap()), ["a.io/team", "a.io"]);
        assert_eq!(all.keys_for(&"c.io/team/app:1".parse().unwrap()), [""; 0]);
        assert_eq!(all.login("a.io"), Some(("u".to_owned(), "p:q".to_owned())));
        assert_eq!(all.login("a.io/team"), Some(("v".to_owned(), "w".to_owned())));
        assert_eq!(all.login("b.io"), None);
    }
}
