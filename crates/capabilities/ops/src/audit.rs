//! `ops audit`: what the `ServiceAccount` may really do, against what was declared.
//!
//! The API server itself is asked, in the name of the `ServiceAccount`, so every binding counts, whoever made it:
//! also those of its groups. What every authenticated user may do (the cluster's defaults) is asked the same way and
//! left out.

use crate::names;
use crate::ops_pod::OpsPod;
use crate::rules::{self, Rule};
use crate::settings::Access;
use postern_kube::k8s_openapi::api::authorization::v1::{
    NonResourceRule, ResourceRule, SubjectRulesReviewStatus,
};
use postern_kube::kube::ResourceExt as _;
use postern_kube::{Cluster, KubeError, access};
use serde::Serialize;
use std::collections::BTreeSet;

/// A user of no name and no group but that of everyone who is somebody: what it may, all may.
pub const BASELINE_USER: &str = "postern:audit:nobody";

/// One permission.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// Where; empty for URLs.
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

/// What the audit found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// The `ServiceAccount`.
    pub subject: String,
    /// What was declared at install.
    pub declared: String,
    /// The namespaces that were looked at.
    pub namespaces: Vec<String>,
    /// Permissions beyond what was declared.
    pub excess: Vec<Permission>,
    /// Declared permissions that it has not got.
    pub missing: Vec<Permission>,
    /// What the answer may lack.
    pub notes: Vec<String>,
}

/// Asks in each namespace. `account` and `baseline` are connections in the name of the two users.
pub async fn audit(
    pod: &OpsPod,
    account: &Cluster,
    baseline: &Cluster,
    namespaces: &[String],
    declared: &str,
) -> Result<Audit, KubeError> {
    let mut audit = Audit {
        subject: pod.user(),
        declared: if declared.is_empty() { "none".to_owned() } else { declared.to_owned() },
        namespaces: namespaces.to_vec(),
        ..Audit::default()
    };
    for namespace in namespaces {
        let has = access::rules(account, namespace).await?;
        let all = access::rules(baseline, namespace).await?;
        if has.incomplete {
            let why = has.evaluation_error.clone().unwrap_or_default();
            audit.notes.push(format!("the answer for namespace {namespace} may not be complete: {why}"));
        }
        let should = declared_in(pod, namespace, declared);
        let (excess, missing) = compare(pod, namespace, &has, &all, &should);
        audit.excess.extend(excess);
        audit.missing.extend(missing);
    }
    audit.excess.sort();
    audit.excess.dedup();
    Ok(audit)
}

/// The rules that were declared for a namespace.
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

/// What every `ServiceAccount` may do by Kubernetes' own default: read the keys its tokens are checked with
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

/// What the account's annotation declares, as it is in the cluster.
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
