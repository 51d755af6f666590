//! Runs the SDK's requests on our own connections, with our resolver, proxies, trust and limits, as for every
//! other server.

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

/// How long a server may take to start its answer after it has received the request. Completing an upload of
/// thousands of parts takes some servers a minute.
const ANSWER: Duration = Duration::from_secs(120);

/// The assumed minimum bandwidth in bytes per second, from which the timeout of a request's body is computed.
const SLOW: u64 = 16 * 1024;

/// How long a server may accept no data while there is some.
const STALL: Duration = Duration::from_secs(60);

/// Connections to the servers that the SDK names.
#[derive(Clone)]
pub(crate) struct Connections {
    /// Trusted certificates, instead of the platform's.
    certificates: Option<Vec<Vec<u8>>>,
    /// Origins that the user explicitly named with `http://`.
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
        // HTTP/2 would put all parts on one connection. S3 does not support it, and other servers are slower
        // with it.
        let connect = match self.clear.contains(&origin) || is_link_local(&origin) {
            true => client::client_without_tls,
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

/// The same with the timeout that a client of the SDK sets: it is short for the instance metadata service.
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

/// Services that provide credentials to a cloud's machines and containers, and do not support TLS
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
