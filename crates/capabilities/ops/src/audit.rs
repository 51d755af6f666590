//! `ops audit`: compares the effective permissions of the `ServiceAccount` with the declared ones.
//!
//! The API server answers for the impersonated `ServiceAccount`, so every binding counts, whoever created it, and
//! those of its groups too. The permissions of every authenticated user (the cluster's defaults) are read in the same
//! way and left out.

pub use crate::names::BASELINE_USER;

use crate::names;
use crate::ops_pod::OpsPod;
use crate::rules::{self, Rule};
use crate::settings::Access;
use postern_kube::k8s_openapi::api::authorization::v1::{
    NonResourceRule, ResourceRule, SubjectRulesReviewStatus,
};
use postern_kube::kube::ResourceExt as _;
use postern_kube::{Cluster, KubeError, access};
use postern_report::{Finding, Object, Severity};
use std::collections::BTreeSet;

/// One permission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// The namespace; empty for URLs.
    pub namespace: String,
    /// Verb.
    pub verb: String,
    /// API group.
    pub group: String,
    /// Resource, or a URL.
    pub resource: String,
    /// Object name; empty for all.
    pub name: String,
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { namespace, verb, group, resource, name } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        if !name.is_empty() {
            write!(f, " {name:?}")?;
        }
        if namespace.is_empty() { Ok(()) } else { write!(f, " in namespace {namespace}") }
    }
}

/// The result of the audit.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// One finding for each excess or missing permission, and one for each namespace without any.
    pub findings: Vec<Finding>,
    /// Limits of the answer.
    pub notes: Vec<String>,
}

/// The rule that a ServiceAccount has no permission beyond the declared ones.
pub const EXCESS: &str = "rbac/excess";
/// The rule that a ServiceAccount has every declared permission.
pub const MISSING: &str = "rbac/missing";

/// Audits each namespace. `account` and `baseline` are clients that impersonate the two users.
pub async fn audit(
    pod: &OpsPod,
    account: &Cluster,
    baseline: &Cluster,
    namespaces: &[String],
    declared: &str,
) -> Result<Audit, KubeError> {
    let subject = Object::new("ServiceAccount", pod.name()).namespace(pod.namespace());
    let mut audit = Audit::default();
    let (mut excess, mut missing) = (BTreeSet::new(), BTreeSet::new());
    for namespace in namespaces {
        let has = access::rules(account, namespace).await?;
        let all = access::rules(baseline, namespace).await?;
        if has.incomplete {
            let why = has.evaluation_error.clone().unwrap_or_default();
            audit.notes.push(format!("the answer for namespace {namespace} may not be complete: {why}"));
        }
        let should = declared_in(pod, namespace, declared);
        let (more, less) = compare(pod, namespace, &has, &all, &should);
        if more.is_empty() && less.is_empty() {
            let message = "nothing beyond what was declared and what every authenticated user may do";
            audit.findings.push(Finding::new(
                EXCESS,
                Severity::Ok,
                Object::new("Namespace", namespace),
                message,
            ));
        }
        excess.extend(more);
        missing.extend(less);
    }
    let list = |permission: &Permission| {
        let scope = if permission.namespace.is_empty() {
            String::new()
        } else {
            format!(" -n {}", permission.namespace)
        };
        format!("kubectl auth can-i --list{scope} --as {}", pod.user())
    };
    for permission in &excess {
        let finding =
            Finding::new(EXCESS, Severity::Problem, subject.clone(), format!("not declared: {permission}"));
        let fix = "remove the permission from the Role that grants it, or declare it with `postern ops install --cluster-access`";
        audit.findings.push(finding.at_item(permission.to_string()).command(list(permission)).fix(fix));
    }
    for permission in &missing {
        let message = format!("declared, but not granted: {permission}");
        let finding = Finding::new(MISSING, Severity::Warning, subject.clone(), message);
        let fix = format!("run `postern ops install{}` with the same --cluster-access again", pod.options());
        audit.findings.push(finding.at_item(permission.to_string()).command(list(permission)).fix(fix));
    }
    let declared = if declared.is_empty() { "none" } else { declared };
    audit.notes.push(format!("declared cluster access: {declared}"));
    Ok(audit)
}

/// Returns the rules that were declared for a namespace.
fn declared_in(pod: &OpsPod, namespace: &str, declared: &str) -> Vec<Rule> {
    let (namespaces, all) = Access::parse(declared);
    let mut should = Vec::new();
    if all || namespaces.contains(namespace) {
        should.extend_from_slice(rules::ACCESS);
    }
    if namespace == pod.namespace() && (all || !namespaces.is_empty()) {
        should.extend_from_slice(rules::ACCESS_SECRET);
    }
    should
}

/// The default permission of every `ServiceAccount` in Kubernetes: reading the keys that verify its tokens
/// (`system:service-account-issuer-discovery`).
const DEFAULT_URLS: [&str; 3] =
    ["/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks"];

