//! The keys of the stream transport: every install generates new ones, or removes them.

use super::{Install, InstallError, Reporter, at, written};
use crate::{names, stream};
use postern_kube::apply::{self, Change, Deletion, ObjectRef};
use postern_kube::k8s_openapi::api::core::v1::Secret;
use postern_kube::{KubeError, Reason};

/// After this many tries to make the two objects agree, another install is assumed to be running.
const TRIES: usize = 6;

impl<R: Reporter> Install<'_, R> {
    /// Writes a new key, or removes an old one. Returns the public key that the pod must accept.
    pub(super) async fn stream(&mut self) -> Result<Option<String>, InstallError> {
        let (secret, keys) = (self.settings.pod.stream_secret_ref(), self.settings.pod.stream_keys_ref());
        if !self.settings.stream {
            for of in [keys.clone(), secret] {
                if let Some(there) = self.observe(&of).await? {
                    let operators = if of == keys { stream::operators(&there).len() } else { 0 };
                    if operators > 0 {
                        self.reporter.warn(&format!(
                            "without --stream the keys of operators are taken away too: {operators}, to be authorized anew"
                        ));
                    }
                    if !self.dry_run {
                        let any = Deletion::default();
                        apply::delete(self.cluster, &of, &any, self.settings.timeout)
                            .await
                            .map_err(at(&of))?;
                    }
                    self.record(Change::Deleted, of, Vec::new());
                }
            }
            return Ok(None);
        }
        let new = stream::new_secret(&self.settings.pod, &super::account_and_secret::now())
            .map_err(|error| no_key(&secret, &error.into()))?;
        self.apply(&new).await?;
        // If two installs run at the same time, one of them writes its Secret last. Each reads the Secret before it
        // writes the public half, and checks again whether it was still the last.
        let mut wrote: Option<String> = None;
        for _ in 0..TRIES {
            let install_key = self.install_key(&secret, &new).await?;
            let public = postern_wire::stream::openssh(&install_key.key.public());
            if wrote.as_ref() == Some(&public) {
                return Ok(Some(public));
            }
            let operators =
                self.observe(&keys).await?.map(|keys| stream::operators(&keys)).unwrap_or_default();
            let desired = stream::authorized(&self.settings.pod, &install_key, &operators);
            if wrote.is_none() {
                self.apply(&desired).await?;
            } else {
                let desired = written(&desired, &keys)?;
                apply::apply(self.cluster, &desired, None, false).await.map_err(at(&keys))?;
            }
            if self.dry_run {
                return Ok(None);
            }
            wrote = Some(public);
        }
        Err(InstallError::Contended(keys))
    }

    /// Returns the key that is in the cluster; in a dry run, the key that would be.
    async fn install_key(&self, of: &ObjectRef, new: &Secret) -> Result<stream::InstallKey, InstallError> {
        let there = if self.dry_run { None } else { self.observe(of).await? };
        let there = there.and_then(|object| object.try_parse().ok());
        stream::install_key(&self.settings.pod, there.as_ref().unwrap_or(new))
            .map_err(|error| no_key(of, &error))
    }

    /// Makes the kubelet update the pod's mount of the keys at once, and not within a minute.
    pub(super) async fn notify_kubelet(&self, key: &str) -> Result<(), InstallError> {
        let of = self.settings.pod.pod_ref();
        let patch = serde_json::json!({ "metadata": { "annotations": { names::STREAM_KEY: key } } });
        apply::merge(self.cluster, &of, &patch).await.map(|_| ()).map_err(at(&of))
    }
}

fn no_key(of: &ObjectRef, error: &stream::OpenError) -> InstallError {
    let reason = Reason::Answer(error.to_string());
    at(of)(KubeError { attempt: "generating the stream transport's key".to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use crate::objects;
    use crate::settings::Access;

    #[test]
    fn only_the_public_half_is_mounted() {
        let mut settings = crate::settings::tests::settings(Access::None);
        let version =
            objects::MadeWith { version: "uid.1".to_owned(), rotated_at: "then".to_owned(), account: None };
        let without = serde_json::to_string(&objects::pod(&settings, &version)).unwrap();
        assert!(!without.contains("stream"));
        settings.stream = true;
        let with = serde_json::to_string(&objects::pod(&settings, &version)).unwrap();
        assert!(with.contains("postern-ops-stream-keys"));
        assert!(!with.contains("\"postern-ops-stream\""));
    }
}
