//! Checks which keys belong together.

use super::{
    Api, AssertionKind, AssumeRole, ClientAssertion, Grant, Provider, ProviderType, SecretSource, SourceKind,
    TokenSource,
};
use crate::parse_duration;
use std::time::Duration;

/// The key below the provider, and the problem and its fix.
type InvalidKey = (String, String);

fn invalid<T>(key: &str, why: impl Into<String>) -> Result<T, InvalidKey> {
    Err((key.to_owned(), why.into()))
}

/// A name is part of messages, headers, paths of the proxy and labels of metrics.
pub(crate) fn name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fine = (1..=63).contains(&name.len())
        && name.bytes().all(allowed)
        && name.as_bytes()[0].is_ascii_alphanumeric();
    match fine {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is not a provider name: use 1 to 63 letters, digits, '-', '_' and '.', a letter or digit first"
        )),
    }
}

impl Provider {
    /// Finds keys that contradict each other or require another key.
    pub(crate) fn validate(&self) -> Result<(), InvalidKey> {
        self.check_keys_of_type()?;
        match self.r#type {
            ProviderType::Oauth2 => self.oauth2()?,
            ProviderType::Ibm => self.require("profile", self.profile.is_some())?,
            ProviderType::Aws => self.aws()?,
            ProviderType::Gcp => self.gcp()?,
            ProviderType::Azure => {
                self.require("tenant_id", self.tenant_id.is_some())?;
                self.require("client_id", self.client_id.is_some())?;
            }
        }
        if let Some(text) = &self.lifetime {
            // The minimum of AWS is 15 minutes; Google's own libraries request at least 10.
            let least = Duration::from_secs(if self.r#type == ProviderType::Aws { 900 } else { 600 });
            lifetime("lifetime", text, least, Duration::from_secs(12 * 3600))?;
        }
        for (key, url) in [
            ("issuer", &self.issuer),
            ("token_endpoint", &self.token_endpoint),
            ("authorization_endpoint", &self.authorization_endpoint),
            ("device_authorization_endpoint", &self.device_authorization_endpoint),
            ("endpoint", &self.endpoint),
            ("impersonation_endpoint", &self.impersonation_endpoint),
        ] {
            url.as_deref().map_or(Ok(()), |url| address(key, url))?;
        }
        if let Some(Api { base_url, ca_file: _ }) = &self.api {
            address("api.base_url", base_url)?;
        }
        for resource in &self.resource {
            // RFC 8707 section 2: an absolute URI without a fragment.
            if !resource.contains(':') || resource.contains('#') {
                return invalid(
                    "resource",
                    format!("{resource:?} is not an absolute URI without a fragment"),
                );
            }
        }
        self.subject_token.as_ref().map_or(Ok(()), |source| token_source("subject_token", source))?;
        self.actor_token.as_ref().map_or(Ok(()), |source| token_source("actor_token", source))?;
        self.client_secret.as_ref().map_or(Ok(()), secret)?;
        self.client_assertion.as_ref().map_or(Ok(()), assertion)
    }

