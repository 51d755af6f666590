//! Secret values, the chain that resolves them, and their redaction from streams. Independent of Kubernetes.

pub mod credential;
mod encodings;
#[cfg(feature = "resolve")]
pub mod keychain;
pub mod redact;
#[cfg(feature = "resolve")]
pub mod resolve;
mod value;

pub use value::{MIN_SECRET_BYTES, Secret, TooShort};
