//! Sources of subject tokens. A token is read for every exchange and never cached, because other programs rotate it.

mod github;

use crate::jwt::{self, Claims, JwtError};
use postern_config::parse_duration;
use postern_config::providers::{DEFAULT_TOKEN_PATH, SourceKind, TokenSource};
use postern_kube::{KubeError, Target, tokens};
use postern_net::error::WebError;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// The kubelet renews a token at this part of its lifetime (kubernetes/pkg/kubelet/token), at the latest after a day.
const RENEWED_AT: f64 = 0.8;
const RENEWED_AFTER: f64 = 24.0 * 3600.0;
/// A renewal that is later than this is reported.
const LATE: f64 = 600.0;

/// A token and its claims.
pub struct SubjectToken {
    /// The token.
    pub token: Zeroizing<String>,
    /// Its claims; absent if the token cannot be decoded.
    pub claims: Option<Claims>,
    /// A warning for the user.
    pub warning: Option<String>,
}

impl std::fmt::Debug for SubjectToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { token: _, claims, warning } = self;
        f.debug_struct("SubjectToken")
            .field("claims", claims)
            .field("warning", warning)
            .finish_non_exhaustive()
    }
}

/// There is no token to exchange. The errors never contain the token.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file does not exist.
    #[error("there is no token at {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("reading the token {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The variable is not set.
    #[error("the variable {0}, which should hold the token, is not set")]
    NoVariable(String),
    /// It is empty.
    #[error("{0} is empty")]
    Empty(String),
    /// It is not a JWT.
    #[error("what {place} holds is not a JWT: {why}")]
    JwtError {
        /// The source.
        place: String,
        /// The reason.
        why: JwtError,
    },
    /// It has expired.
    #[error("the token of {place} expired {seconds} s ago{}", if *kubelet { ": the kubelet did not renew it" } else { "" })]
    Expired {
        /// The source.
        place: String,
        /// How long ago.
        seconds: u64,
        /// Whether a kubelet should have renewed it.
        kubelet: bool,
    },
    /// It has another audience.
    #[error("the token of {place} is for {}, not for {wanted:?}", list(found))]
    Audience {
        /// The source.
        place: String,
        /// The token's audience.
        found: Vec<String>,
        /// The required audience.
        wanted: String,
    },
    /// GitHub's token service is not available.
    #[error("{0} is not set: this is not a GitHub workflow, or it lacks `permissions: id-token: write`")]
    NoWorkflow(&'static str),
    /// GitHub's token service did not answer.
    #[error("requesting a token from GitHub")]
    GitHub(#[source] WebError),
    /// GitHub's token service refused.
    #[error("GitHub refused a token (status {status})")]
    GitHubRefused {
        /// The HTTP status.
        status: u16,
    },
    /// The API server refused.
    #[error("requesting a token of ServiceAccount {service_account} from the API server")]
    TokenRequest {
        /// `NAMESPACE/NAME`.
        service_account: String,
        /// The reason.
        source: KubeError,
    },
}

impl SourceError {
    /// Returns what the user can do; `None` if the message says everything.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Missing { .. } => {
                "outside a pod use `subject_token: {type: token_request, …}`; in one, mount a projected serviceAccountToken \
                 there (`postern identity manifest`)"
            }
            Self::Expired { kubelet: true, .. } => {
                "look for TokenProjection errors in the kubelet's log; a subPath mount is never renewed"
            }
            Self::Audience { .. } => {
                "set `audience` of the projected volume's serviceAccountToken, or of the token source"
            }
            Self::JwtError { .. } => {
                "a ServiceAccount's projected token is one; see `subject_token` in the config"
            }
            Self::TokenRequest { .. } => "creating tokens needs the verb create on serviceaccounts/token",
            _ => return None,
        })
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => "no audience".to_owned(),
        names => names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" and "),
    }
}

/// A source, with its context.
#[derive(Debug, Clone)]
pub struct Source {
    settings: TokenSource,
    /// The audience that is checked, if it is known.
    audience: Option<String>,
    cluster: Target,
    must_be_jwt: bool,
}

impl Source {
    /// Returns a source. `default_audience` is the provider's default if the configuration has none.
    pub fn new(settings: TokenSource, default_audience: Option<&str>, cluster: Target) -> Self {
        let audience = settings.audience.clone().or_else(|| default_audience.map(str::to_owned));
        Self { settings, audience, cluster, must_be_jwt: true }
    }

    /// The same, for tokens that need not be JWTs (RFC 8693 permits others).
    #[must_use]
    pub fn of_any_kind(mut self) -> Self {
        self.must_be_jwt = false;
        self
    }

