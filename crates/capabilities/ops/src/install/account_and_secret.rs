//! The steps of an install whose objects depend on the existing ones: the record of access, and the Secret.
//!
//! Each object is read once, planned from that, and written on the condition that its version is still the one that
//! was read. Otherwise the server refuses (409), and the plan is made again. So the record of a concurrent install is
//! never overwritten. A server-side apply cannot be limited to creating an object, so if two first installs run at
//! the same time, the later write wins, as it would after any number of reads.

use super::{Install, InstallError, Reporter, at, written};
use crate::identity::Identity;
use crate::settings::Access;
use crate::{names, objects};
use postern_identity::ANNOTATIONS;
use postern_kube::apply::{self, ObjectRef};
use postern_kube::k8s_openapi::ByteString;
use postern_kube::k8s_openapi::api::core::v1::Secret;
use postern_kube::kube::core::DynamicObject;
use postern_kube::kube::{Resource, ResourceExt};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// After this many plans, another install is assumed to be running.
const TRIES: usize = 6;

impl<R: Reporter> Install<'_, R> {
    /// Applies the plan for `existing`; `version` is the latest version that the plan is based on. Returns `false` if
    /// there is a newer version.
    async fn apply_planned<K>(
        &mut self,
        of: &ObjectRef,
        desired: &K,
        existing: Option<&DynamicObject>,
        version: Option<String>,
    ) -> Result<bool, InstallError>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let mut desired = written(desired, of)?;
        desired.metadata.resource_version = version;
        match apply::apply(self.cluster, &desired, existing, self.dry_run).await {
            Err(error) if error.is_conflict() => Ok(false),
            applied => self.applied(of.clone(), existing, applied).map(|()| true),
        }
    }

    /// Records the union of the old and the new access, and returns the old one.
    pub(super) async fn account(&mut self) -> Result<String, InstallError> {
        let of = self.settings.pod.account_ref();
        for _ in 0..TRIES {
            let existing = self.settled(&of).await?;
            let recorded =
                existing.as_ref().and_then(|object| object.annotations().get(names::CLUSTER_ACCESS));
            let before = recorded.cloned().unwrap_or_default();
            let desired = &self.settings.access;
            let record = if self.dry_run { desired.text() } else { union(&before, desired) };
            let mut version = existing.as_ref().and_then(ResourceExt::resource_version);
            let annotations =
                existing.as_ref().map(|object| object.annotations().clone()).unwrap_or_default();
            let trust = TrustPlan::of(&annotations, self.settings.identity.as_ref());
            if !trust.stale.is_empty() && !self.dry_run {
                // An apply leaves alone what others wrote; but no record of an ended trust may stay.
                match apply::merge(self.cluster, &of, &trust.without(version.as_deref())).await {
                    Ok(now) => version = now.resource_version(),
                    Err(error) if error.is_conflict() => continue,
                    Err(error) => return Err(at(&of)(error)),
                }
            }
            let since = trust.since.unwrap_or_else(now);
            let trusted = self.settings.identity.as_ref().map(|identity| (identity, since.as_str()));
            let desired = objects::service_account(&self.settings.pod, &record, trusted);
            if self.apply_planned(&of, &desired, existing.as_ref(), version).await? {
                if let Some(id) = trust.left {
                    self.reporter.receipt(&format!(
                        "  what was granted as {id} is no longer used and stays where it was granted; remove it with: \
                         postern ops uninstall --provider-only --confirm"
                    ));
                }
                return Ok(before);
            }
        }
        Err(InstallError::Contended(of))
    }

    pub(super) async fn secret(&mut self) -> Result<(), InstallError> {
        let of = self.settings.pod.secret_ref();
        let (mut warned, mut reported) = (false, false);
        for _ in 0..TRIES {
            let existing = self.settled(&of).await?;
            let secret: Option<Secret> = existing.clone().and_then(|object| object.try_parse().ok());
            let data = objects::secret_data(self.settings);
            let SecretPlan { rotated_at, foreign, emptied } = SecretPlan::of(secret.as_ref(), &data);
            // A provider's trust replaces the key.
            let emptied = emptied && self.settings.identity.is_none();
            if emptied && !std::mem::replace(&mut warned, true) {
                self.reporter.warn(
                    "no credential was found or named: the one in the ops pod is taken away (name it with --credential to keep one)",
                );
            }
            let others = existing.as_ref().map(|there| foreign_keys(there, &foreign)).unwrap_or_default();
            if !others.is_empty() && !std::mem::replace(&mut reported, true) {
                self.reporter.warn(&format!(
                    "what someone else put into {of} goes, as tools are given all that is in it: {}",
                    others.join(", ")
                ));
            }
            let mut version = existing.as_ref().and_then(ResourceExt::resource_version);
            // An apply leaves alone what others wrote; but this Secret may contain only the credential.
            if !foreign.is_empty() && !self.dry_run {
                match apply::merge(self.cluster, &of, &without(&foreign, version.as_deref())).await {
                    Ok(now) => version = now.resource_version(),
                    Err(error) if error.is_conflict() => continue,
                    Err(error) => return Err(at(&of)(error)),
                }
            }
            let rotated_at = rotated_at.unwrap_or_else(now);
            if self
                .apply_planned(
                    &of,
                    &objects::secret(&self.settings.pod, data, &rotated_at),
                    existing.as_ref(),
                    version,
                )
                .await?
            {
                return Ok(());
            }
        }
        Err(InstallError::Contended(of))
    }
}

