//! The individual steps.

use super::Findings;
use crate::exchange::{Exchanger, Metadata, discover_at, server, split};
use crate::issuer::{self, Documents};
use crate::jwt::{Claims, Header};
use crate::source::{SubjectToken, now};
use postern_config::providers::{Grant, ProviderType};
use postern_kube::Cluster;
use postern_report::{Finding, Severity};
use std::path::Path;

/// Checks the mount and the token in it.
pub(super) async fn source(of: &Findings<'_>, exchanger: &Exchanger) -> (Option<SubjectToken>, Vec<Finding>) {
    let Some(source) = exchanger.source() else {
        return (None, vec![of.ok("source", "this provider needs no subject token")]);
    };
    let mut findings = Vec::new();
    if let Some(path) = source.file() {
        findings.extend(mount(of, path));
    }
    match source.token().await {
        Ok(token) => {
            findings.push(match &token.warning {
                None => of.ok("token", format!("read from {}", source.place())),
                Some(warning) => of
                    .finding("token", Severity::Warning, warning.clone())
                    .fix("look for TokenProjection errors in the kubelet's log"),
            });
            (Some(token), findings)
        }
        Err(error) => {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let fix = "mount a projected serviceAccountToken for this audience (`postern identity manifest`); outside a \
                       pod use `type: token_request`";
            findings.push(of.finding("token", Severity::Problem, format!("{error}{cause}")).fix(fix));
            (None, findings)
        }
    }
}

/// Checks how the file is mounted: with `subPath` it never changes after the pod's start.
fn mount(of: &Findings<'_>, path: &Path) -> Option<Finding> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let whole = path.to_string_lossy();
    let is_mount = mounts.lines().any(|line| line.split(' ').nth(4) == Some(&*whole));
    if is_mount {
        return Some(
            of.finding(
                "mount",
                Severity::Problem,
                format!("{whole} is mounted as a file (subPath): the kubelet's renewals never reach it"),
            )
            .fix("mount the projected volume's directory instead"),
        );
    }
    let linked = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_symlink());
    linked.then(|| of.ok("mount", "a projected volume, which the kubelet replaces whole"))
}

/// Checks the token's claims.
pub(super) fn claims(of: &Findings<'_>, exchanger: &Exchanger, claims: &Claims) -> Vec<Finding> {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "(none)".to_owned());
    let left = claims
        .remaining(now())
        .map_or("without an expiration".to_owned(), |left| format!("ends in {left:.0} s"));
    let mut findings = vec![of.ok(
        "claims",
        format!(
            "issued by {}, about {}, for {}; {left}",
            text(&claims.iss),
            text(&claims.sub),
            claims.aud.join(", ")
        ),
    )];
    if claims.service_account().is_some_and(|(_, name)| name == "default") {
        findings.push(
            of.finding(
                "service-account",
                Severity::Warning,
                "it is `default`, which every pod of the namespace that names none runs as",
            )
            .fix("make a ServiceAccount for this workload"),
        );
    }
    if claims.aud.len() > 1 && exchanger.provider.r#type == ProviderType::Oauth2 {
        findings.push(
            of.finding(
                "audience",
                Severity::Warning,
                "the token is for several: some providers (Keycloak) take it for one only",
            )
            .fix("project one token for each audience"),
        );
    }
    findings
}

