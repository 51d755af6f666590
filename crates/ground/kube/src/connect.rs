//! Creates a client from a kubeconfig.

use crate::credential_error::{CredentialCause, CredentialError};
use crate::credentials::{self, Bearer, TokenFile};
use crate::error::{KubeError, Reason};
use crate::exec_plugin::ExecPlugin;
use crate::watch_body::WatchBody;
use crate::{kubeconfig, kubeconfig_fields, retry};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use postern_net::connector::{self, Versions};
use postern_net::error::chain;
use postern_net::{address, tls};
use secrecy::ExposeSecret as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tower::{BoxError, ServiceBuilder};

/// The time limit for the API server to begin an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The cluster, as the user named it.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// A kubeconfig other than `$KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context other than the current one.
    pub context: Option<String>,
    /// Act as this user, with these groups.
    pub impersonate: Option<(String, Vec<String>)>,
    /// The option that reads stdin as data, such as `-i`: a kubeconfig's exec plug-in does not read stdin then.
    pub stdin_taken: Option<&'static str>,
}

impl Target {
    /// Returns a text that identifies the cluster and the user: different ones have different texts. Sends no
    /// requests. Not for display.
    pub fn resolved(&self) -> String {
        let Self { kubeconfig, context, impersonate, stdin_taken: _ } = self;
        let Ok(read) = kubeconfig::read(kubeconfig.as_deref()).1 else {
            return format!("in-cluster {impersonate:?}");
        };
        let name = context.clone().or(read.current_context).unwrap_or_default();
        let found = read.contexts.into_iter().find(|one| one.name == name).and_then(|one| one.context);
        let server = found.as_ref().and_then(|found| {
            let cluster = read.clusters.into_iter().find(|one| one.name == found.cluster)?;
            cluster.cluster?.server
        });
        let place = found.map(|found| (found.user, found.namespace));
        format!("{name:?} {server:?} {place:?} {impersonate:?}")
    }
}

/// A client of one cluster. Creating it sends nothing; the first request connects.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The server's address, for messages.
    pub server: String,
    /// The context's namespace.
    pub namespace: String,
    /// The user's name in the kubeconfig, for records that nobody verifies.
    pub user: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client: _, server, namespace, user } = self;
        f.debug_struct("Cluster")
            .field("server", server)
            .field("namespace", namespace)
            .field("user", user)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads the kubeconfig (or, in a pod without one, the mounted `ServiceAccount`) and creates a client.
    pub async fn connect(target: &Target) -> Result<Self, KubeError> {
        let Loaded { mut config, user, bearer } = Box::pin(load(target)).await?;
        if let Some((name, groups)) = &target.impersonate {
            config.auth_info.impersonate = Some(name.clone());
            config.auth_info.impersonate_groups = Some(groups.clone());
        }
        Self::from_config(&config, user, bearer)
    }

    fn from_config(config: &Config, user: String, bearer: Option<Bearer>) -> Result<Self, KubeError> {
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = config.default_namespace.clone();
        let client = client(config, &server, bearer)?;
        Ok(Self { client, server, namespace, user })
    }

    /// A client that needs only an address.
    #[cfg(test)]
    pub(crate) fn at(server: &str) -> Self {
        Self::from_config(&Config::new(server.parse().unwrap()), String::new(), None).unwrap()
    }

    /// Classifies an error of the client library.
    pub fn error(&self, attempt: impl Into<String>, error: &kube::Error) -> KubeError {
        KubeError::from_client(attempt, &self.server, error)
    }
}