    /// Returns the source's name for messages.
    pub fn place(&self) -> String {
        let TokenSource { r#type, path: _, name, audience: _, namespace, service_account, lifetime: _ } =
            &self.settings;
        match r#type {
            SourceKind::KubernetesSa | SourceKind::File => self.path().display().to_string(),
            SourceKind::Env => format!("${}", name.as_deref().unwrap_or_default()),
            SourceKind::GithubActions => "GitHub Actions".to_owned(),
            SourceKind::TokenRequest => format!(
                "the API server, for {}{}",
                namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default(),
                service_account.as_deref().unwrap_or_default()
            ),
        }
    }

    /// Returns the file, if it is one.
    pub fn file(&self) -> Option<&Path> {
        matches!(self.settings.r#type, SourceKind::KubernetesSa | SourceKind::File).then(|| self.path())
    }

    fn path(&self) -> &Path {
        self.settings.path.as_deref().unwrap_or_else(|| Path::new(DEFAULT_TOKEN_PATH))
    }

    /// Returns the identity of its tokens, without any request: a part of the key of a cached token.
    pub fn identity(&self) -> Result<String, SourceError> {
        let read = match self.settings.r#type {
            SourceKind::KubernetesSa | SourceKind::File => self.read_file()?,
            SourceKind::Env => self.read_variable()?,
            SourceKind::GithubActions => return github::identity(),
            SourceKind::TokenRequest => {
                return Ok(format!("{:?} {}", self.settings, self.cluster.resolved()));
            }
        };
        Ok(match jwt::decode(&read) {
            Ok((_, claims)) => format!("{:?} {:?} {:?}", claims.iss, claims.sub, claims.aud),
            Err(_) => blake3::hash(read.as_bytes()).to_string(),
        })
    }

    /// Returns the current token, if that needs no request.
    pub fn look(&self) -> Option<Result<SubjectToken, SourceError>> {
        let read = match self.settings.r#type {
            SourceKind::KubernetesSa | SourceKind::File => self.read_file(),
            SourceKind::Env => self.read_variable(),
            SourceKind::GithubActions | SourceKind::TokenRequest => return None,
        };
        Some(read.and_then(|token| self.check(token, now())))
    }

    /// Returns a token. Checks it for reasons that would make an exchange fail.
    pub async fn token(&self) -> Result<SubjectToken, SourceError> {
        let token = match self.settings.r#type {
            SourceKind::KubernetesSa | SourceKind::File => self.read_file()?,
            SourceKind::Env => self.read_variable()?,
            SourceKind::GithubActions => {
                github::token(self.settings.audience.as_deref().unwrap_or_default()).await?
            }
            SourceKind::TokenRequest => self.request().await?,
        };
        self.check(token, now())
    }

    fn read_file(&self) -> Result<Zeroizing<String>, SourceError> {
        let path = self.path().to_owned();
        let mut bytes = Zeroizing::new(Vec::with_capacity(4_096));
        let file = std::fs::File::open(&path);
        let longest = jwt::LONGEST as u64 + 1;
        match file.and_then(|file| file.take(longest).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(SourceError::Missing { path });
            }
            Err(source) => return Err(SourceError::Read { path, source }),
        }
        self.text(&bytes)
    }

    fn read_variable(&self) -> Result<Zeroizing<String>, SourceError> {
        let name = self.settings.name.clone().unwrap_or_default();
        match std::env::var(&name) {
            Ok(value) => self.text(Zeroizing::new(value).as_bytes()),
            Err(_) => Err(SourceError::NoVariable(name)),
        }
    }

    fn text(&self, bytes: &[u8]) -> Result<Zeroizing<String>, SourceError> {
        let not_text = || SourceError::JwtError { place: self.place(), why: JwtError::Parts };
        let text = std::str::from_utf8(bytes).map_err(|_| not_text())?.trim();
        match text.is_empty() {
            true => Err(SourceError::Empty(self.place())),
            // It is sent in headers and forms, so it must be one word.
            false if text.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) => {
                Err(not_text())
            }
            false => Ok(Zeroizing::new(text.to_owned())),
        }
    }

    async fn request(&self) -> Result<Zeroizing<String>, SourceError> {
        let TokenSource { r#type: _, path: _, name: _, audience, namespace, service_account, lifetime } =
            &self.settings;
        let account = service_account.as_deref().unwrap_or_default();
        let shown = |namespace: &str| format!("{namespace}/{account}");
        let failed =
            |namespace: &str, source| SourceError::TokenRequest { service_account: shown(namespace), source };
        let cluster = postern_kube::Cluster::connect(&self.cluster).await;
        let cluster = cluster.map_err(|error| failed(namespace.as_deref().unwrap_or("?"), error))?;
        let namespace = namespace.as_deref().unwrap_or(&cluster.namespace);
        let seconds = lifetime.as_deref().and_then(|text| parse_duration(text).ok());
        let seconds = seconds.and_then(|lifetime| i64::try_from(lifetime.as_secs()).ok()).unwrap_or(3_600);
        let audience = audience.as_deref().unwrap_or_default();
        tokens::request(&cluster, namespace, account, audience, seconds)
            .await
            .map_err(|error| failed(namespace, error))
    }

    fn check(&self, token: Zeroizing<String>, now: f64) -> Result<SubjectToken, SourceError> {
        let place = || self.place();
        let claims = match jwt::decode(&token) {
            Ok((_, claims)) => claims,
            Err(why) if self.must_be_jwt => return Err(SourceError::JwtError { place: place(), why }),
            Err(_) => return Ok(SubjectToken { token, claims: None, warning: None }),
        };
        let kubelet = self.settings.r#type == SourceKind::KubernetesSa;
        if let Some(left) = claims.remaining(now).filter(|left| *left <= 0.0) {
            return Err(SourceError::Expired { place: place(), seconds: whole(-left), kubelet });
        }
        if let Some(wanted) = self.audience.as_ref().filter(|wanted| !claims.aud.contains(wanted)) {
            return Err(SourceError::Audience {
                place: place(),
                found: claims.aud.clone(),
                wanted: wanted.clone(),
            });
        }
        let warning = stalled(&claims, now).filter(|_| kubelet).map(|late| {
            format!(
                "the kubelet should have renewed the token of {} {late} s ago: look for TokenProjection errors in its log",
                self.place()
            )
        });
        Ok(SubjectToken { token, claims: Some(claims), warning })
    }
}