/// Returns the access that may be granted during the install: the old and the desired access.
fn union(before: &str, desired: &Access) -> String {
    let desired = desired.text();
    let both: BTreeSet<&str> =
        before.split(',').chain(desired.split(',')).filter(|part| !part.is_empty()).collect();
    both.into_iter().collect::<Vec<_>>().join(",")
}

pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The changes of the annotations that record a provider's trust.
#[derive(Debug, PartialEq, Eq)]
struct TrustPlan {
    /// The time from which the same trust exists.
    since: Option<String>,
    /// Annotations that are no longer valid.
    stale: Vec<String>,
    /// A grant of ours that no annotation records any more.
    left: Option<String>,
}

impl TrustPlan {
    fn of(there: &BTreeMap<String, String>, identity: Option<&Identity>) -> Self {
        let desired = identity.map(|identity| identity.pod.annotations.as_slice()).unwrap_or_default();
        let grants = || ANNOTATIONS.iter().filter_map(|key| Some((*key, there.get(*key)?)));
        let is_desired = |key: &str| desired.iter().any(|(known, _)| known == key);
        let same = !desired.is_empty() && desired.iter().all(|(key, value)| there.get(key) == Some(value));
        let own = [names::TRUST_MANAGED, names::PROVISIONED_AT];
        let stale = grants().map(|(key, _)| key).filter(|key| !is_desired(key));
        let own = own.into_iter().filter(|key| desired.is_empty() && there.contains_key(*key));
        let managed = there.get(names::TRUST_MANAGED).is_some_and(|value| value == "true");
        let replaced = |id: &&String| !desired.iter().any(|(_, value)| value == *id);
        Self {
            since: there.get(names::PROVISIONED_AT).filter(|_| same).cloned(),
            stale: stale.chain(own).map(str::to_owned).collect(),
            left: grants().map(|(_, id)| id).find(replaced).filter(|_| managed).cloned(),
        }
    }

    /// Returns a merge patch that removes the stale annotations, if the account still has this version.
    fn without(&self, version: Option<&str>) -> serde_json::Value {
        let gone: serde_json::Map<String, serde_json::Value> =
            self.stale.iter().map(|key| (key.clone(), serde_json::Value::Null)).collect();
        serde_json::json!({ "metadata": { "resourceVersion": version, "annotations": gone } })
    }
}

/// The changes of the existing Secret.
#[derive(Debug, PartialEq, Eq)]
struct SecretPlan {
    /// When its value was last changed, unless it changes now.
    rotated_at: Option<String>,
    /// Keys that do not belong in it.
    foreign: Vec<String>,
    /// Whether the credential is removed without a new one.
    emptied: bool,
}

impl SecretPlan {
    fn of(existing: Option<&Secret>, data: &BTreeMap<String, ByteString>) -> Self {
        let there = existing.and_then(|secret| secret.data.clone()).unwrap_or_default();
        let same = existing.filter(|_| there == *data);
        Self {
            rotated_at: same.and_then(|secret| secret.annotations().get(names::ROTATED_AT).cloned()),
            emptied: !there.is_empty() && data.is_empty(),
            foreign: there.into_keys().filter(|key| !data.contains_key(key)).collect(),
        }
    }
}

