//! A bucket that can be spoken to.

use crate::error::{Kind, Trouble};
use crate::http::Connections;
use crate::link::{Ended, Inbox, Outbox};
use crate::{Location, clean, destination, source};
use aws_config::BehaviorVersion;
use aws_config::retry::RetryConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Region;
use bytes::Bytes;
use postern_wire::copy::{FromDestination, FromSource, ReceiveSpec, SendSpec};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

/// Keys of a session.
pub struct Keys {
    /// Which key.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: Zeroizing<String>,
    /// The session.
    pub session_token: Option<Zeroizing<String>>,
    /// When they end.
    pub expires: Option<SystemTime>,
}

/// Gives keys that are good at this moment; asked again before those end. The error is for people.
pub type AskKeys = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Keys, String>> + Send>> + Send + Sync>;

/// How S3 is reached. What is not said is found as the SDK does: environment, profiles, the container's or instance's role.
#[derive(Clone, Default)]
pub struct Settings {
    /// Another server than AWS'.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// Where keys come from.
    pub keys: Option<AskKeys>,
    /// Who vouches for the server (DER), where not the platform.
    pub certificates: Option<Vec<Vec<u8>>>,
    /// How often a request is made again that a server did not answer.
    pub retries: u32,
    /// Where unfinished uploads are recorded, so that the next run goes on with them.
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
    /// What tells this bucket from one of the same name elsewhere.
    pub(crate) server: String,
    pub(crate) journals: Option<PathBuf>,
    /// How often a request is made at most.
    tries: u32,
}

impl Store {
    /// Reads the SDK's configuration. Sends nothing but what finding a region takes.
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
            loader = loader.credentials_provider(SharedCredentialsProvider::new(Asked(Arc::clone(ask))));
        }
        let shared = loader.load().await;
        // A profile's endpoint counts as well.
        let server = named.into_iter().next().or_else(|| shared.endpoint_url().map(str::to_owned));
        let own = server.is_some();
        let mut config = aws_sdk_s3::config::Builder::from(&shared);
        if own {
            // Few servers but AWS' have a name for each bucket.
            config = config.force_path_style(true);
            if shared.region().is_none() {
                config = config.region(Region::new("us-east-1"));
            }
        } else if shared.region().is_none() {
            // A refusal of another region's bucket names the flag that helps.
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

    /// For people.
    pub fn name(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    pub(crate) fn show(&self, key: &str) -> String {
        let location = Location { bucket: self.bucket.clone(), key: key.to_owned() };
        postern_files::name::show(location.to_string().as_bytes()).into_owned()
    }

    pub(crate) fn trouble<E>(
        &self,
        attempt: &str,
        key: &str,
        error: &aws_sdk_s3::error::SdkError<E, aws_smithy_runtime_api::client::orchestrator::HttpResponse>,
    ) -> Trouble
    where
        E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + 'static,
    {
        let mut trouble = Trouble::of(&format!("{attempt} {}", self.show(key)), error);
        if trouble.kind == Kind::Busy {
            trouble.message.push_str(&format!(", tried {} times", self.tries));
        }
        trouble
    }

    /// Is the end with the files until the copy is over.
    pub async fn send(self, spec: SendSpec, input: mpsc::Receiver<Bytes>, output: mpsc::Sender<Bytes>) {
        let mut out = Outbox::new(output);
        if let Err(Ended::Fatal(message)) = source::send(&self, &spec, Inbox::new(input), &mut out).await
            && out.put(|buffer| FromSource::Fatal(message).encode(buffer)).await.is_ok()
        {
            let _ = out.flush().await; // nobody is there any more
        }
    }

    /// Is the end that gets the files until the copy is over.
    pub async fn receive(self, spec: ReceiveSpec, input: mpsc::Receiver<Bytes>, output: mpsc::Sender<Bytes>) {
        let mut out = Outbox::new(output);
        let ended = match spec.clean {
            true => clean::clean(&self, &spec, &mut out).await,
            false => destination::receive(&self, &spec, Inbox::new(input), &mut out).await,
        };
        if let Err(Ended::Fatal(message)) = ended
            && out.put(|buffer| FromDestination::Fatal(message).encode(buffer)).await.is_ok()
        {
            let _ = out.flush().await; // nobody is there any more
        }
    }
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> Option<String> {
    let url: http::Uri = url.parse().ok()?;
    Some(format!("{}://{}", url.scheme_str()?, url.authority()?))
}

struct Asked(AskKeys);

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asked")
    }
}

impl ProvideCredentials for Asked {
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
