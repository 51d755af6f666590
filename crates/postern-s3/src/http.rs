//! The SDK's requests by our own connections: our resolver, proxies, trust and limits, as for every other server.

use aws_sdk_s3::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use postern_kube::upstream::{self, Upstream, Versions};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a server may take to begin its answer. Completing an upload of thousands of parts takes minutes, and S3 says
/// so by whitespace that it begins with.
const ANSWER: Duration = Duration::from_secs(60);

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
            true => upstream::client_in_the_clear,
            false => upstream::client,
        };
        let client = connect(&origin, self.certificates.clone(), Versions::Upgradable)
            .map_err(|error| ConnectorError::user(error.into()))?;
        clients.insert(origin, client.clone());
        Ok(client)
    }

    async fn send(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let uri = request.uri();
        let origin = format!(
            "{}://{}",
            uri.scheme_str().unwrap_or("https"),
            uri.authority().map(::http::uri::Authority::as_str).unwrap_or_default()
        );
        let client = self.client(origin)?;
        let answer = match tokio::time::timeout(ANSWER, client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(ConnectorError::io(error.into())),
            Err(elapsed) => return Err(ConnectorError::timeout(elapsed.into())),
        };
        HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
            .map_err(|error| ConnectorError::other(error.into(), None))
    }
}

impl HttpConnector for Connections {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().send(request))
    }
}

impl HttpClient for Connections {
    fn http_connector(
        &self,
        _settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
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