/// Returns those of these keys of a Secret that no install of Postern wrote.
fn foreign_keys<'a>(there: &DynamicObject, keys: &'a [String]) -> Vec<&'a str> {
    let managed = there.metadata.managed_fields.iter().flatten();
    let ours = managed.filter(|managed| managed.manager.as_deref() == Some(apply::FIELD_MANAGER));
    let fields: Vec<_> = ours.filter_map(|managed| managed.fields_v1.as_ref()).collect();
    let is_ours =
        |key: &&str| fields.iter().any(|fields| fields.0["f:data"].get(format!("f:{key}")).is_some());
    keys.iter().map(String::as_str).filter(|key| !is_ours(key)).collect()
}

/// Returns a merge patch that removes keys from the Secret, if it still has this version.
fn without(keys: &[String], version: Option<&str>) -> serde_json::Value {
    let data: serde_json::Map<String, serde_json::Value> =
        keys.iter().map(|key| (key.clone(), serde_json::Value::Null)).collect();
    serde_json::json!({ "metadata": { "resourceVersion": version }, "data": data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops_pod::OpsPod;

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
    }

    #[test]
    fn the_record_is_the_wider_of_both() {
        let desired = Access::Namespaces(["b".to_owned(), "c".to_owned()].into());
        assert_eq!(union("", &Access::None), "");
        assert_eq!(union("a,b", &desired), "a,b,c");
        assert_eq!(union("a", &Access::All), "*,a");
    }

    #[test]
    fn a_secret_keeps_its_date_only_with_its_value() {
        let mut there =
            objects::secret(&OpsPod::default(), data(&[("KEY", "value"), ("FOREIGN", "x")]), "then");
        let plan = |there: &Secret, desired: &[(&str, &str)]| SecretPlan::of(Some(there), &data(desired));
        let foreign = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let expected = SecretPlan { rotated_at: None, foreign: foreign(&["FOREIGN"]), emptied: false };
        assert_eq!(plan(&there, &[("KEY", "value")]), expected);
        let expected = SecretPlan { rotated_at: None, foreign: foreign(&["FOREIGN", "KEY"]), emptied: true };
        assert_eq!(plan(&there, &[]), expected);
        there.data = Some(data(&[("KEY", "value")]));
        let kept = SecretPlan { rotated_at: Some("then".to_owned()), foreign: Vec::new(), emptied: false };
        assert_eq!(plan(&there, &[("KEY", "value")]), kept);
        let first = SecretPlan { rotated_at: None, foreign: Vec::new(), emptied: false };
        assert_eq!(plan(&there, &[("KEY", "other")]), first);
        assert_eq!(SecretPlan::of(None, &data(&[("KEY", "value")])), first);
    }

    #[test]
    fn whose_keys_they_are_is_told_by_their_managers() {
        let there: DynamicObject = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s", "managedFields": [
                { "manager": "postern", "fieldsV1": { "f:data": { "f:OLD": {} } } },
                { "manager": "kubectl-edit", "fieldsV1": { "f:data": { "f:OTHER": {} } } },
            ] },
        }))
        .unwrap();
        let keys = ["OLD".to_owned(), "OTHER".to_owned()];
        assert_eq!(foreign_keys(&there, &keys), ["OTHER"]);
        assert!(foreign_keys(&there, &keys[..1]).is_empty());
    }

    #[test]
    fn of_a_trust_that_has_ended_nothing_stays() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let (profile, managed, since) = (ANNOTATIONS[0], names::TRUST_MANAGED, names::PROVISIONED_AT);
        let there = map(&[(profile, "Profile-1"), (managed, "true"), (since, "then"), ("foreign", "x")]);
        let identity = |id: &str| crate::identity::tests::identity(id);
        let kept = TrustPlan::of(&there, Some(&identity("Profile-1")));
        assert_eq!(kept, TrustPlan { since: Some("then".to_owned()), stale: Vec::new(), left: None });
        let other = TrustPlan::of(&there, Some(&identity("Profile-2")));
        assert_eq!((other.since, other.stale.len(), other.left.as_deref()), (None, 0, Some("Profile-1")));
        let ended = TrustPlan::of(&there, None);
        assert_eq!(ended.stale, [profile, managed, since]);
        assert_eq!(ended.left.as_deref(), Some("Profile-1"));
        // An annotation that someone wrote by hand is removed too, but not reported as a grant of ours.
        let by_hand = TrustPlan::of(&map(&[(profile, "Profile-9")]), None);
        assert_eq!((by_hand.stale.len(), by_hand.left), (1, None));
    }

    #[test]
    fn keys_are_taken_out_of_the_version_that_was_read() {
        let expected = serde_json::json!({ "metadata": { "resourceVersion": "7" }, "data": { "A": null } });
        assert_eq!(without(&["A".to_owned()], Some("7")), expected);
    }
}
