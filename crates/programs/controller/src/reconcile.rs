//! Makes each namespace what its rules say.

use crate::cli::Part;
use crate::contest::Contests;
use crate::error::chain;
use crate::events::Events;
use crate::leader::Leadership;
use crate::state::{State, info};
use crate::stuck::Restarts;
use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::Client;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use postern_pullsecret::apply::{Applied, ApplyError, apply};
use postern_pullsecret::{ObjectName, Observed, Plan, plan};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After a conflict the watch brings the newer object; this is for one that it missed.
const CONFLICT: Duration = Duration::from_secs(2);
/// A name that is taken, or a change that is refused, is tried again after this time.
const REFUSED: Duration = Duration::from_secs(60);

/// What a reconciliation needs.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) state: Arc<State>,
    pub(crate) leadership: Leadership,
    pub(crate) events: Events,
    pub(crate) contests: Mutex<Contests>,
    pub(crate) parts: Vec<Part>,
    pub(crate) restarts: Restarts,
}

/// A namespace is not yet as it is to be. Each cause was logged.
#[derive(Debug, thiserror::Error)]
#[error("{failures} changes in namespace {namespace} failed")]
pub(crate) struct ReconcileError {
    namespace: String,
    failures: usize,
}

/// Reconciles one namespace.
#[tracing::instrument(skip_all, fields(namespace = namespace.metadata.name))]
pub(crate) async fn reconcile(
    namespace: Arc<Namespace>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let Context { client, state, leadership, parts, .. } = &*context;
    if !leadership.leads() || !state.is_built() || !parts.contains(&Part::PullSecrets) {
        return Ok(Action::await_change());
    }
    let name = namespace.name_any();
    state.metrics.reconciled();
    let mut plan = plan_of(state, &namespace);
    let wait = hold_back(&context, &name, &mut plan).await;
    let mut next = wait;
    if !plan.is_empty() {
        let applied = apply(client, &name, &plan).await;
        let failures = record(&context, &name, applied).await;
        match failures {
            Failures { refused: 0, conflicts: 0 } => {}
            Failures { refused: 0, .. } => next = Some(next.map_or(CONFLICT, |next| next.min(CONFLICT))),
            Failures { refused, .. } => return Err(ReconcileError { namespace: name, failures: refused }),
        }
    }
    if parts.contains(&Part::RestartStuck) && plan.restart_stuck {
        let later = context.restarts.restart((client, state, &context.events), &info(&namespace)).await;
        next = later.map(|later| next.map_or(later, |next| next.min(later))).or(next);
    }
    Ok(next.map_or_else(Action::await_change, Action::requeue))
}

/// What is done about a namespace that is not yet as it is to be.
pub(crate) fn after_error(_: Arc<Namespace>, _: &ReconcileError, _: Arc<Context>) -> Action {
    Action::requeue(REFUSED)
}

/// The plan for a namespace.
pub(crate) fn plan_of(state: &State, namespace: &Namespace) -> Plan {
    let namespace = info(namespace);
    let (rules, sources) = (state.rules(), state.sources());
    let accounts = state.accounts.of_namespace(&namespace.name);
    let copies = state.copies.of_namespace(&namespace.name);
    let observed =
        Observed { namespace: &namespace, accounts: &accounts, copies: &copies, sources: &sources };
    plan(&observed, rules.of_namespace(&namespace.name, &namespace.labels))
}

/// Takes out of the plan what another client would undo at once; returns when to try it.
async fn hold_back(context: &Context, namespace: &str, plan: &mut Plan) -> Option<Duration> {
    let now = Instant::now();
    let mut held = Vec::new();
    {
        let contests = context.contests.lock().unwrap_or_else(PoisonError::into_inner);
        plan.accounts.retain(|change| {
            match contests.wait(&change.uid, now).filter(|_| !change.added.is_empty()) {
                Some(wait) => {
                    held.push((change.clone(), wait));
                    false
                }
                None => true,
            }
        });
    }
    for (change, wait) in &held {
        context.state.metrics.contested();
        let seconds = wait.as_secs();
        tracing::warn!(
            namespace,
            account = change.name,
            seconds,
            "another client removes our entry; waiting"
        );
        let note = format!(
            "another client removes Postern's entries from imagePullSecrets; the next attempt is in {seconds} s. Find it in metadata.managedFields"
        );
        context
            .events
            .warn(&account_reference(namespace, &change.name, &change.uid), "Contested", note)
            .await;
    }
    held.iter().map(|(_, wait)| *wait).min()
}

struct Failures {
    conflicts: usize,
    refused: usize,
}

/// Remembers what was changed, and tells of it.
async fn record(context: &Context, namespace: &str, applied: Applied) -> Failures {
    let Context { state, events, contests, .. } = context;
    let Applied { stored, deleted, accounts, errors } = applied;
    state.metrics.wrote("Secret", stored.len() as u64 + deleted);
    state.metrics.wrote("ServiceAccount", accounts.len() as u64);
    if stored.len() + accounts.len() > 0 || deleted > 0 {
        let (stored, accounts) = (stored.len(), accounts.len());
        tracing::info!(namespace, stored, deleted, accounts, "reconciled");
    }
    let object = |name: &str| ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
    for copy in stored {
        let version = copy.resource_version.clone();
        state.copies.wrote(object(&copy.name), &version, copy);
    }
    for (account, added) in accounts {
        if !added.is_empty() {
            let mut contests = contests.lock().unwrap_or_else(PoisonError::into_inner);
            contests.added(&account.uid, &added, Instant::now());
        }
        let version = account.resource_version.clone();
        state.accounts.wrote(object(&account.name), &version, account);
    }
    let mut failures = Failures { conflicts: 0, refused: 0 };
    for error in errors {
        if let ApplyError::Conflict { .. } = error {
            failures.conflicts += 1;
            continue;
        }
        failures.refused += 1;
        state.metrics.failed();
        tracing::warn!(namespace, error = chain(&error), "a change failed");
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Namespace".to_owned()),
            name: Some(namespace.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectReference::default()
        };
        events.warn(&about, "PullSecretFailed", chain(&error)).await;
    }
    failures
}

/// A reference to a `ServiceAccount`, for events.
fn account_reference(namespace: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("ServiceAccount".to_owned()),
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
