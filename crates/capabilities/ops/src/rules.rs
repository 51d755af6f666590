//! Every permission that Postern needs, each with the reason.

mod manifests;

use crate::names;
use crate::ops_pod::OpsPod;
use postern_kube::k8s_openapi::api::rbac::v1::PolicyRule;

pub use manifests::{AnyRole, manifests, roles};

/// An object that a rule is limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// The pod, or its ServiceAccount.
    Pod,
    /// The credential Secret.
    Secret,
    /// The Secret with the stream transport's private key.
    StreamSecret,
    /// The `ConfigMap` with the stream transport's public keys.
    StreamKeys,
    /// The Role of `--cluster-access`.
    AccessRole,
    /// The Role that permits reading the credential Secret.
    SecretRole,
    /// The group of all `ServiceAccounts`.
    Accounts,
    /// The group of the `ServiceAccounts` of the pod's namespace.
    NamespaceAccounts,
    /// The group of all authenticated users.
    Authenticated,
    /// The user that an audit compares with.
    Baseline,
}

impl Named {
    fn of(self, pod: &OpsPod) -> String {
        let [accounts, of_namespace, authenticated] = pod.groups();
        match self {
            Self::Pod => pod.name().to_owned(),
            Self::Secret => pod.secret(),
            Self::StreamSecret => pod.stream_secret(),
            Self::StreamKeys => pod.stream_keys(),
            Self::AccessRole => pod.access_role(),
            Self::SecretRole => pod.secret_role(),
            Self::Accounts => accounts,
            Self::NamespaceAccounts => of_namespace,
            Self::Authenticated => authenticated,
            Self::Baseline => names::BASELINE_USER.to_owned(),
        }
    }
}

/// One rule and why it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// Resources.
    pub resources: &'static [&'static str],
    /// Only the objects of these names; all when empty.
    pub names: &'static [Named],
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// The reason: what fails without it.
    pub reason: &'static str,
}

impl Rule {
    /// Returns the names of the objects that it is limited to.
    pub fn names(&self, pod: &OpsPod) -> Vec<String> {
        self.names.iter().map(|named| named.of(pod)).collect()
    }

    /// Returns the rule as an API object.
    pub fn policy(&self, pod: &OpsPod) -> PolicyRule {
        let Self { group, resources, names, verbs, reason: _ } = *self;
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(owned(resources)),
            resource_names: (!names.is_empty()).then(|| self.names(pod)),
            verbs: owned(verbs),
            non_resource_urls: None,
        }
    }
}

/// The permissions of tools in the ops pod in the namespaces of `--cluster-access`.
pub const ACCESS: &[Rule] = &[
    Rule {
        group: "batch",
        resources: &["jobs"],
        names: &[],
        verbs: &["get", "list", "watch", "create", "delete"],
        reason: "one-shot workloads are Jobs: made, watched, and deleted when they are done",
    },
    Rule {
        group: "",
        resources: &["pods"],
        names: &[],
        verbs: &["get", "list", "watch"],
        reason: "a Job's pods are found by their labels; they are never made or deleted directly",
    },
    Rule {
        group: "",
        resources: &["pods/log"],
        names: &[],
        verbs: &["get", "list"],
        reason: "what a Job's pod printed is read from its log",
    },
    Rule {
        group: "",
        resources: &["pods/exec"],
        names: &[],
        // A WebSocket exec was authorized as get before Kubernetes 1.35, and as create since.
        verbs: &["create", "get"],
        reason: "tools run commands in pods of these namespaces",
    },
];

/// The permissions of tools in the ops namespace itself, if they have any access at all.
pub const ACCESS_SECRET: &[Rule] = &[Rule {
    group: "",
    resources: &["secrets"],
    names: &[Named::Secret],
    verbs: &["get"],
    reason: "a workflow may hand the ops pod's own credential on; no other Secret can be read or listed",
}];

