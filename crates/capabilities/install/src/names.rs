//! Names of objects.

/// The name of the controller's objects.
pub const NAME: &str = "postern-controller";
/// The name of the webhook configuration, and of the Secret with the certificate.
pub const WEBHOOK: &str = "postern-webhook";
