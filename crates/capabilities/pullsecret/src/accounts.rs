//! The list `imagePullSecrets` of a `ServiceAccount`.
//!
//! It is an atomic list: server-side apply would take all of it from the user and the platform. So it is read, changed
//! and written with the resource version. An annotation records what was added, and so what may be removed.

use kube::ResourceExt as _;
use std::collections::{BTreeMap, BTreeSet};

/// The annotation with the names that Postern added, separated by commas.
pub const RECORD: &str = "postern.dev/pull-secrets";

/// A `ServiceAccount`, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    /// The resource version that a change is based on.
    pub resource_version: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The names in `imagePullSecrets`, in order.
    pub names: Vec<String>,
    /// The names that Postern added.
    pub recorded: BTreeSet<String>,
}

impl Account {
    /// Reads a `ServiceAccount`.
    pub fn of(object: &k8s_openapi::api::core::v1::ServiceAccount) -> Self {
        let record = object.annotations().get(RECORD).map(String::as_str).unwrap_or_default();
        Self {
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            resource_version: object.resource_version().unwrap_or_default(),
            labels: object.labels().clone(),
            names: object.image_pull_secrets.iter().flatten().map(|one| one.name.clone()).collect(),
            recorded: record.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        }
    }

    /// The list and the record that it is to have; `None` if nothing is to change.
    ///
    /// What others put there keeps its place, and is never recorded as ours.
    pub(crate) fn with(&self, desired: &BTreeSet<String>) -> Option<(Vec<String>, BTreeSet<String>)> {
        let Self { names, recorded, .. } = self;
        let is_removed = |name: &&String| recorded.contains(*name) && !desired.contains(*name);
        let mut list: Vec<String> = names.iter().filter(|name| !is_removed(name)).cloned().collect();
        let mut record: BTreeSet<String> = recorded
            .iter()
            .filter(|name| desired.contains(*name) && names.contains(*name))
            .cloned()
            .collect();
        for name in desired.iter().filter(|name| !names.contains(*name)) {
            list.push(name.clone());
            record.insert(name.clone());
        }
        (list != *names || record != *recorded).then_some((list, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(names: &[&str], recorded: &[&str]) -> Account {
        Account {
            name: "a".to_owned(),
            uid: String::new(),
            resource_version: "1".to_owned(),
            labels: BTreeMap::new(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            recorded: recorded.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn exactly_what_was_added_is_removed() {
        for (names, recorded, desired, want) in [
            // Added at the end; what is there keeps its order.
            (
                &["z", "user"][..],
                &[][..],
                &["b", "a"][..],
                Some((&["z", "user", "a", "b"][..], &["a", "b"][..])),
            ),
            // What the user named is not ours, even if it is desired.
            (&["user"], &[], &["user"], None),
            (&["user"], &[], &[], None),
            (&["a", "user", "b"], &["a", "b"], &["b"], Some((&["a", "user", "b"][1..], &["b"]))),
            (&["user", "a"], &["a"], &["a"], None),
            // Somebody took it out: it comes back.
            (&["user"], &["a"], &["a"], Some((&["user", "a"], &["a"]))),
            // Somebody took it out, and it is no longer wanted: only the record goes.
            (&["user"], &["a"], &[], Some((&["user"], &[]))),
            (&[], &[], &[], None),
        ] {
            let desired = desired.iter().map(|name| (*name).to_owned()).collect();
            let found = account(names, recorded).with(&desired);
            let found = found.as_ref().map(|(list, record)| {
                (
                    list.iter().map(String::as_str).collect::<Vec<_>>(),
                    record.iter().map(String::as_str).collect::<Vec<_>>(),
                )
            });
            assert_eq!(
                found,
                want.map(|(list, record)| (list.to_vec(), record.to_vec())),
                "{names:?} {desired:?}"
            );
        }
    }
}
