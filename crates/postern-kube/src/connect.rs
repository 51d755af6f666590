//! From a kubeconfig to a client.

use crate::error::{KubeError, Reason};
use crate::fields;
use crate::resolver::resolver;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::PathBuf;
use std::time::Duration;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

/// How long a TCP connection may take.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// How long the API server may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Which cluster, as the user said it.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// A kubeconfig other than `$KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context other than the current one.
    pub context: Option<String>,
    /// Act as this user, with these groups.
    pub impersonate: Option<(String, Vec<String>)>,
}

impl Target {
    /// Which cluster and user it comes to, in words that differ when they do; asks nobody. Not for people.
    pub fn resolved(&self) -> String {
        let Self { kubeconfig, context, impersonate } = self;
        let read = match kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => read_usual(std::env::var_os("KUBECONFIG").as_deref()).1,
        };
        let Ok(read) = read else { return format!("in-cluster {impersonate:?}") };
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

/// A connected cluster. Connecting sends nothing; the first request does.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// Its address, for messages.
    pub server: String,
    /// The context's namespace.
    pub namespace: String,
    /// The user's name in the kubeconfig: what we claim to be where nobody checks.
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
    /// Reads the kubeconfig (or, inside a pod without one, the mounted `ServiceAccount`) and makes a client.
    pub async fn connect(target: &Target) -> Result<Self, KubeError> {
        let (mut config, user) = load(target).await?;
        if let Some((name, groups)) = &target.impersonate {
            config.auth_info.impersonate = Some(name.clone());
            config.auth_info.impersonate_groups = Some(groups.clone());
        }
        if config.auth_info.exec.is_none() {
            return Self::from_config(&config, user);
        }
        // The library waits for the plug-in where it is called: on a thread of its own, time-outs and signals go on.
        let made = tokio::task::spawn_blocking(move || Self::from_config(&config, user)).await;
        made.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn from_config(config: &Config, user: String) -> Result<Self, KubeError> {
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = config.default_namespace.clone();
        let client = client(config, &server)?;
        Ok(Self { client, server, namespace, user })
    }

    /// One that asks for nothing but an address.
    #[cfg(test)]
    pub(crate) fn at(server: &str) -> Self {
        Self::from_config(&Config::new(server.parse().unwrap()), String::new()).unwrap()
    }

    /// Classes an error of the client library.
    pub fn error(&self, attempt: impl Into<String>, error: &kube::Error) -> KubeError {
        KubeError::from_client(attempt, &self.server, error)
    }
}

/// A client by way of our own resolver and of the proxy that `config` names, if it names one.
pub(crate) fn client(config: &Config, server: &str) -> Result<Client, KubeError> {
    let mut http = HttpConnector::new_with_resolver(resolver());
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(Duration::from_secs(10)));
    http.set_keepalive_interval(Some(Duration::from_secs(5)));
    http.set_keepalive_retries(Some(3));
    let attempt = || format!("connecting to {server}");
    let failed = |error: &kube::Error| {
        let mut error = KubeError::from_client(attempt(), server, error);
        if let (Reason::Credentials(why), Some(plug_in)) = (&mut error.reason, &config.auth_info.exec)
            && let Some(command) = &plug_in.command
        {
            *why = why.replacen("exec plug-in", &format!("exec plug-in {command}"), 1);
            if let Some(hint) = &plug_in.install_hint
                && why.contains("cannot be started")
            {
                why.push_str(&format!("; how to install it: {}", hint.trim()));
            }
        }
        error
    };
    let client = match config.proxy_url.clone() {
        None => stack(config, http).map_err(|error| failed(&error))?,
        Some(proxy) => {
            let tunnel = match proxy.scheme_str() {
                Some("http") => stack(config, authorized(Tunnel::new(proxy.clone(), http), &proxy)),
                Some("https") => {
                    // The proxy is not the cluster: the cluster's CA does not vouch for it, and our client
                    // certificate is not for it to see. It is checked as any other server, SSL_CERT_FILE included.
                    let inner = Config::new(proxy.clone()).rustls_https_connector_with_connector(http);
                    let inner = inner.map_err(|error| failed(&error))?;
                    stack(config, authorized(Tunnel::new(proxy.clone(), inner), &proxy))
                }
                _ => {
                    // Its address may hold a password.
                    let host = proxy.host().unwrap_or("without a host");
                    let reason = format!(
                        "the proxy {host} is neither http:// nor https:// (HTTPS_PROXY, or proxy-url in the kubeconfig)"
                    );
                    return Err(KubeError::new(attempt(), Reason::Setting(reason)));
                }
            };
            tunnel.map_err(|error| failed(&error))?
        }
    };
    Ok(client)
}

