//! Every permission that Postern ever asks for, each with the reason why something breaks without it.

use crate::names;
use postern_kube::k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use postern_kube::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// One rule and why it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// Resources.
    pub resources: &'static [&'static str],
    /// Only the objects of these names; all when empty.
    pub names: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// What breaks without it.
    pub reason: &'static str,
}

impl Rule {
    /// As the API has it.
    pub fn policy(&self) -> PolicyRule {
        let Self { group, resources, names, verbs, reason: _ } = *self;
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            api_groups: Some(vec![group.to_owned()]),
            resources: Some(owned(resources)),
            resource_names: (!names.is_empty()).then(|| owned(names)),
            verbs: owned(verbs),
            non_resource_urls: None,
        }
    }
}

/// What tools in the ops pod may do where `--cluster-access` says so.
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
        // A WebSocket exec was authorized as get before Kubernetes 1.35, and is as create since.
        verbs: &["create", "get"],
        reason: "tools run commands in pods of these namespaces",
    },
];

/// What tools may do in the ops namespace itself, once they have any access at all.
pub const ACCESS_SECRET: &[Rule] = &[Rule {
    group: "",
    resources: &["secrets"],
    names: &[names::SECRET],
    verbs: &["get"],
    reason: "a workflow may hand the ops pod's own credential on; no other Secret can be read or listed",
}];

/// For a person who installs, re-installs and uninstalls, in the ops namespace.
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
        names: &[names::NAME],
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
        names: &[names::SECRET],
        verbs: &["get", "list", "watch", "patch", "delete"],
        reason: "a re-install compares and rotates the credential, an uninstall deletes it and waits; no other Secret",
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
        names: &[names::NAME],
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

/// What an installer needs besides, in each namespace given to `--cluster-access` and in the ops namespace.
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
        names: &[names::NAME, names::SECRET_ROLE],
        verbs: &["get", "list", "watch", "patch", "delete"],
        reason: "a re-install repairs them, and takes them away where access is no longer asked for",
    },
];

/// For a person who runs tools, in the ops namespace.
pub const RUNNER: &[Rule] = &[Rule {
    group: "",
    resources: &["pods/exec"],
    names: &[names::NAME],
    verbs: &["create", "get"],
    reason: "`postern run` is one exec into this one pod (get before Kubernetes 1.35, create since)",
}];

/// For a person who looks, in the ops namespace.
pub const VIEWER: &[Rule] = &[
    Rule {
        group: "",
        resources: &["pods"],
        names: &[names::NAME],
        verbs: &["get"],
        reason: "`ops show` reads the pod's state",
    },
    Rule {
        group: "",
        resources: &["serviceaccounts"],
        names: &[names::NAME],
        verbs: &["get"],
        reason: "`ops show` reads which identity and access the pod has",
    },
    Rule {
        group: "",
        resources: &["pods/log"],
        names: &[names::NAME],
        verbs: &["get"],
        reason: "`ops logs` reads the audit lines of past invocations",
    },
];

/// A Role for people, as `ops rbac` prints it.
#[derive(Debug, Clone, Copy)]
pub struct OperatorRole {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Its rules.
    pub rules: &'static [Rule],
}

/// The Roles for people.
pub const OPERATORS: &[OperatorRole] = &[
    OperatorRole {
        name: "postern-installer",
        purpose: "install, rotate and uninstall the ops pod (namespaces made beforehand by an administrator)",
        rules: INSTALLER,
    },
    OperatorRole { name: "postern-runner", purpose: "run tools in the ops pod", rules: RUNNER },
    OperatorRole {
        name: "postern-viewer",
        purpose: "look at the ops pod and its audit log; reads no Secret",
        rules: VIEWER,
    },
];

struct Printed<'a> {
    namespace: &'a str,
    name: &'static str,
    purpose: &'static str,
    rules: Vec<Rule>,
}

/// The Roles for people; with the namespaces of `--cluster-access`, also what an installer needs in each.
fn printed(access: &[String]) -> Vec<Printed<'_>> {
    let namespace = names::NAMESPACE;
    let mut all: Vec<_> = OPERATORS
        .iter()
        .map(|OperatorRole { name, purpose, rules }| Printed {
            namespace,
            name,
            purpose,
            rules: rules.to_vec(),
        })
        .collect();
    let with = |rules: &[Rule]| INSTALLER_ACCESS.iter().chain(rules).copied().collect();
    if !access.is_empty() {
        all.push(Printed {
            namespace,
            name: "postern-installer-access",
            purpose: "let the installer grant the ops pod access to its own credential Secret",
            // The Secret itself the installer may read already.
            rules: with(&[]),
        });
    }
    for namespace in access {
        all.push(Printed {
            namespace,
            name: "postern-installer-access-tools",
            purpose: "let the installer grant the ops pod access here: nobody can grant what they have not got",
            rules: with(ACCESS),
        });
    }
    all
}

/// The Roles as objects.
pub fn roles(access: &[String]) -> Vec<Role> {
    let all = printed(access).into_iter();
    all.map(|Printed { namespace, name, purpose: _, rules }| Role {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        rules: Some(rules.iter().map(Rule::policy).collect()),
    })
    .collect()
}

/// The same as commented YAML, ready for `kubectl apply -f -`.
pub fn manifests(access: &[String]) -> String {
    let mut out = String::new();
    for Printed { namespace, name, purpose, rules } in printed(access) {
        role(&mut out, namespace, name, purpose, &rules);
    }
    out
}

fn role(out: &mut String, namespace: &str, name: &str, purpose: &str, rules: &[Rule]) {
    use std::fmt::Write as _;
    let _ = write!(
        out,
        "---\n# {purpose}\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata:\n  name: {name}\n  \
         namespace: {namespace}\nrules:\n"
    );
    for Rule { group, resources, names, verbs, reason } in rules {
        let list = |all: &[&str]| all.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "  # {reason}");
        let _ = writeln!(out, "  - apiGroups: [{group:?}]");
        let _ = writeln!(out, "    resources: [{}]", list(resources));
        if !names.is_empty() {
            let _ = writeln!(out, "    resourceNames: [{}]", list(names));
        }
        let _ = writeln!(out, "    verbs: [{}]", list(verbs));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_reason_and_no_wildcard() {
        let all = [ACCESS, ACCESS_SECRET, INSTALLER, INSTALLER_ACCESS, RUNNER, VIEWER].concat();
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
}
