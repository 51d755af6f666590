//! What an administrator chooses.

use std::fmt;
use std::str::FromStr;

/// The usual namespace.
pub const NAMESPACE: &str = "postern-system";

/// A part of the controller, with permissions of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Copies of pull Secrets, `ServiceAccounts` that name them, and Pods at admission.
    PullSecrets,
    /// Pods that cannot pull are recreated, for objects with `restartStuck`.
    RestartStuck,
    /// Init containers that give volumes to the workload's user.
    Volumes,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::PullSecrets, Self::RestartStuck, Self::Volumes];
    /// Those that are on unless somebody chooses.
    pub const USUAL: [Self; 2] = [Self::PullSecrets, Self::Volumes];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::PullSecrets => "pull-secrets",
            Self::RestartStuck => "restart-stuck",
            Self::Volumes => "volumes",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A setting cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSetting {
    /// No such part.
    #[error("there is no part {0:?}; there are: pull-secrets, restart-stuck, volumes")]
    Part(String),
    /// A part needs another one.
    #[error("the part restart-stuck needs the part pull-secrets")]
    RestartStuckAlone,
    /// There is nothing to do.
    #[error("no part is switched on")]
    NoPart,
    /// No collector is reached by it.
    #[error("trace endpoint {0:?} is not an http:// URL, such as http://collector.observability:4318")]
    TraceEndpoint(String),
    /// The API server refuses such a name.
    #[error(
        "{field} {value:?} is not a name that Kubernetes accepts: up to 63 of a-z, 0-9 and -, with a letter or digit at both ends"
    )]
    Name {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

impl FromStr for Part {
    type Err = InvalidSetting;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|part| part.name() == text);
        found.ok_or_else(|| InvalidSetting::Part(text.to_owned()))
    }
}

/// What an administrator chooses. Texts may also be placeholders of a template, so that they are checked apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The namespace.
    pub namespace: String,
    /// The controller's image.
    pub image: String,
    /// The agent's image, for init containers.
    pub agent_image: String,
    /// How many replicas.
    pub replicas: u16,
    /// The parts that are on.
    pub parts: Vec<Part>,
    /// A Secret with a certificate that somebody else renews.
    pub certificate_secret: Option<String>,
    /// A Secret in the namespace to pull the controller's image with.
    pub image_pull_secret: Option<String>,
    /// The URL of an OpenTelemetry collector that takes traces.
    pub trace_endpoint: Option<String>,
    /// The release, for a label.
    pub version: String,
}

impl Settings {
    /// Checks everything that the API server would refuse later.
    pub fn check(&self) -> Result<(), InvalidSetting> {
        let Self { namespace, image: _, agent_image: _, replicas: _, parts, certificate_secret, .. } = self;
        if parts.is_empty() {
            return Err(InvalidSetting::NoPart);
        }
        if parts.contains(&Part::RestartStuck) && !parts.contains(&Part::PullSecrets) {
            return Err(InvalidSetting::RestartStuckAlone);
        }
        if let Some(url) = &self.trace_endpoint
            && trace_port(url).is_none()
        {
            return Err(InvalidSetting::TraceEndpoint(url.clone()));
        }
        let names = [("namespace", Some(namespace)), ("certificate secret", certificate_secret.as_ref())];
        for (field, value) in names {
            if let Some(value) = value.filter(|value| !is_name(value)) {
                return Err(InvalidSetting::Name { field, value: value.clone() });
            }
        }
        Ok(())
    }

    /// Whether a part is on.
    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

/// The port of a collector's URL.
pub(crate) fn trace_port(url: &str) -> Option<u16> {
    let uri: http::Uri = url.parse().ok()?;
    let is_http = uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty());
    is_http.then(|| uri.port_u16().unwrap_or(80))
}

fn is_name(text: &str) -> bool {
    let is_end =
        |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    text.len() <= 63
        && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
        && is_end(bytes.first().copied())
        && is_end(bytes.last().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let settings = |namespace: &str, parts: &[Part]| Settings {
            namespace: namespace.to_owned(),
            image: "c:1".to_owned(),
            agent_image: "a:1".to_owned(),
            replicas: 3,
            parts: parts.to_vec(),
            certificate_secret: None,
            image_pull_secret: None,
            trace_endpoint: None,
            version: "1".to_owned(),
        };
        assert_eq!(settings("a", &Part::USUAL).check(), Ok(()));
        assert_eq!(settings("a", &[]).check(), Err(InvalidSetting::NoPart));
        assert_eq!(settings("a", &[Part::RestartStuck]).check(), Err(InvalidSetting::RestartStuckAlone));
        for name in ["", "-a", "a-", "A", "a.b", &"a".repeat(64)] {
            assert!(settings(name, &Part::ALL).check().is_err(), "{name}");
        }
        assert_eq!(trace_port("http://collector.observability:4318"), Some(4318));
        assert_eq!(trace_port("http://collector/v1"), Some(80));
        for url in ["", "collector:4318", "https://collector:4318", "http://", "grpc://c:4317"] {
            let settings = Settings { trace_endpoint: Some(url.to_owned()), ..settings("a", &Part::USUAL) };
            assert!(settings.check().is_err(), "{url}");
        }
        assert_eq!("volumes".parse(), Ok(Part::Volumes));
        assert!("all".parse::<Part>().unwrap_err().to_string().contains("restart-stuck"));
    }
}
