//! What is asked of registries, and what they say.

use std::fmt;

/// A user name and a password. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Login {
    /// The user name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, password: _ } = self;
        f.debug_struct("Login").field("user", user).finish_non_exhaustive()
    }
}

/// An image, and the credentials that the kubelet would try, in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// The image, as it is written.
    pub image: String,
    /// The credentials; none for a request without.
    pub logins: Vec<Login>,
}

/// What a registry says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It can be pulled.
    Found,
    /// The credential is refused, or is not enough.
    Denied(String),
    /// There is no such image.
    NotFound,
    /// The registry cannot be asked.
    Unreachable(String),
    /// The name cannot be read.
    Invalid(String),
}
