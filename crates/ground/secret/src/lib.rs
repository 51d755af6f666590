//! Secret values, the chain that resolves them, and their redaction from streams. Knows nothing of Kubernetes.

pub mod credential;
mod forms;
#[cfg(feature = "resolve")]
pub mod keychain;
pub mod redact;
#[cfg(feature = "resolve")]
pub mod resolve;
mod value;

pub use value::{MIN_SECRET_BYTES, Secret, TooShort};
