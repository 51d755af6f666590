//! Providers of short-lived credentials, by name.
//!
//! The types are flat so that serde can report line and column of errors (it loses both inside a tagged
//! enum). Which keys belong together is checked afterwards.

mod source;
mod validate;

pub use source::{
    AssertionKind, ClientAssertion, DEFAULT_TOKEN_PATH, SecretSource, SigningAlgorithm, SourceKind,
    TokenSource,
};
pub(crate) use validate::name;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The protocol or cloud.
    pub r#type: ProviderType,
    /// oauth2: the authorization server; its metadata names the endpoints (RFC 8414, `OpenID` Connect Discovery 1.0).
    pub issuer: Option<String>,
    /// oauth2: the token endpoint; disables discovery.
    pub token_endpoint: Option<String>,
    /// oauth2: the authorization endpoint of `authorization_code`.
    pub authorization_endpoint: Option<String>,
    /// oauth2: the device authorization endpoint of `device_code` (RFC 8628).
    pub device_authorization_endpoint: Option<String>,
    /// oauth2, azure: the client.
    pub client_id: Option<String>,
    /// oauth2: the source of the client's secret; never the secret itself.
    pub client_secret: Option<SecretSource>,
    /// oauth2: a signed assertion instead of a secret (RFC 7523 section 2.2).
    pub client_assertion: Option<ClientAssertion>,
    /// oauth2: the grant.
    pub grant: Option<Grant>,
    /// oauth2, azure, gcp: the scopes of the token.
    #[serde(default, deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany")]
    pub scopes: Vec<String>,
    /// oauth2: the audience of the token (RFC 8693 section 2.1); may repeat.
    #[serde(default, deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany")]
    pub audience: Vec<String>,
    /// oauth2: the resource for which the token will be used (RFC 8707); may repeat.
    #[serde(default, deserialize_with = "one_or_many")]
    #[schemars(with = "OneOrMany")]
    pub resource: Vec<String>,
    /// oauth2: additional parameters of the token request.
    #[serde(default)]
    pub extra_params: BTreeMap<String, String>,
    /// The token to exchange. By default the pod's, at the default path.
    pub subject_token: Option<TokenSource>,
    /// oauth2, `token_exchange`: the type of the subject token; by default a JWT.
    pub subject_token_type: Option<String>,
    /// oauth2, `token_exchange`: the token of the party that acts for the subject.
    pub actor_token: Option<TokenSource>,
    /// oauth2, `token_exchange`: the type of the actor token; by default a JWT.
    pub actor_token_type: Option<String>,
    /// oauth2, `token_exchange`: the requested token type; by default the server's choice, which must be an
    /// access token.
    pub requested_token_type: Option<String>,
    /// A file of PEM certificates to trust for the provider, instead of the platform's.
    pub ca_file: Option<PathBuf>,
    /// Where tokens are cached: `memory` by default, `disk` for those that a person logged in for.
    pub cache: Option<Cache>,
    /// The API that accepts the token, for `identity proxy`.
    pub api: Option<Api>,
    /// ibm: the trusted profile, by id (`Profile-…`) or name.
    pub profile: Option<String>,
    /// aws: the role.
    pub role_arn: Option<String>,
    /// aws: the region of the STS endpoint, such as `eu-central-1`.
    pub region: Option<String>,
    /// aws: the session name; by default the name of the `ServiceAccount`.
    pub session_name: Option<String>,
    /// aws, gcp: the lifetime of credentials, such as `1h`.
    pub lifetime: Option<String>,
    /// aws: roles to assume in order, each with the credentials of the previous one.
    #[serde(default)]
    pub chain: Vec<AssumeRole>,
    /// gcp: the pool's provider, `projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`.
    pub workload_identity_provider: Option<String>,
    /// gcp: the service account to impersonate.
    pub service_account: Option<String>,
    /// azure: the tenant.
    pub tenant_id: Option<String>,
    /// ibm, aws, gcp, azure: the provider's address, if not the public one.
    pub endpoint: Option<String>,
    /// gcp: the address of the IAM credentials API, if not the public one.
    pub impersonation_endpoint: Option<String>,
}

/// The protocol or cloud of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderType {
    /// OAuth 2.0.
    Oauth2,
    /// IBM Cloud IAM.
    Ibm,
    /// AWS STS.
    Aws,
    /// Google Cloud workload identity federation.
    Gcp,
    /// Microsoft Entra ID workload identity federation.
    Azure,
}

impl ProviderType {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Oauth2 => "oauth2",
            Self::Ibm => "ibm",
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Azure => "azure",
        }
    }

    /// The default audience that the provider expects in a subject token.
    pub fn default_audience(self) -> Option<&'static str> {
        match self {
            Self::Oauth2 | Self::Gcp => None,
            Self::Ibm => Some("iam"),
            Self::Aws => Some("sts.amazonaws.com"),
            Self::Azure => Some("api://AzureADTokenExchange"),
        }
    }
}

/// How a token is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// RFC 7523 section 2.1: the subject token is the grant.
    JwtBearer,
    /// RFC 8693.
    TokenExchange,
    /// RFC 6749 section 4.4, with a secret or an assertion.
    ClientCredentials,
    /// RFC 8628, for people.
    DeviceCode,
    /// RFC 6749 section 4.1 with PKCE (RFC 7636), for people.
    AuthorizationCode,
}

impl Grant {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::JwtBearer => "jwt_bearer",
            Self::TokenExchange => "token_exchange",
            Self::ClientCredentials => "client_credentials",
            Self::DeviceCode => "device_code",
            Self::AuthorizationCode => "authorization_code",
        }
    }

    /// Whether it requires a person.
    pub fn is_interactive(self) -> bool {
        matches!(self, Self::DeviceCode | Self::AuthorizationCode)
    }

    /// Whether it exchanges a subject token.
    pub fn takes_subject(self) -> bool {
        matches!(self, Self::JwtBearer | Self::TokenExchange)
    }
}

/// Where tokens are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// In the memory of the process.
    Memory,
    /// Also below `$XDG_CACHE_HOME/postern/identity`, for every process of this user.
    Disk,
}

/// The API that accepts a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Its base URL, such as `https://api.example.com/v1`.
    pub base_url: String,
    /// A file of PEM certificates to trust for it, instead of the platform's.
    pub ca_file: Option<PathBuf>,
}

/// A role to assume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssumeRole {
    /// The role.
    pub role_arn: String,
    /// The external id that the role's owner requires.
    pub external_id: Option<String>,
    /// The session's name, by default that of the first role.
    pub session_name: Option<String>,
}

impl Provider {
    /// The grant of an oauth2 provider.
    pub fn grant(&self) -> Option<Grant> {
        self.grant.filter(|_| self.r#type == ProviderType::Oauth2)
    }

    /// The token that is exchanged, if any.
    pub fn subject(&self) -> Option<TokenSource> {
        let takes = self.grant().is_none_or(Grant::takes_subject);
        takes.then(|| self.subject_token.clone().unwrap_or_default())
    }

    /// Where its tokens are cached.
    pub fn cache(&self) -> Cache {
        let by_person = self.grant().is_some_and(Grant::is_interactive);
        self.cache.unwrap_or(if by_person { Cache::Disk } else { Cache::Memory })
    }
}

/// For the schema: one string or several.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "its schema is used")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_str<E: serde::de::Error>(self, one: &str) -> Result<Self::Value, E> {
            Ok(vec![one.to_owned()])
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut many: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(next) = many.next_element()? {
                all.push(next);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(Visitor)
}
