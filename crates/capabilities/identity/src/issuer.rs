//! A cluster's issuer: compares the cluster's documents with the published ones.
//!
//! An external provider reads `ISSUER/.well-known/openid-configuration` and the keys that it references. The issuer
//! of a self-managed cluster is often an address that is unreachable from outside. Then both documents are published
//! elsewhere, and the issuer is set to that address (KEP-1393).

use crate::atomic_file;
use crate::exchange::{ExchangeError, server, split};
use crate::request::send_with_retries;
use http::{Request, header};
use postern_kube::{Cluster, KubeError, raw};
use postern_report::{Finding, Severity, Subject};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The path of the discovery document below the issuer.
pub const DOCUMENT: &str = ".well-known/openid-configuration";
/// The path of the keys, in the API server and in the published copy.
pub const KEYS: &str = "openid/v1/jwks";

/// An issuer's two documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The discovery document.
    pub discovery: Value,
    /// The keys (a JWK set).
    pub keys: Value,
}

/// A public key, as it is displayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its ID.
    pub kid: String,
    /// Its signature algorithm.
    #[serde(default)]
    pub alg: String,
    /// Its type.
    #[serde(default)]
    pub kty: String,
}

/// The documents cannot be read, or are not valid.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The cluster did not return them.
    #[error(transparent)]
    Cluster(#[from] KubeError),
    /// The publishing server did not return them.
    #[error(transparent)]
    Published(#[from] ExchangeError),
    /// They are not valid.
    #[error("{what}: {why}")]
    Invalid {
        /// The document.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A copy cannot be written.
    #[error("writing {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
}

fn json(what: &str, bytes: &[u8]) -> Result<Value, IssuerError> {
    let invalid = || IssuerError::Invalid { what: what.to_owned(), why: "not a JSON object".to_owned() };
    serde_json::from_slice::<Value>(bytes).ok().filter(Value::is_object).ok_or_else(invalid)
}

/// Reads the cluster's documents. Any authenticated user may read them (`system:service-account-issuer-discovery`).
pub async fn of_cluster(cluster: &Cluster) -> Result<Documents, IssuerError> {
    let discovery = raw::get(cluster, &format!("/{DOCUMENT}")).await?;
    let keys = raw::get(cluster, &format!("/{KEYS}")).await?;
    let documents = Documents {
        discovery: json("the cluster's discovery document", &discovery)?,
        keys: json("the cluster's keys", &keys)?,
    };
    documents.check()?;
    Ok(documents)
}

/// Reads what is published at an issuer's address, or at `at` instead.
pub async fn published(
    issuer: &str,
    at: Option<&str>,
    ca_file: Option<&PathBuf>,
) -> Result<Documents, IssuerError> {
    let base = at.unwrap_or(issuer).trim_end_matches('/');
    let address = format!("{base}/{DOCUMENT}");
    let discovery = json(&address, &fetch(&address, ca_file).await?)?;
    let invalid = |why: String| IssuerError::Invalid { what: address.clone(), why };
    if discovery["issuer"] != issuer {
        return Err(invalid(format!("its issuer is {}, not {issuer:?}", discovery["issuer"])));
    }
    let keys_at = discovery["jwks_uri"].as_str().ok_or_else(|| invalid("it names no jwks_uri".to_owned()))?;
    // With `at`, the keys are at that address too.
    let keys_at = match at {
        Some(_) => keys_at
            .strip_prefix(issuer.trim_end_matches('/'))
            .map_or(keys_at.to_owned(), |rest| format!("{base}{rest}")),
        None => keys_at.to_owned(),
    };
    let keys = json(&keys_at, &fetch(&keys_at, ca_file).await?)?;
    let documents = Documents { discovery, keys };
    documents.check()?;
    Ok(documents)
}

async fn fetch(address: &str, ca_file: Option<&PathBuf>) -> Result<Vec<u8>, ExchangeError> {
    let wrong = |why: String| ExchangeError::Answer { server: address.to_owned(), why };
    let (base, path) = split(address);
    let request = Request::get(path)
        .header(header::ACCEPT, "application/json, application/jwk-set+json")
        .body(Vec::new())
        .map_err(|error| wrong(error.to_string()))?;
    let answer = send_with_retries(&server(base, ca_file)?, &request, |_| false).await;
    let answer =
        answer.map_err(|source| ExchangeError::Web { attempt: format!("reading {address}"), source })?;
    match answer.status {
        200 => Ok(answer.body),
        status => Err(wrong(format!("HTTP status {status}"))),
    }
}

impl Documents {
    /// Returns the issuer.
    pub fn issuer(&self) -> &str {
        self.discovery["issuer"].as_str().unwrap_or_default()
    }

    /// Returns the address of its keys.
    pub fn jwks_uri(&self) -> &str {
        self.discovery["jwks_uri"].as_str().unwrap_or_default()
    }

    /// Returns its keys, by their IDs.
    pub fn keys(&self) -> Vec<Key> {
        let all = self.keys["keys"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect()
    }

    fn check(&self) -> Result<(), IssuerError> {
        let invalid =
            |what: &str, why: &str| Err(IssuerError::Invalid { what: what.to_owned(), why: why.to_owned() });
        if self.issuer().is_empty() {
            return invalid("the discovery document", "it names no issuer");
        }
        if self.keys().is_empty() {
            return invalid("the keys", "no key has an id");
        }
        // A private key here would be the cluster's own.
        let private = self.keys["keys"].as_array().into_iter().flatten().any(|key| key.get("d").is_some());
        if private { invalid("the keys", "they include a private key") } else { Ok(()) }
    }

    /// Returns the documents for publishing at the issuer's own address: the keys are next to the document, and no
    /// other information about the cluster is published.
    #[must_use]
    pub fn for_publishing(&self) -> Documents {
        let mut discovery = self.discovery.clone();
        discovery["jwks_uri"] = format!("{}/{KEYS}", self.issuer().trim_end_matches('/')).into();
        Documents { discovery, keys: self.keys.clone() }
    }

    /// Returns an obvious reason why an external provider cannot read them.
    pub fn unreachable_outside(&self) -> Option<String> {
        let issuer = self.issuer();
        let host = split(issuer).0.split("://").nth(1).unwrap_or_default();
        let name = host.split(':').next().unwrap_or_default();
        let inside = ["svc", "local"].contains(&name.rsplit('.').next().unwrap_or_default());
        let private = name == "localhost"
            || name.parse::<std::net::Ipv4Addr>().is_ok_and(|ip| ip.is_private() || ip.is_loopback());
        (inside || private || !issuer.starts_with("https://")).then(|| {
            format!(
                "{issuer} cannot be reached from outside the cluster: publish a copy (`postern identity issuer mirror`) and \
                 set the API server's --service-account-issuer to its address, or give the provider the keys themselves"
            )
        })
    }
}

/// The difference between the published and the cluster's documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys that the cluster signs with, or will sign with, and that are not published: tokens signed with them are
    /// rejected.
    pub missing: Vec<Key>,
    /// Published keys that the cluster no longer has: anyone with their private half can still issue tokens.
    pub surplus: Vec<Key>,
}

impl Difference {
    /// Compares the whole content of the keys, because an ID may be reused.
    pub fn between(cluster: &Documents, published: &Documents) -> Self {
        let without = |one: &Documents, other: &Documents| {
            let known = other.keys["keys"].as_array().cloned().unwrap_or_default();
            let material =
                |key: &Value| json!([key["kid"], key["n"], key["e"], key["x"], key["y"], key["crv"]]);
            let known: Vec<Value> = known.iter().map(material).collect();
            let all = one.keys["keys"].as_array().cloned().unwrap_or_default();
            let left = all.into_iter().filter(|key| !known.contains(&material(key)));
            left.filter_map(|key| serde_json::from_value(key).ok()).collect()
        };
        Self { missing: without(cluster, published), surplus: without(published, cluster) }
    }

    /// Returns a finding for each different key, or one if there is no difference.
    pub fn findings(&self, cluster: &Documents) -> Vec<Finding> {
        const RULE: &str = "identity/issuer-keys";
        let Self { missing, surplus } = self;
        let issuer = || Subject::named("issuer", cluster.issuer());
        let of = |key: &Key, message: &str, fix: &str| {
            let Key { kid, alg, kty } = key;
            let algorithm = if alg.is_empty() { kty } else { alg };
            let message = format!("{message}: {kid} ({algorithm})");
            Finding::new(RULE, Severity::Problem, issuer(), message).at_item(kid.clone()).fix(fix)
        };
        let mirror = "publish the cluster's keys again: `postern identity issuer mirror`";
        let missing =
            missing.iter().map(|key| of(key, "not published, so tokens signed by it are refused", mirror));
        let surplus = surplus.iter().map(|key| {
            of(key, "published, and not the cluster's: its private half can still make tokens", mirror)
        });
        let mut findings: Vec<Finding> = missing.chain(surplus).collect();
        if findings.is_empty() {
            let message = format!("all {} keys of the cluster are published", cluster.keys().len());
            findings.push(Finding::new(RULE, Severity::Ok, issuer(), message));
        }
        findings
    }
}

/// Writes the two documents below a directory, the keys first: a document must never reference missing keys. Returns
/// the changed files.
pub fn write(documents: &Documents, directory: &Path, dry_run: bool) -> Result<Vec<PathBuf>, IssuerError> {
    let mut changed = Vec::new();
    for (name, value) in [(KEYS, &documents.keys), (DOCUMENT, &documents.discovery)] {
        let path = directory.join(name);
        let failed = |source| IssuerError::Write { path: path.clone(), source };
        let text = serde_json::to_string_pretty(value).unwrap_or_default() + "\n";
        if std::fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            continue;
        }
        if !dry_run {
            let parent = path.parent().unwrap_or(directory);
            std::fs::create_dir_all(parent).map_err(failed)?;
            atomic_file::replace(&path, 0o644, |file| file.write_all(text.as_bytes())).map_err(failed)?;
        }
        changed.push(path);
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(issuer: &str, kids: &[&str]) -> Documents {
        let keys: Vec<_> = kids
            .iter()
            .map(|kid| json!({"kid": kid, "kty": "RSA", "alg": "RS256", "n": kid, "e": "AQAB"}))
            .collect();
        Documents {
            discovery: json!({"issuer": issuer, "jwks_uri": "https://10.0.0.1:6443/openid/v1/jwks"}),
            keys: json!({"keys": keys}),
        }
    }

    #[test]
    fn a_copy_names_keys_beside_itself_and_changes_only_when_they_do() {
        let directory = tempfile::tempdir().unwrap();
        let first = documents("https://issuer.example.com/prod/", &["a"]).for_publishing();
        assert_eq!(first.jwks_uri(), "https://issuer.example.com/prod/openid/v1/jwks");
        assert_eq!(write(&first, directory.path(), true).unwrap().len(), 2);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(write(&first, directory.path(), false).unwrap().len(), 2);
        assert!(write(&first, directory.path(), false).unwrap().is_empty());
        let rotated = documents("https://issuer.example.com/prod/", &["a", "b"]).for_publishing();
        assert_eq!(write(&rotated, directory.path(), false).unwrap(), [directory.path().join(KEYS)]);
    }

    #[test]
    fn keys_are_compared_by_what_they_are() {
        let difference = Difference::between(&documents("i", &["a", "b"]), &documents("i", &["b", "c"]));
        let ids = |keys: &[Key]| keys.iter().map(|key| key.kid.clone()).collect::<Vec<_>>();
        assert_eq!(
            (ids(&difference.missing), ids(&difference.surplus)),
            (vec!["a".to_owned()], vec!["c".to_owned()])
        );
        let mut other = documents("i", &["a"]);
        other.keys["keys"][0]["n"] = "another".into();
        assert_ne!(Difference::between(&documents("i", &["a"]), &other), Difference::default());
    }

    #[test]
    fn an_issuer_inside_and_a_private_key_are_told() {
        assert!(documents("https://kubernetes.default.svc", &["a"]).unreachable_outside().is_some());
        assert!(documents("https://10.1.2.3", &["a"]).unreachable_outside().is_some());
        assert!(
            documents("https://oidc.eks.eu-central-1.amazonaws.com/id/X", &["a"])
                .unreachable_outside()
                .is_none()
        );
        let mut private = documents("https://a", &["a"]);
        private.keys["keys"][0]["d"] = "secret".into();
        assert!(private.check().unwrap_err().to_string().contains("private"));
        assert!(documents("https://a", &[]).check().is_err());
    }
}
