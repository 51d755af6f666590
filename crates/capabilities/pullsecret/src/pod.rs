//! What a new Pod is to name.

use crate::plan::NamespaceInfo;
use crate::rule::{Rule, SecretState, Sources};
use k8s_openapi::api::core::v1::PodSpec;
use postern_registry::Image;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A Pod at its admission.
#[derive(Debug, Clone, Copy)]
pub struct PodInfo<'a> {
    /// Its namespace.
    pub namespace: &'a NamespaceInfo,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The labels of its `ServiceAccount`.
    pub account_labels: &'a BTreeMap<String, String>,
    /// Its spec.
    pub spec: &'a PodSpec,
}

/// The names of the Secrets that a Pod is to name in addition to those that it names.
///
/// A copy may not exist yet: the kubelet tries again until it does.
pub fn secrets_of_pod<'r>(
    pod: &PodInfo,
    rules: impl IntoIterator<Item = &'r Arc<Rule>>,
    sources: &Sources,
) -> Vec<String> {
    let PodInfo { namespace, labels, account_labels, spec } = *pod;
    let account = spec.service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let has = |name: &str| spec.image_pull_secrets.iter().flatten().any(|one| one.name == name);
    let mut names = Vec::new();
    for rule in rules {
        let is_selected = rule.is_for_account(account, account_labels)
            && rule.pods.as_ref().is_none_or(|pods| postern_kube::crd::selects(pods, labels));
        if rule.is_kept || !is_selected || !uses(rule, spec) {
            continue;
        }
        let is_usable = match sources.get(&rule.source) {
            Some(SecretState::Valid(secret)) => !secret.config.narrowed(&rule.patterns).is_empty(),
            _ => false,
        };
        let name = rule.secret_name(&namespace.name);
        if is_usable && !has(&name) && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether an image of the Pod is in the rule's repositories. An image that cannot be parsed is in all.
fn uses(rule: &Rule, spec: &PodSpec) -> bool {
    let matches = |image: &Option<String>| {
        let image = image.as_deref().and_then(|image| image.parse::<Image>().ok());
        image.is_none_or(|image| rule.patterns.iter().any(|pattern| pattern.matches(&image)))
    };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    rule.patterns.is_empty() || containers.into_iter().any(|container| matches(&container.image))
}
