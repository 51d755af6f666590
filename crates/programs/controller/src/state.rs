//! Everything that is known, and what follows from it.

use crate::cache::Cache;
use crate::metrics::Metrics;
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use postern_pullsecret::olm::{CatalogSource, ClusterServiceVersion, Olm, Subscription};
use postern_pullsecret::{
    Account, ClusterPullSecret, Copy, NamespaceInfo, ObjectName, PullSecret, PullSecretGrant, Rule, Rules,
    Sources,
};
use postern_volume::VolumeOwnership;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{Notify, mpsc, watch};

/// Everything that is known.
pub(crate) struct State {
    pub(crate) namespaces: Store<Namespace>,
    pub(crate) namespaces_ready: watch::Sender<bool>,
    pub(crate) accounts: Arc<Cache<Account>>,
    pub(crate) copies: Arc<Cache<Copy>>,
    pub(crate) cluster_pull_secrets: Arc<Cache<ClusterPullSecret>>,
    pub(crate) pull_secrets: Arc<Cache<PullSecret>>,
    pub(crate) grants: Arc<Cache<PullSecretGrant>>,
    pub(crate) catalogs: Arc<Cache<CatalogSource>>,
    pub(crate) subscriptions: Arc<Cache<Subscription>>,
    pub(crate) csvs: Arc<Cache<ClusterServiceVersion>>,
    pub(crate) ownerships: Arc<Cache<VolumeOwnership>>,
    /// The catalogs of OLM's operators, by the UID of the CSV: a Subscription may be deleted before it.
    catalogs_of_operators: Mutex<BTreeMap<String, BTreeSet<ObjectName>>>,
    /// What follows from the custom resources; see [`Self::rebuild`].
    rules: RwLock<Arc<Rules>>,
    /// What is known of each source.
    sources: RwLock<Arc<Sources>>,
    /// Whether the rules were built from everything there is. Until then nothing is written.
    built: watch::Sender<bool>,
    /// Something changed that rules follow from.
    pub(crate) rules_changed: Notify,
    /// A status may have changed.
    pub(crate) status_changed: Notify,
    /// Namespaces to look at; `None` for all.
    queue: mpsc::UnboundedSender<Option<String>>,
    pub(crate) metrics: Arc<Metrics>,
}

impl State {
    pub(crate) fn new(
        namespaces: Store<Namespace>,
        metrics: Arc<Metrics>,
        queue: mpsc::UnboundedSender<Option<String>>,
    ) -> Self {
        Self {
            namespaces,
            namespaces_ready: watch::Sender::new(false),
            accounts: Arc::default(),
            copies: Arc::default(),
            cluster_pull_secrets: Arc::default(),
            pull_secrets: Arc::default(),
            grants: Arc::default(),
            catalogs: Arc::default(),
            subscriptions: Arc::default(),
            csvs: Arc::default(),
            ownerships: Arc::default(),
            catalogs_of_operators: Mutex::default(),
            rules: RwLock::default(),
            sources: RwLock::default(),
            built: watch::Sender::new(false),
            rules_changed: Notify::new(),
            status_changed: Notify::new(),
            queue,
            metrics,
        }
    }

    /// The rules as they were last built.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sources as they were last read.
    pub(crate) fn sources(&self) -> Arc<Sources> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is known of the sources.
    pub(crate) fn change_sources(&self, change: impl FnOnce(&mut Sources)) {
        change(Arc::make_mut(&mut self.sources.write().unwrap_or_else(PoisonError::into_inner)));
    }

    /// Looks at one namespace soon.
    pub(crate) fn look_at(&self, namespace: &str) {
        // Nobody receives while the program ends.
        let _ = self.queue.send(Some(namespace.to_owned()));
    }

    /// Looks at all namespaces soon.
    pub(crate) fn look_at_all(&self) {
        let _ = self.queue.send(None);
    }

    /// A namespace; `None` if it does not exist, or is not known yet.
    pub(crate) fn namespace(&self, name: &str) -> Option<NamespaceInfo> {
        self.namespaces.get(&ObjectRef::new(name)).map(|namespace| info(&namespace))
    }

    /// Builds the rules from what is known.
    pub(crate) fn rebuild(&self) -> Arc<Rules> {
        let mut rules = Rules::default();
        for object in self.cluster_pull_secrets.all().values() {
            rules.add(&object.uid().unwrap_or_default(), Rule::try_from(&**object));
        }
        for object in self.pull_secrets.all().values() {
            let own = object.namespace().unwrap_or_default();
            // One that is not known has no labels, which would be some to a selector of what is not there.
            let Some(NamespaceInfo { labels, .. }) = self.namespace(&own) else { continue };
            let grants = self.grants.of_namespace(object.spec.source.namespace.as_ref().unwrap_or(&own));
            let grants = grants.iter().map(|grant| &**grant);
            rules.add(&object.uid().unwrap_or_default(), Rule::of_pull_secret(object, &labels, grants));
        }
        let (catalogs, subscriptions, csvs) =
            (self.catalogs.all(), self.subscriptions.all(), self.csvs.all());
        let olm = Olm { catalogs: &catalogs, subscriptions: &subscriptions, csvs: &csvs };
        let mut remembered = self.catalogs_of_operators.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|uid, _| csvs.values().any(|csv| csv.consumer.uid == *uid));
        remembered.extend(olm.catalogs_of_operators());
        for rule in olm.rules(&remembered, |namespace| self.copies.of_namespace(namespace)) {
            rules.add("", Ok(rule));
        }
        let rules = Arc::new(rules);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules.clone();
        self.built.send_replace(self.is_ready());
        rules
    }

    /// Whether the rules are those of everything there is.
    pub(crate) fn is_built(&self) -> bool {
        *self.built.borrow()
    }

    /// Waits until then.
    pub(crate) async fn built(&self) {
        // The sender lives as long as the state.
        let _ = self.built.subscribe().wait_for(|built| *built).await;
    }

    /// Whether everything was read once that decisions follow from.
    pub(crate) fn is_ready(&self) -> bool {
        let Self { accounts, copies, cluster_pull_secrets, pull_secrets, grants, .. } = self;
        let Self { catalogs, subscriptions, csvs, ownerships, .. } = self;
        *self.namespaces_ready.borrow()
            && accounts.is_ready()
            && copies.is_ready()
            && cluster_pull_secrets.is_ready()
            && pull_secrets.is_ready()
            && grants.is_ready()
            && catalogs.is_ready()
            && subscriptions.is_ready()
            && csvs.is_ready()
            && ownerships.is_ready()
    }

    /// Waits until then.
    pub(crate) async fn ready(&self) {
        self.accounts.ready().await;
        self.copies.ready().await;
        self.cluster_pull_secrets.ready().await;
        self.pull_secrets.ready().await;
        self.grants.ready().await;
        self.catalogs.ready().await;
        self.subscriptions.ready().await;
        self.csvs.ready().await;
        self.ownerships.ready().await;
        // The store's own method wakes only the last of several that wait.
        let _ = self.namespaces_ready.subscribe().wait_for(|ready| *ready).await;
    }
}

pub(crate) fn info(namespace: &Namespace) -> NamespaceInfo {
    NamespaceInfo {
        name: namespace.name_any(),
        labels: namespace.labels().clone(),
        is_terminating: namespace.metadata.deletion_timestamp.is_some(),
    }
}
