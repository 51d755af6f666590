//! Sources of tokens, secrets and signatures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The default mount path of a projected token.
pub const DEFAULT_TOKEN_PATH: &str = "/var/run/secrets/tokens/oauth2/token";

/// A token from another issuer. It is read for every exchange and never stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSource {
    /// The type of the source.
    pub r#type: SourceKind,
    /// `kubernetes_sa`, file: the file.
    pub path: Option<PathBuf>,
    /// env: the variable.
    pub name: Option<String>,
    /// The audience of the token; `github_actions` and `token_request` request it.
    pub audience: Option<String>,
    /// `token_request`: the namespace of the `ServiceAccount`; by default the context's.
    pub namespace: Option<String>,
    /// `token_request`: the `ServiceAccount`.
    pub service_account: Option<String>,
    /// `token_request`: the lifetime of the token, at least 10m.
    pub lifetime: Option<String>,
}

/// The type of a token source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// A projected `ServiceAccount` token, refreshed by the kubelet.
    #[default]
    KubernetesSa,
    /// Any file.
    File,
    /// An environment variable.
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

/// The source of a secret: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// The file with the secret; a trailing newline is removed.
    pub file: Option<PathBuf>,
    /// The variable with the secret.
    pub env: Option<String>,
}

/// A client assertion: a token from another issuer, or one that is signed here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAssertion {
    /// The type of the assertion.
    pub r#type: AssertionKind,
    /// `kubernetes_sa`, file: the file.
    pub path: Option<PathBuf>,
    /// env: the variable.
    pub name: Option<String>,
    /// The audience that the token must have, or that `private_key_jwt` sets (by default the token endpoint).
    pub audience: Option<String>,
    /// `token_request`: the namespace of the `ServiceAccount`; by default the context's.
    pub namespace: Option<String>,
    /// `token_request`: the `ServiceAccount`.
    pub service_account: Option<String>,
    /// `token_request`: the lifetime of the token, at least 10m.
    pub lifetime: Option<String>,
    /// `private_key_jwt`: the PEM file of the private key.
    pub key_file: Option<PathBuf>,
    /// `private_key_jwt`: the id of the key (`kid`).
    pub key_id: Option<String>,
    /// `private_key_jwt`: the signing algorithm; by default derived from the key.
    pub algorithm: Option<SigningAlgorithm>,
}

/// The type of a client assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AssertionKind {
    /// A projected `ServiceAccount` token.
    KubernetesSa,
    /// Any file.
    File,
    /// An environment variable.
    Env,
    /// GitHub's token service.
    GithubActions,
    /// The API server's `TokenRequest`.
    TokenRequest,
    /// Signed here, with the client's key (`OpenID` Connect Core 1.0 section 9).
    PrivateKeyJwt,
}

/// The signing algorithm of an assertion (RFC 7518 section 3.1).
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
    /// The token source, if the token is from another issuer.
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
