//! The links, one by one.

use super::{Link, State};
use crate::exchange::{Exchanger, Metadata, discover_at, server, split};
use crate::issuer::{self, Documents};
use crate::jwt::{Claims, Header};
use crate::source::{SubjectToken, now};
use postern_config::providers::{Grant, ProviderType};
use postern_kube::Cluster;
use std::path::Path;

/// The mount and the token in it.
pub(super) async fn source(exchanger: &Exchanger) -> (Option<SubjectToken>, Vec<Link>) {
    let Some(source) = exchanger.source() else {
        return (None, vec![Link::ok("source", "this provider exchanges no token of somebody else")]);
    };
    let mut links = Vec::new();
    if let Some(path) = source.file() {
        links.extend(mount(path));
    }
    match source.token().await {
        Ok(token) => {
            links.push(match &token.warning {
                None => Link::ok("token", format!("read from {}", source.place())),
                Some(warning) => Link::new(
                    "token",
                    State::Warning,
                    warning.clone(),
                    "look for TokenProjection errors in the kubelet's log",
                ),
            });
            (Some(token), links)
        }
        Err(error) => {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let fix = "mount a projected serviceAccountToken for this audience (`postern identity manifest`); outside a \
                       pod use `type: token_request`";
            links.push(Link::new("token", State::Broken, format!("{error}{cause}"), fix));
            (None, links)
        }
    }
}

/// How the file is mounted: by `subPath` it is the file of the pod's first minute for ever.
fn mount(path: &Path) -> Option<Link> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let whole = path.to_string_lossy();
    let is_mount = mounts.lines().any(|line| line.split(' ').nth(4) == Some(&*whole));
    if is_mount {
        return Some(Link::new(
            "mount",
            State::Broken,
            format!("{whole} is mounted as a file (subPath): the kubelet's renewals never reach it"),
            "mount the projected volume's directory instead",
        ));
    }
    let linked = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_symlink());
    linked.then(|| Link::ok("mount", "a projected volume, which the kubelet replaces whole"))
}

/// What the token says.
pub(super) fn claims(exchanger: &Exchanger, claims: &Claims) -> Vec<Link> {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "nobody".to_owned());
    let left =
        claims.remaining(now()).map_or("without an end".to_owned(), |left| format!("ends in {left:.0} s"));
    let mut links = vec![Link::ok(
        "claims",
        format!(
            "issued by {}, about {}, for {}; {left}",
            text(&claims.iss),
            text(&claims.sub),
            claims.aud.join(", ")
        ),
    )];
    if claims.service_account().is_some_and(|(_, name)| name == "default") {
        links.push(Link::new(
            "ServiceAccount",
            State::Warning,
            "it is `default`, which every pod of the namespace that names none runs as",
            "make a ServiceAccount for this workload",
        ));
    }
    if claims.aud.len() > 1 && exchanger.provider.r#type == ProviderType::Oauth2 {
        links.push(Link::new(
            "audience",
            State::Warning,
            "the token is for several: some providers (Keycloak) take it for one only",
            "project one token for each audience",
        ));
    }
    links
}

