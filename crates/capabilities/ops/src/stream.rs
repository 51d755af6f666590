//! The stream transport's keys in the cluster, and connections to the agent with them.
//!
//! The pod mounts a `ConfigMap` with the authorized public keys. The private key, which every install generates anew,
//! is in a Secret of its own that the pod cannot reference. Operators may add their own keys to the `ConfigMap`.

use crate::objects;
use crate::ops_pod::OpsPod;
use postern_exec::stream::{Connection, Key, KeyError, StreamError, open};
use postern_kube::apply::{self, ObjectRef};
use postern_kube::k8s_openapi::ByteString;
use postern_kube::k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use postern_kube::kube::core::DynamicObject;
use postern_kube::{Cluster, KubeError, Reason, portforward};
use postern_wire::stream::{PublicKey, audience, from_openssh, openssh};
use std::time::Duration;
use tokio::time::Instant;

/// In the Secret: the private key, PKCS#8 DER.
const PRIVATE: &str = "key.der";
/// In the Secret: the random name of the installation.
const INSTALLATION: &str = "installation";
/// In the `ConfigMap`: lines in OpenSSH's format.
pub const AUTHORIZED: &str = "authorized_keys";
/// In the `ConfigMap`: the audience of a proof.
pub const AUDIENCE: &str = "audience";
/// The comment of the line for the Secret's key.
const OWN: &str = "postern-ops-install";

/// After a rotation the kubelet needs a moment to bring the new key into the pod.
const SYNC: Duration = Duration::from_secs(20);

/// The content of the Secret: a private key and its installation.
#[derive(Debug)]
pub struct InstallKey {
    /// The key.
    pub key: Key,
    /// The installation it is for.
    pub installation: String,
}

/// Why there is no stream to the ops pod.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The cluster refused, or there is no such pod.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// There are no keys.
    #[error("the ops pod was not installed with --stream")]
    NotInstalled,
    /// The objects differ from what an install writes.
    #[error("{0} is not as an install leaves it: {1}")]
    Damaged(ObjectRef, &'static str),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The connection to the agent failed.
    #[error("opening a stream to the ops pod: {0}")]
    Stream(#[from] StreamError),
    /// Several keys have this name, so it does not identify one of them.
    #[error("{} authorized keys are called {name:?}", keys.len())]
    Several {
        /// The name.
        name: String,
        /// Those keys, in the format of the lines.
        keys: Vec<String>,
    },
}

impl OpenError {
    /// Whether this user cannot use streams, so that an exec is used instead.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::NotInstalled => true,
            // Admission may refuse a port-forward that RBAC permits.
            Self::Kube(error) => error.is_forbidden() || matches!(error.reason, Reason::Refused { .. }),
            Self::Damaged(..) | Self::Key(_) | Self::Stream(_) | Self::Several { .. } => false,
        }
    }
}

/// Generates a new key and a new installation name.
pub fn new_secret(pod: &OpsPod, rotated_at: &str) -> Result<Secret, KeyError> {
    let mut secret = objects::secret_named(pod, &pod.stream_secret(), rotated_at);
    let private = Key::generate()?;
    // As random as the key, and public.
    let public = Key::from_pkcs8(&private, "the new key")?.public();
    let installation = blake3::hash(&public).to_hex()[..24].to_owned();
    secret.data = Some(
        [
            (PRIVATE.to_owned(), ByteString(private)),
            (INSTALLATION.to_owned(), ByteString(installation.into_bytes())),
        ]
        .into(),
    );
    Ok(secret)
}

/// Parses the Secret.
pub fn install_key(pod: &OpsPod, secret: &Secret) -> Result<InstallKey, OpenError> {
    let damaged = |what| OpenError::Damaged(pod.stream_secret_ref(), what);
    let data = secret.data.as_ref().ok_or_else(|| damaged("it is empty"))?;
    let private = data.get(PRIVATE).ok_or_else(|| damaged("key.der is missing"))?;
    let installation = data.get(INSTALLATION).ok_or_else(|| damaged("installation is missing"))?;
    let installation =
        String::from_utf8(installation.0.clone()).map_err(|_| damaged("installation is not text"))?;
    let key = Key::from_pkcs8(&private.0, "key.der").map_err(|_| damaged("key.der is not an Ed25519 key"))?;
    Ok(InstallKey { key, installation })
}

/// Returns the `ConfigMap` for this key and the operators' lines.
pub fn authorized(pod: &OpsPod, install_key: &InstallKey, operators: &[String]) -> ConfigMap {
    let InstallKey { key, installation } = install_key;
    let mut lines = format!("ssh-ed25519 {} {OWN}\n", openssh(&key.public()));
    operators.iter().for_each(|line| lines.extend([line.as_str(), "\n"]));
    let audience = audience(pod.namespace(), pod.name(), installation);
    objects::config_map(pod, &pod.stream_keys(), [(AUTHORIZED, lines), (AUDIENCE, audience)])
}

