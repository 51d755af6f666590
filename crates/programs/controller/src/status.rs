//! The statuses of custom resources.

use crate::error::chain;
use crate::reconcile::Context;
use crate::state::State;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use postern_kube::crd::Condition;
use postern_pullsecret::apply::FIELD_MANAGER;
use postern_pullsecret::{
    ClusterPullSecret, ObjectName, PullSecret, PullSecretStatus, Rule, Rules, SecretState, Sources,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Changes within this time are taken together.
const TOGETHER: Duration = Duration::from_millis(500);

/// Writes statuses whenever they change. Runs for ever.
pub(crate) async fn follow(context: Arc<Context>) {
    let Context { state, leadership, .. } = &*context;
    state.built().await;
    let mut leadership = leadership.clone();
    loop {
        leadership.gained().await;
        write_all(&context).await;
        state.status_changed.notified().await;
        tokio::time::sleep(TOGETHER).await;
    }
}

/// Writes those that differ.
pub(crate) async fn write_all(context: &Context) {
    let Context { client, state, .. } = context;
    let (rules, sources) = (state.rules(), state.sources());
    let by_uid: BTreeMap<&str, &Arc<Rule>> =
        rules.iter().map(|rule| (rule.consumer.uid.as_str(), rule)).collect();
    let owners = count_copies(state);
    for object in state.cluster_pull_secrets.all().values() {
        let count = owners.get(object.metadata.uid.as_deref().unwrap_or_default()).copied();
        let before = object.status.clone().unwrap_or_default();
        let Some(now) = status(&**object, &before, &by_uid, &rules, &sources, count) else { continue };
        write(context, &Api::<ClusterPullSecret>::all(client.clone()), &**object, &before, &now).await;
    }
    for object in state.pull_secrets.all().values() {
        let count = owners.get(object.metadata.uid.as_deref().unwrap_or_default()).copied();
        let before = object.status.clone().unwrap_or_default();
        let Some(now) = status(&**object, &before, &by_uid, &rules, &sources, count) else { continue };
        let namespace = object.namespace().unwrap_or_default();
        let api = namespaced::<PullSecret>(context, &namespace);
        write(context, &api, &**object, &before, &now).await;
    }
}

fn namespaced<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
    context: &Context,
    namespace: &str,
) -> Api<K> {
    Api::namespaced(context.client.clone(), namespace)
}

/// How many copies each object owns, by UID.
fn count_copies(state: &State) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for copy in state.copies.all().values() {
        for owner in &copy.owners {
            *counts.entry(owner.clone()).or_default() += 1;
        }
    }
    counts
}

/// The status of an object; `None` if it is the same as before, or not known yet.
fn status<K: Resource>(
    object: &K,
    before: &PullSecretStatus,
    by_uid: &BTreeMap<&str, &Arc<Rule>>,
    rules: &Rules,
    sources: &Sources,
    copies: Option<i64>,
) -> Option<PullSecretStatus> {
    let uid = object.uid().unwrap_or_default();
    let generation = object.meta().generation;
    let (is_ready, reason, message) = match (rules.problem(&uid), by_uid.get(uid.as_str())) {
        (Some(problem), _) => (false, problem.reason(), problem.to_string()),
        (None, Some(rule)) => judge(rule, sources.get(&rule.source)?),
        (None, None) => return None,
    };
    let now = PullSecretStatus {
        observed_generation: generation,
        namespaces: copies.unwrap_or_default(),
        conditions: vec![Condition::ready(is_ready, reason, &message, generation, &before.conditions)],
    };
    (now != *before).then_some(now)
}

/// Whether a source can be used, why in one word, and why for people.
fn judge(rule: &Rule, source: &SecretState) -> (bool, &'static str, String) {
    let ObjectName { namespace, name } = &rule.source;
    let secret = format!("Secret {namespace}/{name}");
    match source {
        SecretState::Missing => (false, "SourceNotFound", format!("{secret} does not exist")),
        SecretState::WrongType(kind) => (
            false,
            "SourceHasOtherType",
            format!(
                "{secret} has the type {kind}; a pull Secret has the type kubernetes.io/dockerconfigjson"
            ),
        ),
        SecretState::IsCopy => (
            false,
            "SourceIsCopy",
            format!("{secret} is a copy; name its source, which may need a PullSecretGrant"),
        ),
        SecretState::Invalid(error) => {
            (false, "SourceInvalid", format!("{secret} cannot be read: {error}; copies stay as they are"))
        }
        SecretState::Valid(found) if found.config.narrowed(&rule.patterns).is_empty() => (
            false,
            "NoCredential",
            format!("{secret} has no credential for {}", list(rule.patterns.iter().map(ToString::to_string))),
        ),
        SecretState::Valid(found) => {
            let config = found.config.narrowed(&rule.patterns);
            let keys = list(config.keys().map(str::to_owned));
            (true, "Ready", format!("{secret} has credentials for {keys}"))
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { "no registry".to_owned() } else { items.join(", ") }
}

async fn write<K>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    before: &PullSecretStatus,
    now: &PullSecretStatus,
) where
    K: Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let name = object.name_any();
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patch = json!({"status": now});
    match api.patch_status(&name, &params, &Patch::Merge(patch)).await {
        Ok(_) => context.state.metrics.wrote("status", 1),
        // It was deleted meanwhile.
        Err(kube::Error::Api(status)) if status.code == 404 => return,
        Err(error) => {
            tracing::warn!(kind = %K::kind(&()), name, error = chain(&error), "a status cannot be written");
            return;
        }
    }
    let status_of = |status: &PullSecretStatus| status.conditions.first().map(|one| one.status.clone());
    if let Some(condition) = now.conditions.first().filter(|_| status_of(before) != status_of(now)) {
        let (about, message) = (object.object_ref(&()), condition.message.clone());
        if condition.status == "True" {
            context.events.tell(&about, &condition.reason, message).await;
        } else {
            context.events.warn(&about, &condition.reason, message).await;
        }
    }
}
