//! A proxy on loopback that adds the `Authorization` header. Clients need no change, get fresh tokens, and never see
//! them.
//!
//! Requests are routed by a path prefix (`/PROVIDER/…`) or by the API's own host, and only to configured APIs. Bodies
//! stream both ways; HTTP/1.1, HTTP/2 and upgrades (WebSocket) are supported.

mod body;
mod counters;
mod first_bytes;
mod forward;
mod headers;
mod metrics;
mod response;
mod route;
mod serve;

pub use metrics::Metrics;
pub(crate) use route::climbs;
pub use route::{Route, Routes, RoutesError};
pub use serve::{Endpoint, Proxy, serve_aws_only};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

/// Returns a random secret; `None` on a machine without randomness.
pub fn random_secret() -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut *bytes).ok()?;
    Some(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)))
}