/// Returns the operators' lines in a `ConfigMap`.
pub fn operators(keys: &DynamicObject) -> Vec<String> {
    let text = keys.data["data"][AUTHORIZED].as_str().unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.filter(|line| line.split_ascii_whitespace().nth(2) != Some(OWN)).map(str::to_owned).collect()
}

/// Parses an operator's line: `ssh-ed25519 BASE64 [comment]`, as `ssh-keygen -t ed25519` writes it.
pub fn parse_line(line: &str) -> Result<(PublicKey, String), String> {
    let mut fields = line.split_ascii_whitespace();
    let (kind, field) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    if kind != "ssh-ed25519" {
        return Err(format!("its type is {kind:?}; only ssh-ed25519 keys can be authorized"));
    }
    let key = from_openssh(field).ok_or("the key after ssh-ed25519 cannot be read")?;
    let comment = fields.collect::<Vec<_>>().join("-");
    let comment = comment.chars().filter(char::is_ascii_graphic).take(128).collect::<String>();
    let comment = if comment.is_empty() || comment == OWN { "operator".to_owned() } else { comment };
    Ok((key, format!("ssh-ed25519 {field} {comment}")))
}

/// A change for [`authorize`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// Adds this line, as [`parse_line`] returns it; a line with the same key is replaced.
    Add(String),
    /// Removes the line with this key, or the only one with this comment.
    Revoke(String),
}

impl Authorization {
    /// Returns the operators' lines after the change.
    fn plan(&self, mut lines: Vec<String>) -> Result<Vec<String>, OpenError> {
        let field = |line: &str, at| line.split_ascii_whitespace().nth(at).unwrap_or_default().to_owned();
        match self {
            Self::Add(line) => {
                lines.retain(|other| field(other, 1) != field(line, 1));
                lines.push(line.clone());
            }
            Self::Revoke(name) => {
                let called = lines.iter().filter(|line| field(line, 2) == *name);
                let keys: Vec<String> = called.map(|line| field(line, 1)).collect();
                if keys.len() > 1 {
                    return Err(OpenError::Several { name: name.clone(), keys });
                }
                lines.retain(|line| field(line, 1) != *name && field(line, 2) != *name);
            }
        }
        Ok(lines)
    }
}

