//! The watches of the parts that are switched on.

use crate::cache::{Cache, keep};
use crate::cli::Part;
use crate::state::State;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::core::{ApiResource, DeserializeGuard, DynamicObject};
use kube::runtime::watcher::Config;
use kube::{Api, Client, Resource};
use postern_pullsecret::olm::{self, CatalogSource, ClusterServiceVersion, Subscription};
use postern_pullsecret::{Account, Copy, ObjectName};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Seconds after which the API server ends a watch, which then goes on from where it was.
const TIMEOUT: u32 = 240;

/// The configuration of every watch.
pub(crate) fn config() -> Config {
    Config::default().timeout(TIMEOUT).page_size(500)
}

/// Of a watch of one object.
pub(crate) fn config_of(name: &str) -> Config {
    config().fields(&format!("metadata.name={name}"))
}

/// Starts all watches.
pub(crate) fn start(client: &Client, state: &Arc<State>, parts: &[Part]) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let has = |part| parts.contains(&part);
    if has(Part::PullSecrets) {
        pull_secrets(client, state, &mut tasks);
    } else {
        let State { copies, cluster_pull_secrets, pull_secrets, grants, .. } = &**state;
        let State { catalogs, subscriptions, csvs, accounts, .. } = &**state;
        accounts.nothing();
        copies.nothing();
        cluster_pull_secrets.nothing();
        pull_secrets.nothing();
        grants.nothing();
        catalogs.nothing();
        subscriptions.nothing();
        csvs.nothing();
    }
    if has(Part::Volumes) {
        custom(client, state, &mut tasks, "VolumeOwnership", &state.ownerships, |_, _| {});
    } else {
        state.ownerships.nothing();
    }
    tasks
}

fn pull_secrets(client: &Client, state: &Arc<State>, tasks: &mut JoinSet<()>) {
    let metrics = &state.metrics;
    let of = state.clone();
    tasks.spawn(keep(
        Api::<ServiceAccount>::all(client.clone()),
        config(),
        state.accounts.clone(),
        metrics.clone(),
        "ServiceAccount",
        |object| Some(Account::of(object)),
        move |name| of.look_at(&name.namespace),
    ));
    let of = state.clone();
    tasks.spawn(keep(
        Api::<Secret>::all(client.clone()),
        // In small pages: whoever may write Secrets may make large ones with this label.
        config().page_size(20).labels(&postern_pullsecret::apply::copies()),
        state.copies.clone(),
        metrics.clone(),
        "Secret",
        Copy::of,
        move |name| {
            of.look_at(&name.namespace);
            of.status_changed.notify_one();
        },
    ));
    let rebuild = |state: &State, _: &ObjectName| state.rules_changed.notify_one();
    custom(client, state, tasks, "ClusterPullSecret", &state.cluster_pull_secrets, rebuild);
    custom(client, state, tasks, "PullSecret", &state.pull_secrets, rebuild);
    custom(client, state, tasks, "PullSecretGrant", &state.grants, rebuild);
    let convert = |object: &DynamicObject| Some(CatalogSource::of(object));
    dynamic(client, state, tasks, olm::CATALOG, config(), &state.catalogs, convert);
    let convert = |object: &DynamicObject| Some(Subscription::of(object));
    dynamic(client, state, tasks, olm::SUBSCRIPTION, config(), &state.subscriptions, convert);
    // Copied CSVs are many and large, and have no Deployments.
    let originals = config().labels(&format!("!{}", olm::COPIED_FROM));
    let convert =
        |object: &DynamicObject| Some(ClusterServiceVersion::of(object)).filter(|csv| !csv.is_copied);
    dynamic(client, state, tasks, olm::CSV, originals, &state.csvs, convert);
}

/// Watches a custom resource of ours. An object that cannot be read is left out, and does not stop the others.
fn custom<K>(
    client: &Client,
    state: &Arc<State>,
    tasks: &mut JoinSet<()>,
    kind: &'static str,
    cache: &Arc<Cache<K>>,
    changed: fn(&State, &ObjectName),
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + PartialEq + Send + Sync + 'static,
{
    let of = state.clone();
    tasks.spawn(keep(
        Api::<DeserializeGuard<K>>::all(client.clone()),
        config(),
        cache.clone(),
        state.metrics.clone(),
        kind,
        move |object| match &object.0 {
            Ok(object) => Some(object.clone()),
            Err(invalid) => {
                let name = invalid.metadata.name.as_deref().unwrap_or_default();
                tracing::warn!(kind, name, error = invalid.error, "an object cannot be read; it is left out");
                None
            }
        },
        move |name| {
            changed(&of, name);
            of.status_changed.notify_one();
        },
    ));
}

/// Watches a kind of OLM.
fn dynamic<T: PartialEq + Send + Sync + 'static>(
    client: &Client,
    state: &Arc<State>,
    tasks: &mut JoinSet<()>,
    kind: &'static str,
    config: Config,
    cache: &Arc<Cache<T>>,
    convert: fn(&DynamicObject) -> Option<T>,
) {
    let resource: ApiResource = olm::resource(kind);
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let of = state.clone();
    let changed = move |_: &ObjectName| of.rules_changed.notify_one();
    tasks.spawn(keep(api, config, cache.clone(), state.metrics.clone(), kind, convert, changed));
}