/// Returns by how many seconds a renewal is overdue, if by more than ten minutes.
fn stalled(claims: &Claims, now: f64) -> Option<u64> {
    let (issued, end) = (claims.iat?, claims.exp?);
    // The API server lets old clients use a token for longer than the time of its renewal (`warnafter`, KEP-1205).
    let end = claims.kubernetes.get("warnafter").and_then(serde_json::Value::as_f64).unwrap_or(end);
    let renewal = issued + ((end - issued) * RENEWED_AT).min(RENEWED_AFTER);
    (now > renewal + LATE).then(|| whole(now - renewal))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds, for people; `as` saturates"
)]
fn whole(seconds: f64) -> u64 {
    seconds as u64
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn source(path: &Path) -> Source {
        let settings = TokenSource { path: Some(path.to_owned()), ..TokenSource::default() };
        Source::new(settings, Some("iam"), Target::default())
    }

    fn error(content: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let source = source(file.path());
        let error = source.read_file().and_then(|token| source.check(token, 1_000.0)).unwrap_err();
        error.to_string().replace(&file.path().display().to_string(), "FILE")
    }

    #[test]
    fn each_thing_wrong_with_a_token_is_its_own_error() {
        let token = |claims| jwt::unsigned(&claims);
        assert_eq!(error(""), "FILE is empty");
        assert_eq!(error(" \n"), "FILE is empty");
        assert_eq!(error("opaque"), "what FILE holds is not a JWT: expected three dot-separated parts");
        assert_eq!(error("a b.c.d"), "what FILE holds is not a JWT: expected three dot-separated parts");
        assert_eq!(
            error(&token(json!({"exp": 400, "aud": ["iam"]}))),
            "the token of FILE expired 600 s ago: the kubelet did not renew it"
        );
        assert_eq!(
            error(&token(json!({"exp": 4000, "aud": ["a", "b"]}))),
            "the token of FILE is for \"a\" and \"b\", not for \"iam\""
        );
        assert_eq!(
            error(&token(json!({"exp": 4000}))),
            "the token of FILE is for no audience, not for \"iam\""
        );
        let missing = source(Path::new("/nonexistent/token")).read_file().unwrap_err();
        assert_eq!(missing.to_string(), "there is no token at /nonexistent/token");
    }

    #[test]
    fn a_file_is_read_again_each_time_and_a_final_newline_is_not_part_of_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = source(file.path());
        for jti in ["1", "2"] {
            let token = jwt::unsigned(&json!({"aud": "iam", "jti": jti}));
            std::fs::write(file.path(), format!("{token}\n")).unwrap();
            assert_eq!(*source.read_file().unwrap(), token);
        }
    }

    #[test]
    fn a_renewal_that_did_not_come_is_the_kubelets_to_explain() {
        let claims = |life: f64| Claims { iat: Some(0.0), exp: Some(life), ..Claims::default() };
        assert_eq!(stalled(&claims(6_000.0), 5_399.0), None);
        assert_eq!(stalled(&claims(6_000.0), 5_500.0), Some(700));
        // Renewed after a day, however long it lives.
        assert_eq!(stalled(&claims(1e9), 86_400.0 + 700.0), Some(700));
        let source = source(Path::new("/t"));
        let token = jwt::unsigned(&json!({"iat": 0, "exp": 6000, "aud": "iam"}));
        let found = source.check(Zeroizing::new(token), 5_500.0).unwrap();
        assert!(
            found.warning.unwrap().starts_with("the kubelet should have renewed the token of /t 700 s ago")
        );
    }
}
