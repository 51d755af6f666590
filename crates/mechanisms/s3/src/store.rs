//! A client for one bucket.

use crate::error::{Kind, RequestError};
use crate::http::Connections;
use crate::location::Location;
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Region;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// Session credentials.
pub struct Keys {
    /// The access key's id.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: Zeroizing<String>,
    /// The session token.
    pub session_token: Option<Zeroizing<String>>,
    /// When they expire.
    pub expires: Option<SystemTime>,
}

/// Returns valid credentials; called again before they expire. The error is for users.
pub type AskKeys = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Keys, String>> + Send>> + Send + Sync>;

/// How S3 is reached. Defaults are found as by the SDK: environment, profiles, the role of the container or
/// instance.
#[derive(Clone, Default)]
pub struct Settings {
    /// A server other than AWS.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// Provides credentials.
    pub keys: Option<AskKeys>,
    /// Trusted certificates (DER), instead of the platform's.
    pub certificates: Option<Vec<Vec<u8>>>,
    /// How often a request is retried if a server did not answer.
    pub retries: u32,
    /// Directory for records of unfinished uploads, so that the next run can resume them.
    pub journals: Option<PathBuf>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { endpoint, region, keys: _, certificates: _, retries: _, journals } = self;
        f.debug_struct("Settings")
            .field("endpoint", endpoint)
            .field("region", region)
            .field("journals", journals)
            .finish_non_exhaustive()
    }
}

/// A bucket.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) client: Client,
    pub(crate) bucket: String,
    /// Distinguishes this bucket from one with the same name elsewhere.
    pub(crate) server: String,
    pub(crate) journals: Option<PathBuf>,
    /// Maximum number of attempts of a request.
    tries: u32,
}

impl Store {
    /// Reads the SDK's configuration. Sends requests only if finding the region requires it.
    pub async fn open(bucket: &str, settings: &Settings) -> Self {
        let Settings { endpoint, region, keys, certificates, retries, journals } = settings;
        let named = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok());
        let named: Vec<String> =
            endpoint.iter().cloned().chain(named).filter(|url| !url.is_empty()).collect();
        let clear = named.iter().filter_map(|url| origin(url)).collect();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(Connections::shared(certificates.clone(), clear))
            .retry_config(RetryConfig::standard().with_max_attempts(retries.saturating_add(1)));
        if let Some(endpoint) = endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(region) = region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(ask) = keys {
            loader =
                loader.credentials_provider(SharedCredentialsProvider::new(KeyProvider(Arc::clone(ask))));
        }
        let shared = loader.load().await;
        // A profile's endpoint counts too.
        let server = named.into_iter().next().or_else(|| shared.endpoint_url().map(str::to_owned));
        let own = server.is_some();
        let mut config = aws_sdk_s3::config::Builder::from(&shared);
        if own {
            // Few servers other than AWS have a host name for each bucket.
            config = config.force_path_style(true);
            if shared.region().is_none() {
                config = config.region(Region::new("us-east-1"));
            }
        } else if shared.region().is_none() {
            // The error for a bucket in another region names the flag that helps.
            config = config.region(Region::new("us-east-1"));
        }
        Self {
            client: Client::from_conf(config.build()),
            bucket: bucket.to_owned(),
            server: server.unwrap_or_default(),
            journals: journals.clone(),
            tries: retries.saturating_add(1),
        }
    }

    /// The name for messages.
    pub fn name(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    pub(crate) fn show(&self, key: &str) -> String {
        let location = Location { bucket: self.bucket.clone(), key: key.to_owned() };
        postern_files::name::show(location.to_string().as_bytes()).into_owned()
    }

    pub(crate) fn error<E>(
        &self,
        attempt: &str,
        key: &str,
        error: &aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
    ) -> RequestError
    where
        E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut error = RequestError::of(&format!("{attempt} {}", self.show(key)), error);
        if error.kind == Kind::Busy {
            error.message.push_str(&format!(", tried {} times", self.tries));
        }
        error
    }
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> Option<String> {
    let url: http::Uri = url.parse().ok()?;
    Some(format!("{}://{}", url.scheme_str()?, url.authority()?))
}

struct KeyProvider(AskKeys);

impl std::fmt::Debug for KeyProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyProvider")
    }
}

impl ProvideCredentials for KeyProvider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let keys = (self.0)().await.map_err(CredentialsError::provider_error)?;
            let Keys { access_key_id, secret_access_key, session_token, expires } = keys;
            let session = session_token.map(|token| token.to_string());
            Ok(Credentials::new(access_key_id, secret_access_key.to_string(), session, expires, "postern"))
        })
    }
}
