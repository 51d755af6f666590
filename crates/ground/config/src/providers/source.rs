//! Where tokens, secrets and signatures come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where a projected token is mounted unless the configuration says otherwise.
pub const DEFAULT_TOKEN_PATH: &str = "/var/run/secrets/tokens/oauth2/token";

/// A token that somebody else issued. It is read at every exchange and never kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSource {
    /// What kind of source.
    pub r#type: SourceKind,
    /// `kubernetes_sa`, file: the file.
    pub path: Option<PathBuf>,
    /// env: the variable.
    pub name: Option<String>,
    /// The audience the token must have; `github_actions` and `token_request` ask for it.
    pub audience: Option<String>,
    /// `token_request`: the `ServiceAccount`'s namespace, by default the context's.
    pub namespace: Option<String>,
    /// `token_request`: the `ServiceAccount`.
    pub service_account: Option<String>,
    /// `token_request`: how long the token lives, at least 10m.
    pub lifetime: Option<String>,
}

/// What kind of source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A projected `ServiceAccount` token, kept fresh by the kubelet.
    #[default]
    KubernetesSa,
    /// Any file.
    File,
    /// A variable of the environment.
    Env,
    /// GitHub's token service, within a workflow with `id-token: write`.
    GithubActions,
    /// The API server's `TokenRequest`, for use outside pods.
    TokenRequest,
}

impl SourceKind {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::KubernetesSa => "kubernetes_sa",
            Self::File => "file",
            Self::Env => "env",
            Self::GithubActions => "github_actions",
            Self::TokenRequest => "token_request",
        }
    }
}

/// Where a secret is. One of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// The file that holds it; a final newline is not part of it.
    pub file: Option<PathBuf>,
    /// The variable that holds it.
    pub env: Option<String>,
}

/// A client's statement about itself: somebody else's token, or one that it signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAssertion {
    /// What kind.
    pub r#type: AssertionKind,
    /// `kubernetes_sa`, file: the file.
    pub path: Option<PathBuf>,
    /// env: the variable.
    pub name: Option<String>,
    /// The audience it must have, or is given by `private_key_jwt` (by default the token endpoint).
    pub audience: Option<String>,
    /// `token_request`: the `ServiceAccount`'s namespace, by default the context's.
    pub namespace: Option<String>,
    /// `token_request`: the `ServiceAccount`.
    pub service_account: Option<String>,
    /// `token_request`: how long the token lives, at least 10m.
    pub lifetime: Option<String>,
    /// `private_key_jwt`: the PEM file of the private key.
    pub key_file: Option<PathBuf>,
    /// `private_key_jwt`: how the server knows the key (`kid`).
    pub key_id: Option<String>,
    /// `private_key_jwt`: how it signs; by default as the key suggests.
    pub algorithm: Option<SigningAlgorithm>,
}

/// What kind of client assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AssertionKind {
    /// A projected `ServiceAccount` token.
    KubernetesSa,
    /// Any file.
    File,
    /// A variable of the environment.
    Env,
    /// GitHub's token service.
    GithubActions,
    /// The API server's `TokenRequest`.
    TokenRequest,
    /// Signed here, with a key of the client's (`OpenID` Connect Core 1.0 section 9).
    PrivateKeyJwt,
}

/// How an assertion is signed (RFC 7518 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SigningAlgorithm {
    /// RSA PKCS #1 with SHA-256.
    RS256,
    /// RSA PSS with SHA-256.
    PS256,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl ClientAssertion {
    /// The token source, where it is somebody else's token.
    pub fn source(&self) -> Option<TokenSource> {
        let Self {
            r#type,
            path,
            name,
            audience,
            namespace,
            service_account,
            lifetime,
            key_file: _,
            key_id: _,
            algorithm: _,
        } = self;
        let r#type = match r#type {
            AssertionKind::KubernetesSa => SourceKind::KubernetesSa,
            AssertionKind::File => SourceKind::File,
            AssertionKind::Env => SourceKind::Env,
            AssertionKind::GithubActions => SourceKind::GithubActions,
            AssertionKind::TokenRequest => SourceKind::TokenRequest,
            AssertionKind::PrivateKeyJwt => return None,
        };
        Some(TokenSource {
            r#type,
            path: path.clone(),
            name: name.clone(),
            audience: audience.clone(),
            namespace: namespace.clone(),
            service_account: service_account.clone(),
            lifetime: lifetime.clone(),
        })
    }
}
