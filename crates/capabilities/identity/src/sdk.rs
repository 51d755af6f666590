//! The environment for each provider's own tools and SDKs, with which they can renew credentials themselves.
//!
//! - AWS: the container credentials endpoint, on loopback, with its own token.
//! - Google and Azure: a configuration with which the SDK exchanges the subject token itself, if that is a file.
//! - All with a bearer token: the token, and a file that is kept fresh.

use crate::atomic_file;
use crate::exchange::{Exchanger, gcp_audience};
use crate::keeper::{CachedCredential, Keeper};
use crate::render::{REGION, variable_prefix, variables};
use postern_config::providers::{Provider, ProviderType};
use serde_json::json;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

/// The interval of checks for a newer token.
const LOOK: Duration = Duration::from_millis(200);

/// A child process's environment for one provider. Its files are removed when it is dropped.
#[derive(Debug)]
pub struct ChildEnvironment {
    keeper: Arc<Keeper<Exchanger>>,
    variables: Vec<(String, Zeroizing<String>)>,
    directory: Option<PathBuf>,
    tasks: Vec<JoinHandle<()>>,
}

/// Returns variables that an SDK would prefer to ours.
pub fn conflicting_variables(provider: &Provider) -> &'static [&'static str] {
    match provider.r#type {
        ProviderType::Aws => &[
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_PROFILE",
            "AWS_DEFAULT_PROFILE",
            "AWS_ROLE_ARN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        ],
        ProviderType::Azure => &["AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH"],
        ProviderType::Oauth2 | ProviderType::Ibm | ProviderType::Gcp => &[],
    }
}

impl ChildEnvironment {
    /// Prepares the environment for the provider's SDKs.
    pub async fn prepare(keeper: Arc<Keeper<Exchanger>>, cached: &CachedCredential) -> io::Result<Self> {
        let exchanger = keeper.exchanger();
        let (name, provider) = (exchanger.name.clone(), exchanger.provider.clone());
        let mut kit =
            Self { keeper: keeper.clone(), variables: Vec::new(), directory: None, tasks: Vec::new() };
        if provider.r#type == ProviderType::Aws {
            kit.serve_aws(&provider).await?;
        } else {
            kit.variables = variables(&name, &provider, cached);
            let file = kit.private_file("token")?;
            if let Some(bearer) = cached.credential.bearer() {
                write(&file, bearer.access_token.as_bytes())?;
            }
            let variable = format!("{}_ACCESS_TOKEN_FILE", variable_prefix(&name));
            kit.variables.push((variable, Zeroizing::new(file.display().to_string())));
            kit.tasks.push(tokio::spawn(keep(keeper.clone(), file, cached.hash())));
        }
        kit.native(&provider)?;
        kit.tasks.push(tokio::spawn(keeper.keep_fresh()));
        Ok(kit)
    }

    /// Returns the provider.
    pub fn provider(&self) -> &Provider {
        &self.keeper.exchanger().provider
    }

    /// Returns the child's variables.
    pub fn variables(&self) -> &[(String, Zeroizing<String>)] {
        &self.variables
    }

    fn private_file(&mut self, name: &str) -> io::Result<PathBuf> {
        if let Some(directory) = &self.directory {
            return Ok(directory.join(name));
        }
        let mut random = [0; 12];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
            .map_err(|_| io::Error::other("there is no randomness"))?;
        let random: String = random.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        let directory = runtime.unwrap_or_else(std::env::temp_dir).join(format!("postern-identity-{random}"));
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        Ok(self.directory.insert(directory).join(name))
    }

    /// If the subject token is a file, SDKs that support federation renew by themselves.
    fn native(&mut self, provider: &Provider) -> io::Result<()> {
        let source = self.keeper.exchanger().source();
        let Some(subject) =
            source.as_ref().and_then(|source| source.file()).map(|path| path.display().to_string())
        else {
            return Ok(());
        };
        let plain = |name: &str, value: &str| (name.to_owned(), Zeroizing::new(value.to_owned()));
        match provider.r#type {
            ProviderType::Azure => {
                let authority = provider.endpoint.as_deref().unwrap_or("https://login.microsoftonline.com/");
                self.variables.extend([
                    plain("AZURE_TENANT_ID", provider.tenant_id.as_deref().unwrap_or_default()),
                    plain("AZURE_CLIENT_ID", provider.client_id.as_deref().unwrap_or_default()),
                    plain("AZURE_FEDERATED_TOKEN_FILE", &subject),
                    plain("AZURE_AUTHORITY_HOST", authority),
                ]);
            }
            ProviderType::Gcp => {
                let file = self.private_file("google.json")?;
                write(&file, external_account(provider, &subject).to_string().as_bytes())?;
                self.variables.push(plain("GOOGLE_APPLICATION_CREDENTIALS", &file.display().to_string()));
            }
            ProviderType::Oauth2 | ProviderType::Ibm | ProviderType::Aws => {}
        }
        Ok(())
    }

    async fn serve_aws(&mut self, provider: &Provider) -> io::Result<()> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let secret =
            crate::proxy::random_secret().ok_or_else(|| io::Error::other("there is no randomness"))?;
        let uri = format!("http://127.0.0.1:{port}/aws-credentials/{}", self.keeper.name());
        // SDKs read the user's own files before they use this endpoint.
        for name in ["AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"] {
            self.variables.push((name.to_owned(), Zeroizing::new("/dev/null".to_owned())));
        }
        self.variables.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), Zeroizing::new(uri)));
        self.variables.push(("AWS_CONTAINER_AUTHORIZATION_TOKEN".to_owned(), secret.clone()));
        if let Some(region) = &provider.region {
            let named = REGION.map(|name| (name.to_owned(), Zeroizing::new(region.clone())));
            self.variables.extend(named);
        }
        self.tasks.push(tokio::spawn(crate::proxy::serve_aws_only(listener, self.keeper.clone(), secret)));
        Ok(())
    }
}

impl Drop for ChildEnvironment {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        if let Some(directory) = &self.directory {
            // A token in a file that cannot be removed expires soon, and only its owner can enter the directory.
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

/// Returns Google's configuration of an external account (AIP-4117): it contains no secret.
fn external_account(provider: &Provider, subject: &str) -> serde_json::Value {
    let sts = provider.endpoint.as_deref().unwrap_or("https://sts.googleapis.com").trim_end_matches('/');
    let mut value = json!({
        "type": "external_account",
        "audience": gcp_audience(provider.workload_identity_provider.as_deref().unwrap_or_default()),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{sts}/v1/token"),
        "credential_source": {"file": subject, "format": {"type": "text"}},
    });
    if let Some(account) = &provider.service_account {
        let api =
            provider.impersonation_endpoint.as_deref().unwrap_or("https://iamcredentials.googleapis.com");
        let api = api.trim_end_matches('/');
        value["service_account_impersonation_url"] =
            format!("{api}/v1/projects/-/serviceAccounts/{account}:generateAccessToken").into();
    }
    value
}

async fn keep(keeper: Arc<Keeper<Exchanger>>, file: PathBuf, mut written: blake3::Hash) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(cached) = keeper.peek().filter(|cached| cached.hash() != written) else { continue };
        let Some(bearer) = cached.credential.bearer() else { continue };
        match write(&file, bearer.access_token.as_bytes()) {
            Ok(()) => written = cached.hash(),
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    atomic_file::replace(path, 0o600, |file| file.write_all(bytes))
}