/// The layers that every request passes: address, credentials, and a limit on how long an answer may take to begin.
fn stack<C>(config: &Config, connector: C) -> Result<Client, kube::Error>
where
    C: tower::Service<http::Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError> + Send + Sync + std::error::Error + 'static,
{
    let https = config.rustls_https_connector_with_connector(connector)?;
    let http: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(https);
    let timed = tower::service_fn(move |request| {
        let answer = http.clone().oneshot(request);
        async move {
            match tokio::time::timeout(ANSWER, answer).await {
                Ok(answer) => answer.map_err(BoxError::from),
                Err(_) => Err(format!("no answer within {}", ANSWER.as_secs()).into()),
            }
        }
    });
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(timed);
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// Sends the user and password of a proxy's address, as RFC 9110 section 11.7.2 has it.
pub(crate) fn authorized<C>(tunnel: Tunnel<C>, proxy: &http::Uri) -> Tunnel<C> {
    let matcher = hyper_util::client::proxy::matcher::Matcher::builder().all(proxy.to_string()).build();
    let target = http::Uri::from_static("https://any.invalid");
    match matcher.intercept(&target).and_then(|found| found.basic_auth().cloned()) {
        Some(value) => tunnel.with_auth(value),
        None => tunnel,
    }
}

async fn load(target: &Target) -> Result<(Config, String), KubeError> {
    let failed = |what: &str, why: String| KubeError::new(what.to_owned(), Reason::Kubeconfig(why));
    let words = crate::error::chain;
    let (what, read) = match &target.kubeconfig {
        Some(path) => (format!("reading the kubeconfig {}", path.display()), Kubeconfig::read_from(path)),
        None => read_usual(std::env::var_os("KUBECONFIG").as_deref()),
    };
    let mut kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(error) if target.kubeconfig.is_none() && target.context.is_none() => {
            // In a pod there is no kubeconfig but a mounted ServiceAccount.
            return match Config::incluster() {
                Ok(mut config) => {
                    config.proxy_url = crate::web::proxy(&config.cluster_url);
                    Ok((config, "in-cluster".to_owned()))
                }
                Err(_) => Err(failed(&what, words(&error))),
            };
        }
        Err(error) => return Err(failed(&what, words(&error))),
    };
    fields::unwrap_lines(&mut kubeconfig);
    let name = target.context.clone().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
    let Some(context) = kubeconfig.contexts.iter().find(|context| context.name == name) else {
        return Err(failed(&what, unknown_context(&name, &kubeconfig)));
    };
    let user = context.context.as_ref().and_then(|context| context.user.clone()).unwrap_or_default();
    let info = kubeconfig.auth_infos.iter().find(|info| info.name == user);
    // Without this, requests would be sent as nobody.
    if !user.is_empty() && info.is_none() {
        let why = format!("the context {name:?} names the user {user:?}, and there is none of this name");
        return Err(failed(&what, why));
    }
    let of = context.context.as_ref().map_or("", |context| &context.cluster);
    let cluster = kubeconfig.clusters.iter().find(|one| one.name == of).and_then(|one| one.cluster.as_ref());
    let holds = |why| KubeError::new(what.clone(), Reason::Field(why));
    if let Some(cluster) = cluster {
        fields::of_cluster(of, cluster).map_err(holds)?;
    }
    if let Some(info) = info.and_then(|info| info.auth_info.as_ref()) {
        fields::of_user(&user, info).map_err(holds)?;
    }
    let own = cluster.and_then(|cluster| cluster.proxy_url.clone()).filter(|own| !own.is_empty());
    let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
    match Config::from_custom_kubeconfig(kubeconfig, &options).await {
        Ok(mut config) => {
            // The library looks for the proxy itself in NO_PROXY. An address that is none it has refused.
            config.proxy_url = match own {
                Some(own) => own.parse().ok(),
                None => crate::web::proxy(&config.cluster_url),
            };
            Ok((config, user))
        }
        Err(error) => Err(failed(&format!("using the context {name:?}"), words(&error))),
    }
}

/// What `$KUBECONFIG` lists, files that are not there left out as kubectl does, or else `~/.kube/config`; and what is
/// attempted with it.
fn read_usual(
    listed: Option<&std::ffi::OsStr>,
) -> (String, Result<Kubeconfig, kube::config::KubeconfigError>) {
    let listed = listed.filter(|listed| !listed.is_empty());
    let paths: Vec<_> = listed.map(|listed| std::env::split_paths(listed).collect()).unwrap_or_default();
    let there = paths.iter().filter(|path| !path.as_os_str().is_empty() && path.exists());
    match listed {
        None => ("reading the kubeconfig ~/.kube/config".to_owned(), Kubeconfig::read()),
        Some(listed) => {
            let read = there.map(Kubeconfig::read_from).reduce(|all, next| all?.merge(next?));
            let what = format!("reading the kubeconfig {} ($KUBECONFIG)", listed.display());
            (what, read.unwrap_or_else(Kubeconfig::read))
        }
    }
}

fn unknown_context(name: &str, kubeconfig: &Kubeconfig) -> String {
    let known: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
    if known.is_empty() {
        return "it holds no context".to_owned();
    }
    if name.is_empty() {
        return format!("no current context is set; name one of: {}", known.join(", "));
    }
    let nearest = known
        .iter()
        .max_by(|one, other| strsim::jaro_winkler(name, one).total_cmp(&strsim::jaro_winkler(name, other)));
    match nearest {
        Some(nearest) if strsim::jaro_winkler(name, nearest) > 0.7 => {
            format!("there is no context {name:?}; did you mean {nearest:?}?")
        }
        _ => format!("there is no context {name:?}; there are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_kubeconfigs_listed_those_that_are_there_are_read() {
        let folder = std::env::temp_dir().join(format!("postern-kubeconfigs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (there, missing) = (folder.join("there"), folder.join("missing"));
        std::fs::write(&there, "current-context: mine").unwrap();
        let listed = std::env::join_paths([&missing, &there]).unwrap();
        let (what, read) = read_usual(Some(&listed));
        assert_eq!(read.unwrap().current_context.as_deref(), Some("mine"));
        assert!(what.contains("missing") && what.contains("$KUBECONFIG"), "{what}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