/// Checks the cluster's issuer, if the cluster can be reached.
pub(super) async fn cluster(
    of: &Findings<'_>,
    exchanger: &Exchanger,
    header: &Header,
    claims: &Claims,
) -> Vec<Finding> {
    let found = match Cluster::connect(&exchanger.cluster).await {
        Ok(cluster) => issuer::of_cluster(&cluster).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let documents = match found {
        Ok(documents) => documents,
        Err(why) => {
            let fix =
                "ask from outside, or with a kubeconfig; signed-in users may read the issuer's documents";
            return vec![of.finding("issuer-cluster", Severity::Inconclusive, why).fix(fix)];
        }
    };
    if Some(documents.issuer()) != claims.iss.as_deref() {
        let message = format!(
            "the cluster's issuer is {}, the token's is {}",
            documents.issuer(),
            claims.iss.as_deref().unwrap_or("none")
        );
        let fix = "the token is of another cluster, or the API server's --service-account-issuer has changed";
        return vec![of.finding("issuer-cluster", Severity::Warning, message).fix(fix)];
    }
    vec![key(of, "issuer-cluster", &documents, header)]
}

fn key(of: &Findings<'_>, step: &str, documents: &Documents, header: &Header) -> Finding {
    let keys = documents.keys();
    match &header.kid {
        Some(kid) if keys.iter().any(|key| key.kid == *kid) => {
            of.ok(step, format!("{} has the key that signed the token ({kid})", documents.issuer()))
        }
        kid => of
            .finding(
                step,
                Severity::Problem,
                format!(
                    "{} has {} keys, and not the one that signed the token ({})",
                    documents.issuer(),
                    keys.len(),
                    kid.as_deref().unwrap_or("the token names none")
                ),
            )
            .fix("publish the cluster's keys again (`postern identity issuer mirror --watch` keeps them)"),
    }
}

/// Checks what is published at the token's issuer.
pub(super) async fn publication(of: &Findings<'_>, header: &Header, claims: &Claims) -> Finding {
    const STEP: &str = "issuer-published";
    let Some(issuer) = claims.iss.as_deref() else {
        return of
            .finding(STEP, Severity::Problem, "the token names no issuer")
            .fix("use a ServiceAccount's token");
    };
    match issuer::published(issuer, None, None).await {
        Ok(documents) => key(of, STEP, &documents, header),
        Err(error) => {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            of.finding(STEP, Severity::Inconclusive, format!("{error}{cause}")).fix(
                "the provider may reach it where we do not; if the issuer is inside the cluster, publish a copy (`postern \
                 identity issuer mirror`) or give the provider the keys",
            )
        }
    }
}

/// Checks the provider's metadata and its clock.
pub(super) async fn provider(of: &Findings<'_>, exchanger: &Exchanger) -> Vec<Finding> {
    let provider = &exchanger.provider;
    let mut findings = Vec::new();
    let address =
        provider.issuer.as_deref().or(provider.token_endpoint.as_deref()).or(provider.endpoint.as_deref());
    if let Some(issuer) = provider.issuer.as_deref() {
        let found = match server(split(issuer).0, provider.ca_file.as_ref()) {
            Ok(server) => discover_at(&server, issuer).await,
            Err(error) => Err(error),
        };
        findings.push(match found {
            Ok(metadata) => offers(of, exchanger, &metadata),
            Err(error) => {
                let cause =
                    std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                let fix = "check `issuer`, the network, HTTPS_PROXY/NO_PROXY and ca_file";
                of.finding("discovery", Severity::Problem, format!("{error}{cause}")).fix(fix)
            }
        });
    }
    if let Some(address) = address {
        findings.extend(clock(of, exchanger, address).await);
    }
    findings
}

fn offers(of: &Findings<'_>, exchanger: &Exchanger, metadata: &Metadata) -> Finding {
    let endpoint = metadata.token_endpoint.as_deref().unwrap_or("none");
    let message = format!("{} has its token endpoint at {endpoint}", metadata.issuer);
    let wanted = match exchanger.provider.grant {
        Some(Grant::JwtBearer) => "urn:ietf:params:oauth:grant-type:jwt-bearer",
        Some(Grant::TokenExchange) => "urn:ietf:params:oauth:grant-type:token-exchange",
        Some(Grant::ClientCredentials) => "client_credentials",
        Some(Grant::DeviceCode) => "urn:ietf:params:oauth:grant-type:device_code",
        Some(Grant::AuthorizationCode) | None => "authorization_code",
    };
    let known = &metadata.grant_types_supported;
    match known.is_empty() || known.iter().any(|grant| grant == wanted) {
        true => of.ok("discovery", message),
        false => of
            .finding(
                "discovery",
                Severity::Warning,
                format!("{message}; it does not list the grant {wanted}"),
            )
            .fix("switch the grant on at the provider, or use another"),
    }
}

/// If the clocks differ by more than half a minute, tokens are rejected as too old or not yet valid.
async fn clock(of: &Findings<'_>, exchanger: &Exchanger, address: &str) -> Option<Finding> {
    let server = server(split(address).0, exchanger.provider.ca_file.as_ref()).ok()?;
    let request = http::Request::get(split(address).1).body(Vec::new()).ok()?;
    let skew = crate::exchange::skew(server.send(request).await.ok()?.date.as_deref()?)?;
    Some(match skew.abs() <= 30.0 {
        true => of.ok("clock", format!("within {:.0} s of the provider's", skew.abs().ceil())),
        false => {
            let way = if skew > 0.0 { "ahead of" } else { "behind" };
            let message = format!("{:.0} s {way} the provider's", skew.abs());
            of.finding("clock", Severity::Problem, message).fix("set this machine's clock (NTP)")
        }
    })
}

/// Returns what cannot be checked from here.
pub(super) fn only_the_provider_sees(exchanger: &Exchanger, claims: Option<&Claims>) -> String {
    let subject = claims.and_then(|claims| claims.sub.as_deref()).unwrap_or("this subject");
    let what = match exchanger.provider.r#type {
        ProviderType::Oauth2 => {
            "which client, issuer, subject and audience it is set to trust, and which keys it has cached"
        }
        ProviderType::Aws => {
            "the role's trust policy, and whether the account has an OIDC provider for the issuer"
        }
        ProviderType::Ibm => "the trusted profile's links and policies",
        ProviderType::Gcp => {
            "the pool provider's audiences and condition, and who may act as the service account"
        }
        ProviderType::Azure => "the app registration's federated credentials",
    };
    format!(
        "only the provider can see {what}; `postern identity trust` prints what it must trust of {subject}"
    )
}
