//! The Roles for users, as objects and as commented YAML.

use super::{ACCESS, INSTALLER_ACCESS, OPERATORS, OperatorRole, Rule, Scope};
use crate::ops_pod::OpsPod;
use postern_kube::k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use postern_kube::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;

struct PrintedRole<'a> {
    /// `None` for a `ClusterRole`.
    namespace: Option<&'a str>,
    name: String,
    purpose: &'static str,
    rules: Vec<Rule>,
}

/// Returns the Roles for users; with the namespaces of `--cluster-access`, also the installer's Roles in each.
fn printed<'a>(pod: &'a OpsPod, access: &'a [String]) -> Vec<PrintedRole<'a>> {
    let ops = Some(pod.namespace());
    let mut all: Vec<_> = OPERATORS
        .iter()
        .map(|OperatorRole { name, scope, purpose, rules }| PrintedRole {
            namespace: ops.filter(|_| *scope == Scope::Ops),
            name: named(pod, *scope, name),
            purpose,
            rules: rules.to_vec(),
        })
        .collect();
    let with = |rules: &[Rule]| INSTALLER_ACCESS.iter().chain(rules).copied().collect();
    if !access.is_empty() {
        all.push(PrintedRole {
            namespace: ops,
            name: named(pod, Scope::Ops, "postern-installer-access"),
            purpose: "let the installer grant the ops pod access to its own credential Secret",
            // The installer already has a rule for reading the Secret itself.
            rules: with(&[]),
        });
    }
    for namespace in access {
        all.push(PrintedRole {
            namespace: Some(namespace),
            name: named(pod, Scope::Cluster, "postern-installer-access-tools"),
            purpose: "let the installer grant the ops pod access here: nobody can grant what they have not got",
            rules: with(ACCESS),
        });
    }
    all
}

/// Returns the name of a Role for users: `name` itself for the default pod, otherwise a name that differs from other
/// pods' Roles in the same place. Beyond the pod's namespace, the name includes the namespace too.
fn named(pod: &OpsPod, scope: Scope, name: &str) -> String {
    let default = OpsPod::default();
    match scope {
        Scope::Ops if pod.name() == default.name() => name.to_owned(),
        Scope::Ops => format!("{}:{name}", pod.name()),
        Scope::Cluster if *pod == default => name.to_owned(),
        Scope::Cluster => format!("{}:{}:{name}", pod.namespace(), pod.name()),
    }
}

/// A Role or a ClusterRole.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AnyRole {
    /// In one namespace.
    Role(Role),
    /// Cluster-scoped.
    ClusterRole(ClusterRole),
}

/// The Roles as objects.
pub fn roles(pod: &OpsPod, access: &[String]) -> Vec<AnyRole> {
    let object = |PrintedRole { namespace, name, purpose: _, rules }: PrintedRole<'_>| {
        let metadata =
            ObjectMeta { name: Some(name), namespace: namespace.map(str::to_owned), ..ObjectMeta::default() };
        let rules = Some(rules.iter().map(|rule| rule.policy(pod)).collect());
        match namespace {
            Some(_) => AnyRole::Role(Role { metadata, rules }),
            None => AnyRole::ClusterRole(ClusterRole { metadata, rules, aggregation_rule: None }),
        }
    };
    printed(pod, access).into_iter().map(object).collect()
}

/// Returns the Roles as commented YAML, for `kubectl apply -f -`.
pub fn manifests(pod: &OpsPod, access: &[String]) -> String {
    let mut out = String::new();
    for PrintedRole { namespace, name, purpose, rules } in printed(pod, access) {
        role(&mut out, pod, namespace, &name, purpose, &rules);
    }
    out
}

fn list<T: std::fmt::Debug>(all: &[T]) -> String {
    all.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", ")
}

fn role(out: &mut String, pod: &OpsPod, namespace: Option<&str>, name: &str, purpose: &str, rules: &[Rule]) {
    use std::fmt::Write as _;
    let kind = if namespace.is_some() { "Role" } else { "ClusterRole" };
    let namespace = namespace.map(|namespace| format!("  namespace: {namespace}\n")).unwrap_or_default();
    let _ = write!(
        out,
        "---\n# {purpose}\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n\
         {namespace}rules:\n"
    );
    for rule in rules {
        let Rule { group, resources, names, verbs, reason } = rule;

        let _ = writeln!(out, "  # {reason}");
        let _ = writeln!(out, "  - apiGroups: [{group:?}]");
        let _ = writeln!(out, "    resources: [{}]", list(resources));
        if !names.is_empty() {
            let _ = writeln!(out, "    resourceNames: [{}]", list(&rule.names(pod)));
        }
        let _ = writeln!(out, "    verbs: [{}]", list(verbs));
    }
}
