//! A watch for each Secret that is named as a source: only those are read.

use crate::error::chain;
use crate::state::State;
use crate::watches::config_of;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, Client};
use postern_pullsecret::{ObjectName, SecretState};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Changes within this time are taken together.
const TOGETHER: Duration = Duration::from_millis(50);

/// Builds the rules whenever they change, and watches their sources. Runs for ever.
pub(crate) async fn follow(client: Client, state: Arc<State>) {
    state.ready().await;
    let mut watches = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted = state.rebuild().sources();
        watches.retain(|name: &ObjectName, handle: &mut tokio::task::AbortHandle| {
            let stays = wanted.contains(name);
            if !stays {
                handle.abort();
                state.change_sources(|sources| {
                    sources.remove(name);
                });
            }
            stays
        });
        for name in wanted {
            watches
                .entry(name.clone())
                .or_insert_with(|| tasks.spawn(watch(client.clone(), state.clone(), name)));
        }
        state.look_at_all();
        state.status_changed.notify_one();
        state.rules_changed.notified().await;
        tokio::time::sleep(TOGETHER).await;
        // Of watches that were stopped.
        while tasks.try_join_next().is_some() {}
    }
}

async fn watch(client: Client, state: Arc<State>, name: ObjectName) {
    let api: Api<Secret> = Api::namespaced(client, &name.namespace);
    let config = config_of(&name.name);
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut listed = SecretState::Missing;
    while let Some(event) = events.next().await {
        let now = match event {
            Ok(Event::Init) => {
                listed = SecretState::Missing;
                continue;
            }
            Ok(Event::InitApply(secret)) => {
                listed = SecretState::of(&secret);
                continue;
            }
            Ok(Event::InitDone) => listed.clone(),
            Ok(Event::Apply(secret)) => SecretState::of(&secret),
            Ok(Event::Delete(_)) => SecretState::Missing,
            Err(error) => {
                state.metrics.watch_error("source");
                tracing::warn!(source = %name, error = chain(&error), "watching failed; trying again");
                continue;
            }
        };
        state.metrics.watch_event("source");
        if state.sources().get(&name) != Some(&now) {
            state.change_sources(|sources| {
                sources.insert(name.clone(), now);
            });
            state.look_at_all();
            state.status_changed.notify_one();
        }
    }
}
