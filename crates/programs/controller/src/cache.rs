//! What is watched, in a short form.

use crate::metrics::Metrics;
use futures_util::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt as _};
use postern_pullsecret::{ObjectName, olm};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// So long an API server that starts may say that it does not know a kind.
const STARTING: Duration = Duration::from_secs(60);

/// Kinds that most clusters do not have, so that nobody waits for them.
const OPTIONAL: [&str; 3] = [olm::CATALOG, olm::SUBSCRIPTION, olm::CSV];

/// How often a kind is looked for that the cluster does not have.
const ABSENT: Duration = Duration::from_secs(20);

/// Objects by namespace and name.
pub(crate) type Map<T> = BTreeMap<ObjectName, Arc<T>>;

/// The objects of one kind, kept up to date by [`keep`].
#[derive(Debug)]
pub(crate) struct Cache<T> {
    items: RwLock<Map<T>>,
    /// The resource version of each object as the watch last told of it, deletions included.
    versions: Mutex<BTreeMap<ObjectName, u64>>,
    ready: watch::Sender<bool>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { items: RwLock::default(), versions: Mutex::default(), ready: watch::Sender::new(false) }
    }
}

impl<T: PartialEq> Cache<T> {
    fn read(&self) -> RwLockReadGuard<'_, Map<T>> {
        self.items.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// One object.
    pub(crate) fn get(&self, name: &ObjectName) -> Option<Arc<T>> {
        self.read().get(name).cloned()
    }

    /// The objects of a namespace.
    pub(crate) fn of_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let start = ObjectName { namespace: namespace.to_owned(), name: String::new() };
        let items = self.read();
        let items = items.range(start..).take_while(|(name, _)| name.namespace == namespace);
        items.map(|(_, item)| item.clone()).collect()
    }

    /// All objects.
    pub(crate) fn all(&self) -> Map<T> {
        self.read().clone()
    }

    /// Whether everything was read once.
    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until everything was read once.
    pub(crate) async fn ready(&self) {
        // The sender lives as long as the cache.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// There are no objects, and none will be read.
    pub(crate) fn nothing(&self) {
        self.replace(Map::new());
    }

    /// Takes an object that was just written, so that nobody need wait for the watch. What the watch told of meanwhile
    /// stays, if it is newer.
    pub(crate) fn wrote(&self, name: ObjectName, version: &str, item: T) {
        let mut versions = self.versions();
        let Ok(version) = version.parse::<u64>() else { return };
        if versions.get(&name).is_none_or(|seen| *seen < version) {
            versions.insert(name.clone(), version);
            self.set(name, item);
        }
    }

    fn versions(&self) -> MutexGuard<'_, BTreeMap<ObjectName, u64>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a version that the watch told of.
    fn saw(&self, name: &ObjectName, version: Option<String>) {
        let Some(version) = version.and_then(|version| version.parse().ok()) else { return };
        let mut versions = self.versions();
        versions.insert(name.clone(), version);
        // Deleted objects are remembered for a while only.
        let items = self.read();
        if versions.len() > 2 * items.len() + 1_000 {
            versions.retain(|name, _| items.contains_key(name));
        }
    }

    /// Adds or changes one; says whether that made a difference.
    fn set(&self, name: ObjectName, item: T) -> bool {
        let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
        if items.get(&name).is_some_and(|before| **before == item) {
            return false;
        }
        items.insert(name, Arc::new(item));
        true
    }

    fn remove(&self, name: &ObjectName) -> bool {
        self.items.write().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }

    /// Takes what a list found; returns the names of what differs.
    fn replace(&self, new: Map<T>) -> Vec<ObjectName> {
        let mut items = self.items.write().unwrap_or_else(PoisonError::into_inner);
        let gone = items.keys().filter(|name| !new.contains_key(*name));
        let changed = new.iter().filter(|(name, item)| items.get(*name) != Some(*item)).map(|(name, _)| name);
        let names = gone.chain(changed).cloned().collect();
        *items = new;
        self.ready.send_replace(true);
        names
    }
}