/// Returns a client with our own resolver, and with the proxy of `config` if it has one.
fn client(config: &Config, server: &str, bearer: Option<Bearer>) -> Result<Client, KubeError> {
    let attempt = || format!("connecting to {server}");
    let setting = |why: String| KubeError::new(attempt(), Reason::Setting(why));
    let proxy = config.proxy_url.as_ref();
    let plain = connector::connector(proxy, None)
        .map_err(|why| setting(format!("{why} (HTTPS_PROXY, or proxy-url in the kubeconfig)")))?;
    let tls = tls_config(config).map_err(|cause| {
        KubeError::new(attempt(), Reason::Tls { server: server.to_owned(), cause, expired: false })
    })?;
    let name = match &config.tls_server_name {
        None => None,
        Some(name) => Some(
            name.clone()
                .try_into()
                .map_err(|_| setting(format!("tls-server-name is {name:?}, which is not a server name")))?,
        ),
    };
    let https = connector::secured(plain, tls, Versions::Upgradable, name);
    stack(config, https, bearer).map_err(|error| KubeError::from_client(attempt(), server, &error))
}

/// Returns the TLS configuration; the error is for display.
fn tls_config(config: &Config) -> Result<rustls::ClientConfig, String> {
    let mut tls = config.rustls_client_config().map_err(|error| chain(&error))?;
    // The library rereads the CA of a mounted ServiceAccount when it changes.
    if !config.accept_invalid_certs && config.root_cert_file.is_none() {
        tls::pin(&mut tls, config.root_cert.as_deref())?;
    }
    Ok(tls)
}

/// Returns the layers of every request: address, credentials, retries for a busy server, and the time limit for an
/// answer to begin.
fn stack(
    config: &Config,
    https: connector::Connector,
    bearer: Option<Bearer>,
) -> Result<Client, kube::Error> {
    let http: Https = HttpClient::builder(TokioExecutor::new()).build(https);
    let timed = tower::service_fn(move |request: http::Request<Body>| {
        let (http, bearer) = (http.clone(), bearer.clone());
        Box::pin(async move {
            let query = request.uri().query().map(str::to_owned);
            let answer = send_request(http, request, bearer).await?;
            Ok::<_, BoxError>(answer.map(|body| WatchBody::new(body, query.as_deref())))
        })
    });
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(timed);
    Ok(Client::new(service, config.default_namespace.clone()))
}

type Https = HttpClient<connector::Connector, Body>;
type Answer = Result<http::Response<hyper::body::Incoming>, BoxError>;
type Answering = std::pin::Pin<Box<dyn Future<Output = Answer> + Send>>;

async fn send_request(http: Https, mut request: http::Request<Body>, bearer: Option<Bearer>) -> Answer {
    if let Some(bearer) = bearer
        && !request.headers().contains_key(http::header::AUTHORIZATION)
        && let Some(header) = bearer.header().await.map_err(Box::new)?
    {
        request.headers_mut().insert(http::header::AUTHORIZATION, header);
    }
    let once = |request| -> Answering {
        let answer = http.request(request);
        Box::pin(async move {
            match tokio::time::timeout(ANSWER_LIMIT, answer).await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(Box::new(error).into()),
                Err(_) => Err(format!("no answer within {}", ANSWER_LIMIT.as_secs()).into()),
            }
        })
    };
    retry::send_with_retries(request, once).await
}

/// A configuration without the credentials that change during a run, and those credentials.
struct Loaded {
    config: Config,
    user: String,
    bearer: Option<Bearer>,
}

impl Loaded {
    /// Takes out of the configuration the credentials that Postern refreshes itself; `attempt` is the prefix of
    /// errors.
    async fn new(
        mut config: Config,
        user: String,
        stdin_taken: Option<&'static str>,
        attempt: &str,
    ) -> Result<Self, KubeError> {
        let failed = |error: CredentialError| {
            KubeError::new(attempt.to_owned(), Reason::Credentials { why: error.why, cause: error.cause })
        };
        let info = &mut config.auth_info;
        let bearer = match (info.token_file.take(), info.exec.take()) {
            (Some(path), _) => Some(Bearer::File(Arc::new(TokenFile::new(&path, info.token.take())))),
            (None, Some(exec)) => {
                Some(Bearer::Plugin(ExecPlugin::shared(exec, stdin_taken).map_err(failed)?))
            }
            (None, None) => None,
        };
        // No request may be sent without credentials, and a certificate is needed before the connection.
        if let Some(bearer) = &bearer {
            bearer.header().await.map_err(failed)?;
        }
        if let Some(Bearer::Plugin(plugin)) = &bearer
            && let Some((certificate, key)) = &plugin.credential().await.map_err(failed)?.certificate
        {
            info.client_certificate_data = Some(STANDARD.encode(certificate));
            info.client_key_data = Some(STANDARD.encode(key.expose_secret()).into());
            kubeconfig_fields::check_user(&user, info).map_err(|why| {
                let why = format!("{}: {why}", plugin.name());
                let reason = Reason::Credentials { why, cause: CredentialCause::Plugin };
                KubeError::new(attempt.to_owned(), reason)
            })?;
        }
        Ok(Self { config, user, bearer })
    }
}