/// For a user who installs, re-installs and uninstalls, in the ops namespace.
pub const INSTALLER: &[Rule] = &[
    Rule {
        group: "",
        resources: &["serviceaccounts"],
        names: &[],
        verbs: &["create"],
        reason: "the first install makes the pod's ServiceAccount (a create cannot be limited to a name)",
    },
    Rule {
        group: "",
        resources: &["serviceaccounts"],
        names: &[Named::Pod],
        verbs: &["get", "list", "watch", "patch", "delete"],
        reason: "a re-install repairs it, an uninstall deletes it and waits",
    },
    Rule {
        group: "",
        resources: &["secrets"],
        names: &[],
        verbs: &["create"],
        reason: "the first install makes the credential Secret (a create cannot be limited to a name)",
    },
    Rule {
        group: "",
        resources: &["secrets"],
        names: &[Named::Secret, Named::StreamSecret],
        verbs: &["get", "list", "watch", "patch", "delete"],
        reason: "a re-install compares and rotates the credential and the stream's key, an uninstall deletes them and \
                 waits; no other Secret",
    },
    Rule {
        group: "",
        resources: &["configmaps"],
        names: &[],
        verbs: &["create"],
        reason: "an install with --stream makes the list of authorized keys (a create cannot be limited to a name)",
    },
    Rule {
        group: "",
        resources: &["configmaps"],
        names: &[Named::StreamKeys],
        verbs: &["get", "list", "watch", "patch", "delete"],
        reason: "a re-install rotates the keys, `ops authorize` changes them, an uninstall deletes them and waits",
    },
    Rule {
        group: "",
        resources: &["pods"],
        names: &[],
        verbs: &["create"],
        reason: "the pod is made (a create cannot be limited to a name)",
    },
    Rule {
        group: "",
        resources: &["pods"],
        names: &[Named::Pod],
        verbs: &["get", "list", "watch", "patch", "delete"],
        reason: "the pod is compared, applied, watched until it is ready, and replaced",
    },
    Rule {
        group: "",
        resources: &["events"],
        names: &[],
        verbs: &["list"],
        reason: "when the pod does not start, its events say why",
    },
];

/// The additional permissions of an installer, in each namespace of `--cluster-access` and in the ops namespace.
pub const INSTALLER_ACCESS: &[Rule] = &[
    Rule {
        group: "rbac.authorization.k8s.io",
        resources: &["roles", "rolebindings"],
        names: &[],
        verbs: &["create"],
        reason: "access is granted by a Role and a RoleBinding (a create cannot be limited to a name)",
    },
    Rule {
        group: "rbac.authorization.k8s.io",
        resources: &["roles", "rolebindings"],
        names: &[Named::AccessRole, Named::SecretRole],
        verbs: &["get", "list", "watch", "patch", "delete"],
        reason: "a re-install repairs them, and takes them away where access is no longer asked for",
    },
];

/// For a user who runs tools, in the ops namespace.
pub const RUNNER: &[Rule] = &[Rule {
    group: "",
    resources: &["pods/exec"],
    names: &[Named::Pod],
    verbs: &["create", "get"],
    reason: "`postern run` is one exec into this one pod (get before Kubernetes 1.35, create since)",
}];

/// For a user who runs tools by stream, in the ops namespace.
pub const STREAMER: &[Rule] = &[
    Rule {
        group: "",
        resources: &["pods/portforward"],
        names: &[Named::Pod],
        verbs: &["create", "get"],
        reason: "`postern run --transport stream` is one port-forward to this one pod (get before Kubernetes 1.35, \
                 create since)",
    },
    Rule {
        group: "",
        resources: &["secrets"],
        names: &[Named::StreamSecret],
        verbs: &["get"],
        reason: "the private key that the agent's listener asks for (not needed with a key of one's own)",
    },
    Rule {
        group: "",
        resources: &["configmaps"],
        names: &[Named::StreamKeys],
        verbs: &["get"],
        reason: "with a key of one's own, which installation it has to be proved to",
    },
];

/// For a user who reads the state, in the ops namespace.
pub const VIEWER: &[Rule] = &[
    Rule {
        group: "",
        resources: &["pods"],
        names: &[Named::Pod],
        verbs: &["get"],
        reason: "`ops show` reads the pod's state",
    },
    Rule {
        group: "",
        resources: &["serviceaccounts"],
        names: &[Named::Pod],
        verbs: &["get"],
        reason: "`ops show` reads which identity and access the pod has",
    },
    Rule {
        group: "",
        resources: &["pods/log"],
        names: &[Named::Pod],
        verbs: &["get"],
        reason: "`ops logs` reads the audit lines of past invocations",
    },
];