fn compare(
    pod: &OpsPod,
    namespace: &str,
    has: &SubjectRulesReviewStatus,
    baseline: &SubjectRulesReviewStatus,
    should: &[Rule],
) -> (Vec<Permission>, Vec<Permission>) {
    let (has, baseline) = (expand(namespace, has), expand(namespace, baseline));
    let policies: Vec<ResourceRule> = should
        .iter()
        .map(|rule| {
            let policy = rule.policy(pod);
            ResourceRule {
                api_groups: policy.api_groups,
                resources: policy.resources,
                resource_names: policy.resource_names,
                verbs: policy.verbs,
            }
        })
        .collect();
    let should =
        expand(namespace, &SubjectRulesReviewStatus { resource_rules: policies, ..Default::default() });
    let default = |one: &Permission| {
        one.namespace.is_empty() && one.verb == "get" && DEFAULT_URLS.contains(&one.resource.as_str())
    };
    let excess = has
        .iter()
        .filter(|one| !default(one) && !covered(one, &should) && !covered(one, &baseline))
        .cloned()
        .collect();
    let missing = should.iter().filter(|one| !covered(one, &has)).cloned().collect();
    (excess, missing)
}

fn covered(one: &Permission, by: &BTreeSet<Permission>) -> bool {
    by.contains(one)
        || by.iter().any(|wide| {
            let fits = |wide: &str, narrow: &str| wide == "*" || wide == narrow;
            let prefix = wide.resource.strip_suffix('*').filter(|_| wide.namespace.is_empty());
            fits(&wide.verb, &one.verb)
                && fits(&wide.group, &one.group)
                && (fits(&wide.resource, &one.resource)
                    || prefix.is_some_and(|prefix| one.resource.starts_with(prefix)))
                && (wide.name.is_empty() || wide.name == one.name)
                && wide.namespace == one.namespace
        })
}

fn expand(namespace: &str, status: &SubjectRulesReviewStatus) -> BTreeSet<Permission> {
    let mut all = BTreeSet::new();
    for ResourceRule { api_groups, resources, resource_names, verbs } in &status.resource_rules {
        let every = [String::new()];
        let names = resource_names.as_deref().filter(|names| !names.is_empty()).unwrap_or(&every);
        for group in api_groups.iter().flatten() {
            for resource in resources.iter().flatten() {
                for (name, verb) in names.iter().flat_map(|name| verbs.iter().map(move |verb| (name, verb))) {
                    all.insert(Permission {
                        namespace: namespace.to_owned(),
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.clone(),
                    });
                }
            }
        }
    }
    for NonResourceRule { non_resource_urls, verbs } in &status.non_resource_rules {
        for (url, verb) in
            non_resource_urls.iter().flatten().flat_map(|url| verbs.iter().map(move |verb| (url, verb)))
        {
            all.insert(Permission {
                namespace: String::new(),
                verb: verb.clone(),
                group: String::new(),
                resource: url.clone(),
                name: String::new(),
            });
        }
    }
    all
}

/// Returns the declared access in the account's annotation, as it is in the cluster.
pub async fn declared(cluster: &Cluster, pod: &OpsPod) -> Result<Option<String>, KubeError> {
    let account = postern_kube::apply::get(cluster, &pod.account_ref()).await?;
    Ok(account.map(|account| account.annotations().get(names::CLUSTER_ACCESS).cloned().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: &str) -> SubjectRulesReviewStatus {
        serde_json::from_str(json).unwrap()
    }

    const BASELINE: &str = r#"{"incomplete":false,"nonResourceRules":[{"verbs":["get"],"nonResourceURLs":["/api/*"]}],
        "resourceRules":[{"verbs":["create"],"apiGroups":["authorization.k8s.io"],"resources":["selfsubjectaccessreviews"]}]}"#;

    #[test]
    fn only_what_is_beyond_defaults_and_declaration_is_excess() {
        let has = status(
            r#"{"incomplete":false,"nonResourceRules":[{"verbs":["get"],"nonResourceURLs":["/api/v1","/openid/v1/jwks"]}],
            "resourceRules":[
            {"verbs":["create"],"apiGroups":["authorization.k8s.io"],"resources":["selfsubjectaccessreviews"]},
            {"verbs":["get"],"apiGroups":[""],"resources":["secrets"],"resourceNames":["postern-ops-credentials"]},
            {"verbs":["get"],"apiGroups":[""],"resources":["configmaps"]}]}"#,
        );
        let (excess, missing) =
            compare(&OpsPod::default(), "n", &has, &status(BASELINE), rules::ACCESS_SECRET);
        assert_eq!(
            excess.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["get configmaps in namespace n"]
        );
        assert!(missing.is_empty());
    }

    #[test]
    fn a_wildcard_is_never_covered_by_names() {
        let has = status(
            r#"{"incomplete":false,"nonResourceRules":[],
            "resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}"#,
        );
        let (excess, missing) = compare(&OpsPod::default(), "n", &has, &status(BASELINE), rules::ACCESS);
        assert_eq!(excess.len(), 1);
        assert!(missing.is_empty());
    }

    #[test]
    fn the_secret_rule_holds_in_its_namespace_only() {
        assert!(declared_in(&OpsPod::default(), "other", "a").is_empty());
        assert_eq!(declared_in(&OpsPod::default(), "postern-ops", "a"), rules::ACCESS_SECRET);
        assert_eq!(declared_in(&OpsPod::default(), "a", "a"), rules::ACCESS);
        assert_eq!(declared_in(&OpsPod::default(), "b", "*"), rules::ACCESS);
    }
}