/// Changes the operators' keys; returns them before and after the change. Writes nothing with `dry_run`, or without a
/// change. The pod accepts the keys as soon as the kubelet has updated its mount.
pub async fn authorize(
    cluster: &Cluster,
    pod: &OpsPod,
    change: Option<&Authorization>,
    dry_run: bool,
) -> Result<(Vec<String>, Vec<String>), OpenError> {
    let of = pod.stream_keys_ref();
    loop {
        let Some(keys) = apply::get(cluster, &of).await? else { return Err(absent(cluster, pod, of).await) };
        let before = operators(&keys);
        let after = match change {
            Some(change) => change.plan(before.clone())?,
            None => before.clone(),
        };
        if dry_run || before == after {
            return Ok((before, after));
        }
        let text = keys.data["data"][AUTHORIZED].as_str().unwrap_or_default();
        let own = text.lines().filter(|line| line.split_ascii_whitespace().nth(2) == Some(OWN));
        let text =
            own.chain(after.iter().map(String::as_str)).fold(String::new(), |text, line| text + line + "\n");
        let patch = serde_json::json!({
            "metadata": { "resourceVersion": keys.metadata.resource_version },
            "data": { AUTHORIZED: text },
        });
        match apply::merge(cluster, &of, &patch).await {
            Ok(_) => return Ok((before, after)),
            // An install or another operator wrote at the same time.
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens a stream to the ops pod's agent: with the operator's `own` key, otherwise with the install's.
///
/// The port-forward is requested while the key is being read. The kubelet may need some seconds to bring a new key
/// into the pod; with `wait_for_key` this function waits for that.
pub async fn connect(
    cluster: &Cluster,
    pod: &OpsPod,
    own: Option<&Key>,
    wait_for_key: bool,
) -> Result<Connection, OpenError> {
    let end = Instant::now() + SYNC;
    loop {
        match once(cluster, pod, own).await {
            Err(OpenError::Stream(StreamError::Refused)) if wait_for_key && Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            other => return other,
        }
    }
}

async fn once(cluster: &Cluster, pod: &OpsPod, own: Option<&Key>) -> Result<Connection, OpenError> {
    let forward = portforward::open(cluster, pod.namespace(), pod.name(), postern_wire::STREAM_PORT);
    let (secret, keys) = (pod.stream_secret_ref(), pod.stream_keys_ref());
    match own {
        None => {
            let (secret, forward) = tokio::join!(apply::get(cluster, &secret), forward);
            let Some(secret) = secret? else {
                return Err(absent(cluster, pod, pod.stream_secret_ref()).await);
            };
            let secret = secret
                .try_parse()
                .map_err(|_| OpenError::Damaged(pod.stream_secret_ref(), "it cannot be read"))?;
            let InstallKey { key, installation } = install_key(pod, &secret)?;
            let (reader, writer) = forward?;
            let audience = audience(pod.namespace(), pod.name(), &installation);
            Ok(open(reader, writer, &key, &audience).await?)
        }
        Some(key) => {
            let (keys, forward) = tokio::join!(apply::get(cluster, &keys), forward);
            let Some(keys) = keys? else { return Err(absent(cluster, pod, pod.stream_keys_ref()).await) };
            let audience = keys.data["data"][AUDIENCE].as_str();
            let audience =
                audience.ok_or(OpenError::Damaged(pod.stream_keys_ref(), "audience is missing"))?;
            // It must be this pod's audience, or the proof could be used for another pod.
            if !audience.starts_with(&format!("{pod}/")) {
                return Err(OpenError::Damaged(pod.stream_keys_ref(), "audience belongs to another pod"));
            }
            let (reader, writer) = forward?;
            Ok(open(reader, writer, key, audience).await?)
        }
    }
}

/// Returns why a key is missing: a pod that listens was installed with it.
async fn absent(cluster: &Cluster, pod: &OpsPod, of: ObjectRef) -> OpenError {
    match postern_kube::pods::get(cluster, pod.namespace(), pod.name()).await {
        Ok(Some(pod)) if listens(&pod) => OpenError::Damaged(of, "it is missing"),
        _ => OpenError::NotInstalled,
    }
}

/// Whether a pod's PID 1 was started with the stream listener.
pub(crate) fn listens(pod: &Pod) -> bool {
    let command = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.command.as_ref());
    command.is_some_and(|command| command.iter().any(|argument| argument == "--stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";

    #[test]
    fn what_an_install_writes_it_can_read() {
        let secret = new_secret(&OpsPod::default(), "2026-01-01T00:00:00Z").unwrap();
        let install_key = install_key(&OpsPod::default(), &secret).unwrap();
        assert_eq!(install_key.installation.len(), 24);
        let map = authorized(&OpsPod::default(), &install_key, &[format!("{LINE} jo@example.com")]);
        let data = map.data.clone().unwrap();
        assert_eq!(data[AUDIENCE], format!("postern-ops/postern-ops/{}", install_key.installation));
        assert_eq!(data[AUTHORIZED].lines().count(), 2);
        // The operators' lines stay in the next install; the install's own line does not.
        let again = operators(&apply::dynamic(&map).unwrap());
        assert_eq!(again, [format!("{LINE} jo@example.com")]);
    }

    #[test]
    fn a_key_is_authorized_once_and_revoked_by_either_name() {
        let add =
            |line: &str, lines: &[String]| Authorization::Add(line.to_owned()).plan(lines.to_vec()).unwrap();
        let lines = add(&format!("{LINE} jo"), &[]);
        let lines = add(&format!("{LINE} jo-again"), &lines);
        assert_eq!(lines, [format!("{LINE} jo-again")]);
        let revoke = |name: &str| Authorization::Revoke(name.to_owned()).plan(lines.clone()).unwrap();
        assert!(revoke("jo-again").is_empty() && revoke(&LINE[12..]).is_empty());
        assert_eq!(revoke("someone"), lines);
    }

    #[test]
    fn of_two_keys_with_one_name_none_is_revoked_by_it() {
        let lines: Vec<String> =
            ["AAAA jo", "BBBB jo", "CCCC al"].map(|key| format!("ssh-ed25519 {key}")).into();
        let revoke = |name: &str| Authorization::Revoke(name.to_owned()).plan(lines.clone());
        let error = revoke("jo").unwrap_err();
        assert_eq!(error.to_string(), "2 authorized keys are called \"jo\"");
        assert_eq!(revoke("BBBB").unwrap(), [lines[0].clone(), lines[2].clone()]);
        assert_eq!(revoke("al").unwrap(), lines[..2]);
    }

    #[test]
    fn a_line_is_an_ed25519_key_or_it_is_refused() {
        assert_eq!(parse_line(LINE).unwrap(), ([1; 32], format!("{LINE} operator")));
        assert_eq!(parse_line(&format!("{LINE} jo smith")).unwrap().1, format!("{LINE} jo-smith"));
        // No operator's line can use the comment of the install's key.
        assert_eq!(parse_line(&format!("{LINE} {OWN}")).unwrap().1, format!("{LINE} operator"));
        for wrong in
            ["", "ssh-rsa AAAA", "ssh-ed25519", "ssh-ed25519 AAAA x", "command=\"x\" ssh-ed25519 AAAA"]
        {
            assert!(parse_line(wrong).is_err(), "{wrong}");
        }
    }
}