/// For a user who audits, in the ops namespace.
pub const AUDITOR: &[Rule] = &[
    Rule {
        group: "",
        resources: &["serviceaccounts"],
        names: &[Named::Pod],
        verbs: &["get"],
        reason: "`ops audit` reads on the ServiceAccount what was declared at install",
    },
    Rule {
        group: "",
        resources: &["serviceaccounts"],
        names: &[Named::Pod],
        verbs: &["impersonate"],
        reason: "`ops audit` asks the API server in the ServiceAccount's own name what it may do",
    },
];

/// The additional permissions of an auditor, on cluster-scoped kinds.
pub const AUDITOR_CLUSTER: &[Rule] = &[
    Rule {
        group: "",
        resources: &["groups"],
        names: &[Named::Accounts, Named::NamespaceAccounts, Named::Authenticated],
        verbs: &["impersonate"],
        reason: "the ServiceAccount is in these groups, and what was granted to a group counts too",
    },
    Rule {
        group: "",
        resources: &["users"],
        names: &[Named::Baseline],
        verbs: &["impersonate"],
        reason: "what everyone may do is asked in the name of this user, who is nobody else, and left out",
    },
    Rule {
        group: "",
        resources: &["namespaces"],
        names: &[],
        verbs: &["list"],
        reason: "every namespace is looked at; without it only the ops pod's own and the declared ones are",
    },
];

/// The scope of a Role for users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In the ops namespace: a Role.
    Ops,
    /// In the whole cluster: a `ClusterRole`, for cluster-scoped kinds.
    Cluster,
}

/// A Role for users, as `ops rbac` prints it.
#[derive(Debug, Clone, Copy)]
pub struct OperatorRole {
    /// Its name.
    pub name: &'static str,
    /// Its scope.
    pub scope: Scope,
    /// Its purpose.
    pub purpose: &'static str,
    /// Its rules.
    pub rules: &'static [Rule],
}

/// The Roles for users.
pub const OPERATORS: &[OperatorRole] = &[
    OperatorRole {
        name: "postern-installer",
        scope: Scope::Ops,
        purpose: "install, rotate and uninstall the ops pod (namespaces made beforehand by an administrator)",
        rules: INSTALLER,
    },
    OperatorRole {
        name: "postern-runner",
        scope: Scope::Ops,
        purpose: "run tools in the ops pod",
        rules: RUNNER,
    },
    OperatorRole {
        name: "postern-streamer",
        scope: Scope::Ops,
        purpose: "run tools in an ops pod that was installed with --stream, without the runtime's exec",
        rules: STREAMER,
    },
    OperatorRole {
        name: "postern-viewer",
        scope: Scope::Ops,
        purpose: "look at the ops pod and its audit log; reads no Secret",
        rules: VIEWER,
    },
    OperatorRole {
        name: "postern-auditor",
        scope: Scope::Ops,
        purpose: "audit what the ops pod may do; whoever holds it may act as the pod's ServiceAccount",
        rules: AUDITOR,
    },
    OperatorRole {
        name: "postern-auditor",
        scope: Scope::Cluster,
        purpose: "audit what the ops pod may do: users, groups and namespaces are in no namespace",
        rules: AUDITOR_CLUSTER,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_reason_and_no_wildcard() {
        let all = [
            ACCESS,
            ACCESS_SECRET,
            INSTALLER,
            INSTALLER_ACCESS,
            RUNNER,
            STREAMER,
            VIEWER,
            AUDITOR,
            AUDITOR_CLUSTER,
        ]
        .concat();
        for rule in all {
            assert!(rule.reason.len() > 20, "{rule:?}");
            assert!(!rule.verbs.contains(&"*") && !rule.resources.contains(&"*") && rule.group != "*");
        }
    }

    #[test]
    fn only_creates_are_not_limited_to_names() {
        for rule in INSTALLER.iter().filter(|rule| rule.names.is_empty()) {
            assert!(rule.verbs == ["create"] || rule.resources == ["events"], "{rule:?}");
        }
    }

    #[test]
    fn nobody_is_impersonated_but_whom_the_audit_asks_for() {
        for rule in [AUDITOR, AUDITOR_CLUSTER].concat() {
            assert!(rule.verbs != ["impersonate"] || !rule.names.is_empty(), "{rule:?}");
        }
    }
}
