//! Routes requests to APIs.

use super::body::ForwardedBody;
use super::counters::Counters;
use super::response::{Problem, sanitized};
use crate::exchange::Exchanger;
use crate::keeper::Keeper;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{StatusCode, Uri};
use postern_config::providers::Api;
use postern_net::client::{self, Upstream, Versions};
use postern_net::error::WebError;
use postern_net::tls;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The proxy's own paths.
pub(super) const OWN: [&str; 4] = ["healthz", "readyz", "metrics", "aws-credentials"];

/// The APIs cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// The name of a provider is one of the proxy's own paths.
    #[error("providers.{0}: this name is a path of the proxy's own; rename the provider")]
    Reserved(String),
    /// An invalid address.
    #[error("providers.{name}.api.base_url")]
    Address {
        /// The provider.
        name: String,
        /// The reason.
        source: WebError,
    },
    /// The certificates cannot be read.
    #[error("providers.{name}.api.ca_file: {why}")]
    Certificates {
        /// The provider.
        name: String,
        /// The reason.
        why: String,
    },
}

/// One API.
pub struct Route {
    pub(super) keeper: Arc<Keeper<Exchanger>>,
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// Without a trailing '/'.
    pub(super) base: String,
    pub(super) client: Upstream<ForwardedBody>,
    pub(super) upgradable: Upstream<ForwardedBody>,
    pub(super) counters: Arc<Counters>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("name", &self.keeper.name()).finish_non_exhaustive()
    }
}

impl Route {
    /// Whether an answer of the API, or an upgraded connection, is still open.
    pub(super) fn is_busy(&self) -> bool {
        self.counters.open.load(Ordering::Relaxed) > 0
    }

    fn new(keeper: Arc<Keeper<Exchanger>>, api: &Api) -> Result<Self, RoutesError> {
        let name = || keeper.name().to_owned();
        let Api { base_url, ca_file } = api;
        let certificates = match ca_file {
            None => None,
            Some(path) => {
                let read = std::fs::read(path).map_err(|error| error.to_string());
                let read = read.and_then(|pem| tls::certificates(&pem));
                Some(read.map_err(|why| RoutesError::Certificates {
                    name: name(),
                    why: format!("{}: {why}", path.display()),
                })?)
            }
        };
        let failed = |source| RoutesError::Address { name: name(), source };
        let client =
            client::client(base_url, certificates.clone(), Versions::Newest, None).map_err(failed)?;
        // Without TLS it is HTTP/1.1 in any case.
        let upgradable = match base_url.starts_with("https://") {
            true => client::client(base_url, certificates, Versions::Upgradable, None).map_err(failed)?,
            false => client.clone(),
        };
        let uri: Uri = base_url.parse().unwrap_or_default();
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            let why = "not a URL".to_owned();
            return Err(failed(WebError::Address { address: base_url.clone(), why }));
        };
        let base = parts.path_and_query.map(|path| path.path().trim_end_matches('/').to_owned());
        let base = base.unwrap_or_default();
        Ok(Self { keeper, scheme, authority, base, client, upgradable, counters: Arc::default() })
    }

    /// The provider's name.
    pub fn name(&self) -> &str {
        self.keeper.name()
    }

    /// The API's address.
    pub fn address(&self) -> String {
        format!("{}://{}{}/", self.scheme, self.authority, self.base)
    }

    /// Returns the response for an API that does not answer.
    pub(super) fn did_not_answer(&self, why: &str) -> Problem {
        let message = format!("{} did not answer: {why}", self.authority);
        Problem { status: StatusCode::BAD_GATEWAY, message, hint: None, again: false }
    }

    /// Returns the URI of a request at the API.
    pub(super) fn uri(&self, rest: &str) -> Option<Uri> {
        let path: PathAndQuery = match (self.base.as_str(), rest) {
            ("", rest) => rest.parse().ok()?,
            (base, rest) => format!("{base}{rest}").parse().ok()?,
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .ok()
    }

    fn is_at(&self, host: &str) -> bool {
        let port = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        let Ok(asked) = host.parse::<Authority>() else { return false };
        asked.host().eq_ignore_ascii_case(self.authority.host())
            // A client that was given a proxy for http:// requests port 80 of an API at port 443.
            && asked.port_u16().is_none_or(|found| found == self.authority.port_u16().unwrap_or(port))
    }
}