/// Watches a kind for ever. `convert` makes the short form; `None` leaves an object out. `changed` is called for each
/// object that differs from what was known.
pub(crate) async fn keep<K, T>(
    api: Api<K>,
    config: watcher::Config,
    cache: Arc<Cache<T>>,
    metrics: Arc<Metrics>,
    kind: &'static str,
    convert: impl Fn(&K) -> Option<T>,
    changed: impl Fn(&ObjectName),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: PartialEq,
{
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut listed = Map::new();
    let mut missing_since = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                metrics.watch_event(kind);
                // A list that fails begins like one that succeeds.
                if !matches!(event, Event::Init) {
                    missing_since = None;
                }
                match event {
                    Event::Init => listed.clear(),
                    Event::InitApply(object) => {
                        cache.saw(&name_of(&object), object.resource_version());
                        if let Some(item) = convert(&object) {
                            listed.insert(name_of(&object), Arc::new(item));
                        }
                    }
                    Event::InitDone => {
                        cache.replace(std::mem::take(&mut listed)).iter().for_each(&changed);
                    }
                    Event::Apply(object) => {
                        let name = name_of(&object);
                        cache.saw(&name, object.resource_version());
                        let differs = match convert(&object) {
                            Some(item) => cache.set(name.clone(), item),
                            None => cache.remove(&name),
                        };
                        if differs {
                            changed(&name);
                        }
                    }
                    Event::Delete(object) => {
                        let name = name_of(&object);
                        cache.saw(&name, object.resource_version());
                        if cache.remove(&name) {
                            changed(&name);
                        }
                    }
                }
            }
            Err(error) => {
                metrics.watch_error(kind);
                // A kind that the cluster does not have: there are no such objects until it does. An API server that
                // starts may not know it yet.
                if is_missing(&error) {
                    let since = *missing_since.get_or_insert_with(Instant::now);
                    let is_early = !cache.is_ready() && OPTIONAL.contains(&kind);
                    if is_early || since.elapsed() > STARTING {
                        cache.replace(Map::new()).iter().for_each(&changed);
                    }
                    tracing::debug!(kind, "the cluster does not have this kind");
                    tokio::time::sleep(ABSENT).await;
                } else {
                    tracing::warn!(
                        kind,
                        error = crate::error::chain(&error),
                        "watching failed; trying again"
                    );
                }
            }
        }
    }
}

fn name_of<K: Resource>(object: &K) -> ObjectName {
    ObjectName { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
}

/// Whether the API server does not know the kind.
fn is_missing(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ObjectName {
        let (namespace, name) = text.split_once('/').unwrap();
        ObjectName { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn only_what_differs_is_told() {
        let cache: Cache<u8> = Cache::default();
        assert!(!cache.is_ready());
        let list =
            |pairs: &[(&str, u8)]| pairs.iter().map(|(text, item)| (name(text), Arc::new(*item))).collect();
        let changed = cache.replace(list(&[("a/x", 1), ("b/x", 1)]));
        assert_eq!(changed, [name("a/x"), name("b/x")]);
        assert!(cache.is_ready());
        assert_eq!(cache.replace(list(&[("b/x", 1), ("b/y", 2)])), [name("a/x"), name("b/y")]);
        assert!(!cache.set(name("b/y"), 2) && cache.set(name("b/y"), 3) && cache.set(name("bb/z"), 4));
        assert_eq!(cache.of_namespace("b"), [Arc::new(1), Arc::new(3)]);
        assert_eq!(cache.of_namespace("c"), []);
        assert!(cache.remove(&name("b/y")) && !cache.remove(&name("b/y")));
        // What was written is older than what the watch told of: a deletion.
        cache.saw(&name("b/y"), Some("7".to_owned()));
        cache.wrote(name("b/y"), "6", 1);
        assert_eq!(cache.get(&name("b/y")), None);
        cache.wrote(name("b/y"), "8", 1);
        assert_eq!(cache.get(&name("b/y")), Some(Arc::new(1)));
    }
}