    fn require(&self, key: &str, given: bool) -> Result<(), InvalidKey> {
        if given { Ok(()) } else { invalid(key, format!("type {} needs it", self.r#type.name())) }
    }

    fn check_keys_of_type(&self) -> Result<(), InvalidKey> {
        use ProviderType::{Aws, Azure, Gcp, Ibm, Oauth2};
        let keys: &[(&str, bool, &[ProviderType])] = &[
            ("issuer", self.issuer.is_some(), &[Oauth2]),
            ("token_endpoint", self.token_endpoint.is_some(), &[Oauth2]),
            ("authorization_endpoint", self.authorization_endpoint.is_some(), &[Oauth2]),
            ("device_authorization_endpoint", self.device_authorization_endpoint.is_some(), &[Oauth2]),
            ("client_id", self.client_id.is_some(), &[Oauth2, Azure]),
            ("client_secret", self.client_secret.is_some(), &[Oauth2]),
            ("client_assertion", self.client_assertion.is_some(), &[Oauth2]),
            ("grant", self.grant.is_some(), &[Oauth2]),
            ("scopes", !self.scopes.is_empty(), &[Oauth2, Gcp, Azure]),
            ("audience", !self.audience.is_empty(), &[Oauth2]),
            ("resource", !self.resource.is_empty(), &[Oauth2]),
            ("extra_params", !self.extra_params.is_empty(), &[Oauth2]),
            ("subject_token_type", self.subject_token_type.is_some(), &[Oauth2]),
            ("actor_token", self.actor_token.is_some(), &[Oauth2]),
            ("actor_token_type", self.actor_token_type.is_some(), &[Oauth2]),
            ("requested_token_type", self.requested_token_type.is_some(), &[Oauth2]),
            ("profile", self.profile.is_some(), &[Ibm]),
            ("role_arn", self.role_arn.is_some(), &[Aws]),
            ("region", self.region.is_some(), &[Aws]),
            ("session_name", self.session_name.is_some(), &[Aws]),
            ("chain", !self.chain.is_empty(), &[Aws]),
            ("lifetime", self.lifetime.is_some(), &[Aws, Gcp]),
            ("workload_identity_provider", self.workload_identity_provider.is_some(), &[Gcp]),
            ("service_account", self.service_account.is_some(), &[Gcp]),
            ("impersonation_endpoint", self.impersonation_endpoint.is_some(), &[Gcp]),
            ("tenant_id", self.tenant_id.is_some(), &[Azure]),
            ("endpoint", self.endpoint.is_some(), &[Ibm, Aws, Gcp, Azure]),
        ];
        for (key, given, types) in keys {
            if *given && !types.contains(&self.r#type) {
                let types: Vec<_> = types.iter().map(|one| one.name()).collect();
                let ours = self.r#type.name();
                return invalid(
                    key,
                    format!("it is for type {}, and this provider is {ours}", types.join(" or ")),
                );
            }
        }
        Ok(())
    }

    fn oauth2(&self) -> Result<(), InvalidKey> {
        let Some(grant) = self.grant else {
            let all = "jwt_bearer, token_exchange, client_credentials, device_code or authorization_code";
            return invalid("grant", format!("type oauth2 needs it: {all}"));
        };
        let name = grant.name();
        if self.issuer.is_none() && self.token_endpoint.is_none() {
            return invalid("issuer", "type oauth2 needs it, or token_endpoint");
        }
        if self.issuer.is_none() {
            let missing = match grant {
                Grant::DeviceCode if self.device_authorization_endpoint.is_none() => {
                    Some("device_authorization_endpoint")
                }
                Grant::AuthorizationCode if self.authorization_endpoint.is_none() => {
                    Some("authorization_endpoint")
                }
                _ => None,
            };
            if let Some(key) = missing {
                return invalid(key, format!("grant {name} needs it, or an issuer to find it by"));
            }
        }
        if self.client_secret.is_some() && self.client_assertion.is_some() {
            return invalid("client_secret", "client_assertion takes its place; leave out one of the two");
        }
        let authenticated = self.client_secret.is_some() || self.client_assertion.is_some();
        match grant {
            Grant::ClientCredentials if !authenticated => {
                return invalid(
                    "client_assertion",
                    "grant client_credentials needs it, or client_secret; with the pod's own token: \
                     client_assertion: {type: kubernetes_sa}",
                );
            }
            // An assertion identifies the client to the server (RFC 7521 section 4.2); otherwise the client
            // id is required.
            Grant::DeviceCode | Grant::AuthorizationCode | Grant::ClientCredentials
                if self.client_id.is_none() && self.client_assertion.is_none() =>
            {
                return invalid("client_id", format!("grant {name} needs it"));
            }
            _ => {}
        }
        let own = self.client_assertion.as_ref().filter(|own| own.r#type == AssertionKind::PrivateKeyJwt);
        if own.is_some() && self.client_id.is_none() {
            return invalid("client_id", "an assertion that the client signs names it");
        }
        if !grant.takes_subject() && self.subject_token.is_some() {
            let why = format!("grant {name} exchanges none; did you mean client_assertion?");
            return invalid("subject_token", why);
        }
        let exchange = [
            ("subject_token_type", self.subject_token_type.is_some()),
            ("actor_token", self.actor_token.is_some()),
            ("actor_token_type", self.actor_token_type.is_some()),
            ("requested_token_type", self.requested_token_type.is_some()),
        ];
        for (key, given) in exchange {
            if given && grant != Grant::TokenExchange {
                return invalid(key, format!("it is for grant token_exchange, and this one is {name}"));
            }
        }
        if self.actor_token_type.is_some() && self.actor_token.is_none() {
            // RFC 8693 section 2.1: it must not be present without the token.
            return invalid("actor_token", "actor_token_type says what it is, and it is missing");
        }
        self.check_extra_params()
    }

    /// `extra_params` are for parameters that have no key of their own.
    fn check_extra_params(&self) -> Result<(), InvalidKey> {
        const OURS: &[&str] = &[
            "actor_token",
            "actor_token_type",
            "assertion",
            "audience",
            "client_assertion",
            "client_assertion_type",
            "client_id",
            "client_secret",
            "code",
            "code_verifier",
            "device_code",
            "grant_type",
            "redirect_uri",
            "refresh_token",
            "requested_token_type",
            "resource",
            "scope",
            "subject_token",
            "subject_token_type",
        ];
        match self.extra_params.keys().find(|key| OURS.contains(&key.as_str())) {
            Some(key) => invalid(
                &format!("extra_params.{key}"),
                "this parameter has a key of its own, or is ours to set",
            ),
            None => Ok(()),
        }
    }

    fn aws(&self) -> Result<(), InvalidKey> {
        self.require("role_arn", self.role_arn.is_some())?;
        arn("role_arn", self.role_arn.as_deref().unwrap_or_default())?;
        if self.region.is_none() && self.endpoint.is_none() {
            return invalid("region", "type aws needs it, such as eu-central-1: its regional STS is asked");
        }
        // The region becomes part of a host name.
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if let Some(region) = self.region.as_ref().filter(|region| region.is_empty() || !plain(region)) {
            return invalid("region", format!("{region:?} is not a region; use one such as eu-central-1"));
        }
        let sessions = self.chain.iter().map(|role| ("chain", &role.session_name));
        for (key, name) in sessions.chain([("session_name", &self.session_name)]) {
            if let Some(name) = name.as_ref().filter(|name| !is_session_name(name)) {
                let why =
                    format!("{name:?} is not a session name: use 2 to 64 letters, digits and any of _+=,.@-");
                return invalid(key, why);
            }
        }
        for AssumeRole { role_arn, external_id: _, session_name: _ } in &self.chain {
            arn("chain", role_arn)?;
        }
        let hour = Duration::from_secs(3600);
        let long = self.lifetime.as_deref().and_then(|text| parse_duration(text).ok());
        if !self.chain.is_empty() && long.is_some_and(|long| long > hour) {
            return invalid("lifetime", "AWS gives at most 1h to a role that is assumed by a role");
        }
        Ok(())
    }

    fn gcp(&self) -> Result<(), InvalidKey> {
        self.require("workload_identity_provider", self.workload_identity_provider.is_some())?;
        let name = self.workload_identity_provider.as_deref().unwrap_or_default();
        let name = name.trim_start_matches("//iam.googleapis.com/");
        let parts: Vec<_> = name.split('/').collect();
        let fine = matches!(parts.as_slice(),
            ["projects", number, "locations", _, "workloadIdentityPools", pool, "providers", provider]
                if !number.is_empty() && !pool.is_empty() && !provider.is_empty());
        if !fine {
            return invalid(
                "workload_identity_provider",
                format!(
                    "{name:?} is not projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"
                ),
            );
        }
        if let Some(account) = &self.service_account {
            let allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'@' | b'_');
            if !account.contains('@') || !account.bytes().all(allowed) {
                return invalid(
                    "service_account",
                    format!("{account:?} is not the e-mail address of a service account"),
                );
            }
        } else if self.lifetime.is_some() {
            return invalid("lifetime", "Google decides it, unless a service_account is impersonated");
        }
        Ok(())
    }
}

fn is_session_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    (2..=64).contains(&name.len()) && name.bytes().all(allowed)
}

fn arn(key: &str, arn: &str) -> Result<(), InvalidKey> {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    match parts.as_slice() {
        ["arn", _, "iam", "", _, role] if role.starts_with("role/") => Ok(()),
        _ => invalid(key, format!("{arn:?} is not a role ARN; use arn:aws:iam::ACCOUNT:role/NAME")),
    }
}

fn address(key: &str, url: &str) -> Result<(), InvalidKey> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else {
        return invalid(key, format!("{url:?} is not a URL; use one such as https://auth.example.com"));
    };
    if rest.is_empty() || rest.starts_with('/') {
        return invalid(key, format!("{url:?} has no host"));
    }
    let host = rest.split('/').next().unwrap_or_default();
    // RFC 6749 sections 3.1 and 3.2: an endpoint may have a query, and no fragment.
    let query = key.ends_with("_endpoint") && key != "impersonation_endpoint" && !host.contains('?');
    if host.contains('@') || url.contains(['#', ' ']) || (url.contains('?') && !query) {
        let which = if query { "'#'" } else { "'?' and '#'" };
        return invalid(key, format!("{url:?}: leave out what follows {which}, and what precedes '@'"));
    }
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let loopback =
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.starts_with("https://") || loopback {
        true => Ok(()),
        false => invalid(key, format!("{url:?}: only https:// is supported, and http:// on loopback")),
    }
}

fn lifetime(key: &str, text: &str, least: Duration, most: Duration) -> Result<(), InvalidKey> {
    let found = parse_duration(text).or_else(|error| invalid(key, error.to_string()))?;
    match (least..=most).contains(&found) {
        true => Ok(()),
        false => invalid(
            key,
            format!("{text} is not from {} to {} minutes", least.as_secs() / 60, most.as_secs() / 60),
        ),
    }
}

fn token_source(at: &str, source: &TokenSource) -> Result<(), InvalidKey> {
    use SourceKind::{Env, File, GithubActions, KubernetesSa, TokenRequest};
    let TokenSource { r#type, path, name, audience, namespace, service_account, lifetime: asked } = source;
    let key = |key: &str| format!("{at}.{key}");
    let keys: [(&str, bool, &[SourceKind]); 5] = [
        ("path", path.is_some(), &[KubernetesSa, File]),
        ("name", name.is_some(), &[Env]),
        ("namespace", namespace.is_some(), &[TokenRequest]),
        ("service_account", service_account.is_some(), &[TokenRequest]),
        ("lifetime", asked.is_some(), &[TokenRequest]),
    ];
    for (name, given, kinds) in keys {
        if given && !kinds.contains(r#type) {
            let kinds: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            return invalid(
                &key(name),
                format!("it is for type {}, and this one is {}", kinds.join(" or "), r#type.name()),
            );
        }
    }
    match r#type {
        File if path.is_none() => invalid(&key("path"), "type file needs it"),
        Env if name.is_none() => invalid(&key("name"), "type env needs it: the variable"),
        TokenRequest if service_account.is_none() => {
            invalid(&key("service_account"), "type token_request needs it")
        }
        TokenRequest if service_account.as_deref().is_some_and(|name| name.contains('/')) => {
            let name = service_account.as_deref().unwrap_or_default();
            let (before, after) = name.split_once('/').unwrap_or_default();
            invalid(
                &key("service_account"),
                format!("{name} holds a '/'; write namespace: {before} and service_account: {after}"),
            )
        }
        GithubActions | TokenRequest if audience.is_none() => {
            invalid(&key("audience"), format!("type {} needs it: whom the token is for", r#type.name()))
        }
        _ => asked.as_deref().map_or(Ok(()), |text| {
            lifetime(&key("lifetime"), text, Duration::from_secs(600), Duration::from_secs(48 * 3600))
        }),
    }
}

fn secret(SecretSource { file, env }: &SecretSource) -> Result<(), InvalidKey> {
    match (file, env) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        _ => invalid("client_secret", "name either a file or an env variable that holds it"),
    }
}

fn assertion(assertion: &ClientAssertion) -> Result<(), InvalidKey> {
    if let Some(source) = assertion.source() {
        let ours = [
            ("key_file", assertion.key_file.is_some()),
            ("key_id", assertion.key_id.is_some()),
            ("algorithm", assertion.algorithm.is_some()),
        ];
        if let Some((key, _)) = ours.into_iter().find(|(_, given)| *given) {
            return invalid(&format!("client_assertion.{key}"), "it is for type private_key_jwt");
        }
        return token_source("client_assertion", &source);
    }
    if assertion.key_file.is_none() {
        return invalid("client_assertion.key_file", "type private_key_jwt needs it");
    }
    let others = [
        ("path", assertion.path.is_some()),
        ("name", assertion.name.is_some()),
        ("namespace", assertion.namespace.is_some()),
        ("service_account", assertion.service_account.is_some()),
        ("lifetime", assertion.lifetime.is_some()),
    ];
    match others.into_iter().find(|(_, given)| *given) {
        Some((key, _)) => invalid(&format!("client_assertion.{key}"), "it is not for type private_key_jwt"),
        None => Ok(()),
    }
}
