//! The ops pod's namespace and name, and the names of all its objects.

use crate::invalid_setting::{InvalidSetting, dns_name};
use crate::names;
use postern_kube::apply::ObjectRef;
use postern_kube::k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};

/// One ops pod of a cluster. Two ops pods share no object, so neither can read the other's keys or credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpsPod {
    namespace: String,
    name: String,
}

impl Default for OpsPod {
    fn default() -> Self {
        Self { namespace: names::NAMESPACE.to_owned(), name: names::NAME.to_owned() }
    }
}

impl std::fmt::Display for OpsPod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl OpsPod {
    /// Returns the pod with this name in this namespace; the defaults are those of the default pod.
    pub fn new(namespace: Option<String>, name: Option<String>) -> Result<Self, InvalidSetting> {
        let default = Self::default();
        let pod =
            Self { namespace: namespace.unwrap_or(default.namespace), name: name.unwrap_or(default.name) };
        dns_name("--namespace", &pod.namespace, 63)?;
        dns_name("--name", &pod.name, 63)?;
        Ok(pod)
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name of the pod and of its ServiceAccount.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the namespaces that an install creates and an uninstall deletes: those of the default pod. Any other
    /// namespace belongs to its team.
    pub fn own_namespaces(&self) -> &'static [&'static str] {
        if self.namespace == names::NAMESPACE { &[names::NAMESPACE, names::TEST_NAMESPACE] } else { &[] }
    }

    /// The credential Secret.
    pub fn secret(&self) -> String {
        format!("{}-credentials", self.name)
    }

    /// The Role that permits reading the credential Secret, and its binding.
    pub fn secret_role(&self) -> String {
        self.secret()
    }

    /// The Role in the namespaces of `--cluster-access`, the `ClusterRole` of `--cluster-access all`, and their bindings.
    /// The namespace is part of the name, as pods of several namespaces may have access to the same one.
    pub fn access_role(&self) -> String {
        match *self == Self::default() {
            true => names::NAME.to_owned(),
            false => format!("{}:{}", self.namespace, self.name),
        }
    }

    /// The Secret with the stream transport's private key.
    pub fn stream_secret(&self) -> String {
        format!("{}-stream", self.name)
    }

    /// The `ConfigMap` with the public keys that the agent's listener accepts.
    pub fn stream_keys(&self) -> String {
        format!("{}-stream-keys", self.name)
    }

    /// The ServiceAccount's user name.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// The groups that the API server assigns to the ServiceAccount.
    pub fn groups(&self) -> [String; 3] {
        [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", self.namespace),
            "system:authenticated".to_owned(),
        ]
    }

    /// The reference to the pod.
    pub fn pod_ref(&self) -> ObjectRef {
        ObjectRef::of::<Pod>(Some(&self.namespace), &self.name)
    }

    /// Its ServiceAccount.
    pub fn account_ref(&self) -> ObjectRef {
        ObjectRef::of::<ServiceAccount>(Some(&self.namespace), &self.name)
    }

    /// Its credential Secret.
    pub fn secret_ref(&self) -> ObjectRef {
        ObjectRef::of::<Secret>(Some(&self.namespace), &self.secret())
    }

    /// The Secret with the stream transport's private key.
    pub fn stream_secret_ref(&self) -> ObjectRef {
        ObjectRef::of::<Secret>(Some(&self.namespace), &self.stream_secret())
    }

    /// The `ConfigMap` with the public keys.
    pub fn stream_keys_ref(&self) -> ObjectRef {
        ObjectRef::of::<ConfigMap>(Some(&self.namespace), &self.stream_keys())
    }

    /// Returns the command line's options that name this pod, with a leading space; empty for the default pod.
    pub fn options(&self) -> String {
        let default = Self::default();
        let mut options = String::new();
        if self.namespace != default.namespace {
            options.push_str(&format!(" -n {}", self.namespace));
        }
        if self.name != default.name {
            options.push_str(&format!(" --name {}", self.name));
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str) -> OpsPod {
        OpsPod::new(Some(namespace.to_owned()), Some(name.to_owned())).unwrap()
    }

    #[test]
    fn the_default_pod_keeps_its_names() {
        let pod = OpsPod::new(None, None).unwrap();
        assert_eq!(pod, OpsPod::default());
        assert_eq!(pod.to_string(), "postern-ops/postern-ops");
        assert_eq!(
            (pod.secret(), pod.access_role()),
            ("postern-ops-credentials".to_owned(), "postern-ops".to_owned())
        );
        assert_eq!((pod.own_namespaces().len(), pod.options()), (2, String::new()));
    }

    #[test]
    fn two_pods_share_no_name_where_they_could_meet() {
        let (one, other) = (pod("team-a", "postern-ops"), pod("team-b", "postern-ops"));
        assert_ne!(one.access_role(), other.access_role());
        let beside = pod("team-a", "second");
        for (ours, theirs) in [
            (one.secret(), beside.secret()),
            (one.stream_secret(), beside.stream_secret()),
            (one.stream_keys(), beside.stream_keys()),
            (one.access_role(), beside.access_role()),
        ] {
            assert_ne!(ours, theirs);
        }
        assert!(one.own_namespaces().is_empty());
        assert_eq!(beside.options(), " -n team-a --name second");
    }

    #[test]
    fn names_are_judged_before_anything_is_sent() {
        assert!(OpsPod::new(Some("Team".to_owned()), None).is_err());
        assert!(OpsPod::new(None, Some("a.b".to_owned())).is_err());
    }
}
