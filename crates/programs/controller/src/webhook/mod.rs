//! The admission webhook.

pub(crate) mod review;
pub(crate) mod server;