async fn load(target: &Target) -> Result<Loaded, KubeError> {
    let (what, read) = kubeconfig::read(target.kubeconfig.as_deref());
    let mut kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(error)
            if target.kubeconfig.is_none()
                && target.context.is_none()
                && !kubeconfig::any(std::env::var_os("KUBECONFIG").as_deref()) =>
        {
            // A pod has no kubeconfig but a mounted ServiceAccount.
            return match Config::incluster() {
                Ok(mut config) => {
                    config.proxy_url = address::proxy(&config.cluster_url);
                    Loaded::new(config, "in-cluster".to_owned(), None, "using the pod's ServiceAccount").await
                }
                Err(_) => Err(error),
            };
        }
        Err(error) => return Err(error),
    };
    let name = target.context.clone().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
    let Some(context) = kubeconfig.contexts.iter().find(|context| context.name == name) else {
        return Err(KubeError::new(what, Reason::Context(kubeconfig::unknown_context(&name, &kubeconfig))));
    };
    let user = context.context.as_ref().and_then(|context| context.user.clone()).unwrap_or_default();
    let of = context.context.as_ref().map_or_else(String::new, |context| context.cluster.clone());
    let holds = |why| KubeError::new(what.clone(), Reason::Field(why));
    let cluster = kubeconfig.clusters.iter().find(|one| one.name == of).and_then(|one| one.cluster.as_ref());
    if let Some(cluster) = cluster {
        kubeconfig_fields::check_cluster(&of, cluster).map_err(holds)?;
    }
    let own = cluster.and_then(|cluster| cluster.proxy_url.clone());
    let secure =
        cluster.and_then(|cluster| cluster.server.as_deref()).is_some_and(|url| url.starts_with("https"));
    let info = kubeconfig.auth_infos.iter_mut().find(|info| info.name == user);
    // Without these, requests would be anonymous. Without TLS no credentials are sent anyway, as behind `kubectl
    // proxy`.
    let why = match info {
        None if !user.is_empty() => {
            Some(format!("the context {name:?} names the user {user:?}, which does not exist"))
        }
        None => secure.then(|| format!("the context {name:?} names no user")),
        Some(info) => {
            let info = info.auth_info.get_or_insert_default();
            credentials::choose(&user, info).map_err(holds)?;
            kubeconfig_fields::check_user(&user, info).map_err(holds)?;
            (secure && !credentials::has_any(info))
                .then(|| format!("the user {user:?} of the context {name:?} has no credentials"))
        }
    };
    if let Some(why) = why {
        return Err(KubeError::new(what, Reason::Field(why)));
    }
    let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
    match Config::from_custom_kubeconfig(kubeconfig, &options).await {
        Ok(mut config) => {
            // The library itself checks NO_PROXY for a proxy. It rejects an invalid address.
            config.proxy_url = match own {
                Some(own) => own.parse().ok(),
                None => address::proxy(&config.cluster_url),
            };
            let server = config.cluster_url.to_string();
            let attempt = format!("connecting to {}", server.trim_end_matches('/'));
            Loaded::new(config, user, target.stdin_taken, &attempt).await
        }
        Err(error) => {
            Err(KubeError::new(format!("using the context {name:?}"), Reason::Kubeconfig(chain(&error))))
        }
    }
}