/// All APIs.
#[derive(Debug)]
pub struct Routes(Vec<Arc<Route>>);

/// The target of a request.
#[derive(Debug)]
pub(super) enum RouteTarget<'a> {
    /// An API, at this path and query below its base.
    Api(&'a Arc<Route>, String),
    /// One of the proxy's own paths.
    Own(&'a str),
    /// Nothing is served there.
    Nothing(StatusCode, String),
}

impl Routes {
    /// Returns one route for each provider that has an API.
    pub fn new(keepers: &[Arc<Keeper<Exchanger>>]) -> Result<Self, RoutesError> {
        let mut routes = Vec::new();
        for keeper in keepers {
            if OWN.contains(&keeper.name()) {
                return Err(RoutesError::Reserved(keeper.name().to_owned()));
            }
            if let Some(api) = &keeper.exchanger().provider.api {
                routes.push(Arc::new(Route::new(keeper.clone(), api)?));
            }
        }
        Ok(Self(routes))
    }

    /// Returns no routes.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Returns all routes.
    pub fn all(&self) -> &[Arc<Route>] {
        &self.0
    }

    /// Finds the route of a request. `host` is its `Host` header; `ours` returns whether a host is this proxy itself.
    pub(super) fn find<'a>(
        &'a self,
        uri: &'a Uri,
        host: Option<&str>,
        ours: impl Fn(&str) -> bool,
    ) -> RouteTarget<'a> {
        let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if climbs(uri.path()) {
            let why = "the path holds '.' or '..' segments: the API could read it as another path".to_owned();
            return RouteTarget::Nothing(StatusCode::BAD_REQUEST, why);
        }
        // An absolute target has precedence over Host (RFC 9112 section 3.2.2).
        match uri.authority().map(Authority::as_str).or(host) {
            Some(host) if !ours(host) => self.by_host(host, uri.path(), whole),
            Some(_) => self.by_prefix(uri, whole),
            None => RouteTarget::Nothing(StatusCode::BAD_REQUEST, "the request has no Host".to_owned()),
        }
    }

    fn by_host(&self, host: &str, path: &str, whole: &str) -> RouteTarget<'_> {
        let at: Vec<_> = self.0.iter().filter(|route| route.is_at(host)).collect();
        if at.is_empty() {
            let why = format!("no provider in the config has an API at {}", sanitized(host));
            return RouteTarget::Nothing(StatusCode::FORBIDDEN, why);
        }
        let below = |route: &&&Arc<Route>| {
            path.strip_prefix(route.base.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let longest = at.iter().filter(below).map(|route| route.base.len()).max();
        let mut best = at.iter().filter(below).filter(|route| Some(route.base.len()) == longest);
        match (best.next(), best.next()) {
            (Some(route), None) => {
                let rest = &whole[route.base.len()..];
                let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
                RouteTarget::Api(route, rest)
            }
            (Some(_), Some(_)) => RouteTarget::Nothing(
                StatusCode::CONFLICT,
                "several providers have this API: ask by their names, as in /PROVIDER/…".to_owned(),
            ),
            _ => {
                let why = "the path is not below a base_url of the config".to_owned();
                RouteTarget::Nothing(StatusCode::FORBIDDEN, why)
            }
        }
    }

    fn by_prefix<'a>(&'a self, uri: &'a Uri, whole: &str) -> RouteTarget<'a> {
        let path = uri.path().trim_start_matches('/');
        let first = path.split('/').next().unwrap_or_default();
        if OWN.contains(&first) {
            return RouteTarget::Own(path);
        }
        match self.0.iter().find(|route| route.name() == first) {
            Some(route) => {
                let rest = &whole[whole.find(first).unwrap_or_default() + first.len()..];
                let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
                RouteTarget::Api(route, rest)
            }
            None => {
                let known: Vec<_> = self.0.iter().map(|route| format!("/{}/", route.name())).collect();
                let why = format!("there is no such path; there are: {}", known.join(", "));
                RouteTarget::Nothing(StatusCode::NOT_FOUND, why)
            }
        }
    }
}

