//! The OS keychain.

use crate::resolve::KeychainAnswer;

/// Looks a credential up.
#[cfg(not(feature = "keychain"))]
pub fn look_up(_: &str) -> KeychainAnswer {
    KeychainAnswer::Unavailable("this build has no keychain support".to_owned())
}
