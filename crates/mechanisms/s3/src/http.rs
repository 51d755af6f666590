//! The SDK's requests by our own connections: our resolver, proxies, trust and limits, as for every other server.

use aws_sdk_s3::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use postern_net::client::{self, Upstream, Versions};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a server may take to begin its answer once it has the request. Completing an upload of thousands of parts takes
/// some servers a minute.
const ANSWER: Duration = Duration::from_secs(120);

/// Bytes in a second that a link is taken to carry at least: a request's body may take as long as that comes to.
const SLOW: u64 = 16 * 1024;

/// How long a server may take nothing of what there is for it.
const STALL: Duration = Duration::from_secs(60);

/// Connections to whatever servers the SDK names.
#[derive(Clone)]
pub(crate) struct Connections {
    /// Who vouches for them, where not the platform.
    certificates: Option<Vec<Vec<u8>>>,
    /// Origins that the user named with `http://`.
    clear: Vec<String>,
    clients: Arc<Mutex<HashMap<String, Upstream<SdkBody>>>>,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connections")
    }
}

impl Connections {
    pub(crate) fn shared(certificates: Option<Vec<Vec<u8>>>, clear: Vec<String>) -> SharedHttpClient {
        SharedHttpClient::new(Self { certificates, clear, clients: Arc::default() })
    }

    fn client(&self, origin: String) -> Result<Upstream<SdkBody>, ConnectorError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&origin) {
            return Ok(client.clone());
        }
        // HTTP/2 would put all parts on one connection, which S3 does not offer and others serve slower.
        let connect = match self.clear.contains(&origin) || is_link_local(&origin) {
            true => client::client_in_the_clear,
            false => client::client,
        };
        let client = connect(&origin, self.certificates.clone(), Versions::Upgradable, Some(STALL))
            .map_err(|error| ConnectorError::user(error.into()))?;
        clients.insert(origin, client.clone());
        Ok(client)
    }

    async fn send(self, request: HttpRequest, answer: Duration) -> Result<HttpResponse, ConnectorError> {
        let body = request.body().content_length().unwrap_or_default();
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let uri = request.uri();
        let origin = format!(
            "{}://{}",
            uri.scheme_str().unwrap_or("https"),
            uri.authority().map(::http::uri::Authority::as_str).unwrap_or_default()
        );
        let client = self.client(origin)?;
        let limit = answer + Duration::from_secs(body / SLOW);
        let answer = match tokio::time::timeout(limit, client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(ConnectorError::io(error.into())),
            Err(elapsed) => return Err(ConnectorError::timeout(elapsed.into())),
        };
        HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
            .map_err(|error| ConnectorError::other(error.into(), None))
    }
}

/// The same with the patience that a client of the SDK asks for: that of a machine's metadata has little.
#[derive(Debug)]
struct Connector {
    connections: Connections,
    answer: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { connections, answer } = self;
        HttpConnectorFuture::new(connections.clone().send(request, *answer))
    }
}

impl HttpClient for Connections {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connect = settings.connect_timeout().unwrap_or_default();
        let answer = settings.read_timeout().map_or(ANSWER, |read| connect + read);
        SharedHttpConnector::new(Connector { connections: self.clone(), answer })
    }
}

/// The services that a cloud gives its machines and containers keys by, which speak no TLS
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>).
fn is_link_local(origin: &str) -> bool {
    [
        "http://169.254.169.254",
        "http://169.254.170.2",
        "http://169.254.170.23",
        "http://[fd00:ec2::254]",
        "http://[fd00:ec2::23]",
    ]
    .contains(&origin)
}