/// Whether a path has `.` or `..` segments, plain or percent-encoded.
pub(crate) fn climbs(path: &str) -> bool {
    // Nearly all paths.
    if !path.bytes().any(|byte| matches!(byte, b'.' | b'%')) {
        return false;
    }
    // Decoded first and then split, as the most tolerant parser would do.
    let plain = path.to_ascii_lowercase().replace("%2f", "/").replace("%5c", "/").replace("%2e", ".");
    plain.split(['/', '\\']).any(|segment| {
        let name = segment.split([';', '%']).next().unwrap_or_default();
        name == "." || name == ".."
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Listener, Person};
    use crate::keeper::SystemClock;
    use postern_kube::Target;
    use serde_json::json;

    fn routes(apis: &[(&str, &str)]) -> Result<Routes, RoutesError> {
        let listener = Listener(Arc::new(|_| ()));
        let keepers: Vec<_> = apis
            .iter()
            .map(|(name, url)| {
                let provider = serde_json::from_value(json!({
                    "type": "oauth2", "token_endpoint": "https://as/token", "grant": "jwt_bearer",
                    "api": {"base_url": url},
                }));
                let exchanger = Exchanger {
                    name: (*name).to_owned(),
                    provider: provider.unwrap(),
                    cluster: Target::default(),
                    person: Person::Nobody("a test"),
                    listener: listener.clone(),
                };
                Keeper::new(name, exchanger, None, Arc::new(SystemClock::new()), listener.clone())
            })
            .collect();
        Routes::new(&keepers)
    }

    fn find(routes: &Routes, target: &str, host: &str) -> String {
        let uri: Uri = target.parse().unwrap();
        match routes.find(&uri, Some(host), |host| host == "127.0.0.1:8080") {
            RouteTarget::Api(route, rest) => route.uri(&rest).unwrap().to_string(),
            RouteTarget::Own(path) => format!("own {path}"),
            RouteTarget::Nothing(status, _) => status.as_u16().to_string(),
        }
    }

    #[tokio::test]
    async fn requests_go_to_configured_apis_and_nowhere_else() {
        let routes = routes(&[
            ("reports", "https://api.example.com/v1"),
            ("admin", "https://api.example.com/v1/admin/"),
            ("other", "https://other.example.com"),
            ("twin", "https://other.example.com"),
        ])
        .unwrap();
        let ours = "127.0.0.1:8080";
        for (target, host, want) in [
            ("/reports/items?a=1", ours, "https://api.example.com/v1/items?a=1"),
            ("/reports", ours, "https://api.example.com/v1/"),
            ("/reports?x", ours, "https://api.example.com/v1/?x"),
            ("/other/reports/1", ours, "https://other.example.com/reports/1"),
            ("/reportsx/items", ours, "404"),
            ("/", ours, "404"),
            ("/healthz", ours, "own healthz"),
            // By the API's own host, below its base, the longest first.
            ("/v1/items", "api.example.com", "https://api.example.com/v1/items"),
            ("/v1/admin/x", "API.example.com:443", "https://api.example.com/v1/admin/x"),
            ("http://api.example.com/v1/items", ours, "https://api.example.com/v1/items"),
            ("/v2/items", "api.example.com", "403"),
            ("/v1x", "api.example.com", "403"),
            ("/v1/items", "api.example.com:444", "403"),
            ("/x", "other.example.com", "409"),
            // Nothing that is not configured, wherever the host is given.
            ("http://169.254.169.254/latest", ours, "403"),
            ("/reports/items", "evil.example.com", "403"),
            ("http://api.example.com.evil.com/v1/x", ours, "403"),
            // Nothing that an API could parse as another path.
            ("/reports/../../admin", ours, "400"),
            ("/reports/%2e%2E/x", ours, "400"),
            ("/reports/..;/x", ours, "400"),
            ("/reports/..%2fx", ours, "400"),
            ("/reports/x%2f..%2F..%2fadmin", ours, "400"),
            ("/reports/%5c..%5cadmin", ours, "400"),
            ("/reports/...", ours, "https://api.example.com/v1/..."),
        ] {
            assert_eq!(find(&routes, target, host), want, "{target} at {host}");
        }
    }

    #[tokio::test]
    async fn a_name_of_ours_is_no_providers() {
        assert!(matches!(routes(&[("metrics", "https://a.b")]), Err(RoutesError::Reserved(_))));
        assert!(matches!(routes(&[("x", "http://a.b")]), Err(RoutesError::Address { .. })));
    }
}
