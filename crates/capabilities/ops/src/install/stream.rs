//! The keys of the stream transport: made anew by every install, or taken away.

use super::{Install, InstallError, Reporter, at, written};
use crate::{names, stream};
use postern_kube::apply::{self, Change, Deletion, ObjectRef};
use postern_kube::k8s_openapi::api::core::v1::Secret;
use postern_kube::{KubeError, Reason};

/// How often the two objects are made to agree before another install is taken to be at work all the time.
const TRIES: usize = 6;

impl<R: Reporter> Install<'_, R> {
    /// Writes a new key, or takes an old one away. Returns the public key that the pod is to take.
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
        let new = stream::new_secret(&self.settings.pod, &super::planned::now())
            .map_err(|error| no_key(&secret, &error.into()))?;
        self.apply(&new).await?;
        // Of two installs at a time one wrote its Secret last: whoever then writes the public half reads it first, and
        // looks again whether it was still the last.
        let mut wrote: Option<String> = None;
        for _ in 0..TRIES {
            let opener = self.opener(&secret, &new).await?;
            let public = postern_wire::stream::openssh(&opener.key.public());
            if wrote.as_ref() == Some(&public) {
                return Ok(Some(public));
            }
            let operators =
                self.observe(&keys).await?.map(|keys| stream::operators(&keys)).unwrap_or_default();
            let desired = stream::authorized(&self.settings.pod, &opener, &operators);
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

    /// The key that is in the cluster; in a dry run, the one that would be.
    async fn opener(&self, of: &ObjectRef, new: &Secret) -> Result<stream::Opener, InstallError> {
        let there = if self.dry_run { None } else { self.observe(of).await? };
        let there = there.and_then(|object| object.try_parse().ok());
        stream::opener(&self.settings.pod, there.as_ref().unwrap_or(new)).map_err(|error| no_key(of, &error))
    }

    /// Tells the kubelet that the pod's mount of the keys is out of date: it looks at once, not within its minute.
    pub(super) async fn announce(&self, key: &str) -> Result<(), InstallError> {
        let of = self.settings.pod.pod_ref();
        let patch = serde_json::json!({ "metadata": { "annotations": { names::STREAM_KEY: key } } });
        apply::merge(self.cluster, &of, &patch).await.map(|_| ()).map_err(at(&of))
    }
}

fn no_key(of: &ObjectRef, error: &stream::OpenError) -> InstallError {
    let reason = Reason::Answer(error.to_string());
    at(of)(KubeError { attempt: "making the stream transport's key".to_owned(), reason })
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