/// What the cluster says of its issuer, where it can be asked.
pub(super) async fn cluster(exchanger: &Exchanger, header: &Header, claims: &Claims) -> Vec<Link> {
    let found = match Cluster::connect(&exchanger.cluster).await {
        Ok(cluster) => issuer::of_cluster(&cluster).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let documents = match found {
        Ok(documents) => documents,
        Err(why) => {
            let fix =
                "ask from outside, or with a kubeconfig; signed-in users may read the issuer's documents";
            return vec![Link::new("issuer (cluster)", State::Unknown, why, fix)];
        }
    };
    if Some(documents.issuer()) != claims.iss.as_deref() {
        let seen = format!(
            "the cluster's issuer is {}, the token's is {}",
            documents.issuer(),
            claims.iss.as_deref().unwrap_or("none")
        );
        let fix = "the token is of another cluster, or the API server's --service-account-issuer has changed";
        return vec![Link::new("issuer (cluster)", State::Warning, seen, fix)];
    }
    vec![key("issuer (cluster)", &documents, header)]
}

fn key(link: &'static str, documents: &Documents, header: &Header) -> Link {
    let keys = documents.keys();
    match &header.kid {
        Some(kid) if keys.iter().any(|key| key.kid == *kid) => {
            Link::ok(link, format!("{} has the key that signed the token ({kid})", documents.issuer()))
        }
        kid => Link::new(
            link,
            State::Broken,
            format!(
                "{} has {} keys, and not the one that signed the token ({})",
                documents.issuer(),
                keys.len(),
                kid.as_deref().unwrap_or("which it does not name")
            ),
            "publish the cluster's keys again (`postern identity issuer mirror --watch` keeps them)",
        ),
    }
}

/// What is published where the token says that its issuer is.
pub(super) async fn publication(header: &Header, claims: &Claims) -> Link {
    const LINK: &str = "issuer (published)";
    let Some(issuer) = claims.iss.as_deref() else {
        return Link::new(LINK, State::Broken, "the token names no issuer", "use a ServiceAccount's token");
    };
    match issuer::published(issuer, None, None).await {
        Ok(documents) => key(LINK, &documents, header),
        Err(error) => {
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Link::new(
                LINK,
                State::Unknown,
                format!("{error}{cause}"),
                "the provider may reach it where we do not; if the issuer is inside the cluster, publish a copy (`postern \
                 identity issuer mirror`) or give the provider the keys",
            )
        }
    }
}

/// The provider's own metadata, and its clock.
pub(super) async fn provider(exchanger: &Exchanger) -> Vec<Link> {
    let provider = &exchanger.provider;
    let mut links = Vec::new();
    let address =
        provider.issuer.as_deref().or(provider.token_endpoint.as_deref()).or(provider.endpoint.as_deref());
    if let Some(issuer) = provider.issuer.as_deref() {
        let found = match server(split(issuer).0, provider.ca_file.as_ref()) {
            Ok(server) => discover_at(&server, issuer).await,
            Err(error) => Err(error),
        };
        links.push(match found {
            Ok(metadata) => offers(exchanger, &metadata),
            Err(error) => {
                let cause =
                    std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                let fix = "check `issuer`, the network, HTTPS_PROXY/NO_PROXY and ca_file";
                Link::new("discovery", State::Broken, format!("{error}{cause}"), fix)
            }
        });
    }
    if let Some(address) = address {
        links.extend(clock(exchanger, address).await);
    }
    links
}

fn offers(exchanger: &Exchanger, metadata: &Metadata) -> Link {
    let endpoint = metadata.token_endpoint.as_deref().unwrap_or("none");
    let seen = format!("{} has its token endpoint at {endpoint}", metadata.issuer);
    let wanted = match exchanger.provider.grant {
        Some(Grant::JwtBearer) => "urn:ietf:params:oauth:grant-type:jwt-bearer",
        Some(Grant::TokenExchange) => "urn:ietf:params:oauth:grant-type:token-exchange",
        Some(Grant::ClientCredentials) => "client_credentials",
        Some(Grant::DeviceCode) => "urn:ietf:params:oauth:grant-type:device_code",
        Some(Grant::AuthorizationCode) | None => "authorization_code",
    };
    let known = &metadata.grant_types_supported;
    match known.is_empty() || known.iter().any(|grant| grant == wanted) {
        true => Link::ok("discovery", seen),
        false => Link::new(
            "discovery",
            State::Warning,
            format!("{seen}; it does not say that it knows the grant {wanted}"),
            "switch the grant on at the provider, or use another",
        ),
    }
}

/// Clocks that differ by more than half a minute make tokens too old or too new.
async fn clock(exchanger: &Exchanger, address: &str) -> Option<Link> {
    let server = server(split(address).0, exchanger.provider.ca_file.as_ref()).ok()?;
    let request = http::Request::get(split(address).1).body(Vec::new()).ok()?;
    let skew = crate::exchange::skew(server.send(request).await.ok()?.date.as_deref()?)?;
    Some(match skew.abs() <= 30.0 {
        true => Link::ok("clock", format!("within {:.0} s of the provider's", skew.abs().ceil())),
        false => {
            let way = if skew > 0.0 { "ahead of" } else { "behind" };
            let seen = format!("{:.0} s {way} the provider's", skew.abs());
            Link::new("clock", State::Broken, seen, "set this machine's clock (NTP)")
        }
    })
}

/// What no look from here can tell.
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
        "only the provider can see {what}; what it must trust of {subject} is what `postern identity trust` prints"
    )
}
