//! Documents of the API server that are not objects.

use crate::connect::Cluster;
use crate::error::KubeError;

/// Returns the body at a path.
pub async fn get(cluster: &Cluster, path: &str) -> Result<Vec<u8>, KubeError> {
    let attempt = || format!("reading {path}");
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| cluster.error(attempt(), &kube::Error::HttpError(error)))?;
    let text =
        cluster.client.request_text(request).await.map_err(|error| cluster.error(attempt(), &error))?;
    Ok(text.into_bytes())
}
