//! The parsers of untrusted bytes, for the fuzz targets only.

use crate::exchange::{sts_answer, token_answer};
use crate::jwt;
use crate::keeper::kept_file;

/// Passes the bytes to each parser; a result must be usable, and an error must have a reason.
pub fn all(bytes: &[u8]) {
    if let Ok(issued) = token_answer(bytes) {
        assert!(issued.lifetime.is_none_or(|life| !life.is_zero()));
        assert!(issued.credential.bearer().is_some_and(|bearer| !bearer.access_token.is_empty()));
    }
    if let Err(why) = sts_answer(bytes) {
        assert!(!why.is_empty());
    }
    if let Err(why) = kept_file(bytes) {
        assert!(!why.is_empty());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = jwt::decode(text);
        crate::proxy::climbs(text);
    }
}
