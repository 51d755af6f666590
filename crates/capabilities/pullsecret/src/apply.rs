//! Makes the changes of a plan.

use crate::accounts::{Account, RECORD};
use crate::names::COPY_LABEL;
use crate::plan::{AccountChange, Copy, CopyChange, DesiredCopy, Plan};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The field manager of changes.
pub const FIELD_MANAGER: &str = "postern-controller";

/// The label selector of copies.
pub fn copies() -> String {
    format!("{COPY_LABEL}=true")
}

/// A change failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A Secret has the name of a copy and is not one.
    #[error("Secret {namespace}/{name} exists and is not Postern's; it is left as it is")]
    NameTaken {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    },
    /// Somebody else changed the object, or deleted it: it is read again.
    #[error("{kind} {namespace}/{name} was changed by another client")]
    Conflict {
        /// The kind.
        kind: &'static str,
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
    },
    /// The API server refused.
    #[error("{attempt} {kind} {namespace}/{name}")]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// The kind.
        kind: &'static str,
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

/// What was changed.
#[derive(Debug, Default)]
pub struct Applied {
    /// The copies that were created or updated, as they are now.
    pub stored: Vec<Copy>,
    /// How many copies were deleted.
    pub deleted: u64,
    /// The `ServiceAccounts` that were changed, as they are now, and the names that were added.
    pub accounts: Vec<(Account, Vec<String>)>,
    /// What failed. The rest was done.
    pub errors: Vec<ApplyError>,
}

/// Makes the changes of a namespace. Copies come first, so that no `ServiceAccount` names one that is missing, and go
/// last.
pub async fn apply(client: &Client, namespace: &str, plan: &Plan) -> Applied {
    let mut applied = Applied::default();
    let (deletions, others): (Vec<_>, Vec<_>) =
        plan.copies.iter().partition(|change| matches!(change, CopyChange::Delete(_)));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for change in others {
        match copy(&secrets, namespace, change).await {
            Ok(stored) => applied.stored.extend(stored),
            Err(error) => applied.errors.push(error),
        }
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    for change in &plan.accounts {
        match account(&accounts, namespace, change).await {
            Ok(now) => applied.accounts.push((now, change.added.clone())),
            Err(error) => applied.errors.push(error),
        }
    }
    for change in deletions {
        match copy(&secrets, namespace, change).await {
            Ok(_) => applied.deleted += 1,
            Err(error) => applied.errors.push(error),
        }
    }
    applied
}

/// Returns the copy as it is now; `None` if it was deleted.
async fn copy(
    secrets: &Api<Secret>,
    namespace: &str,
    change: &CopyChange,
) -> Result<Option<Copy>, ApplyError> {
    let kind = "Secret";
    let failed = |attempt, name: &str, error| failure(attempt, kind, namespace, name, error);
    match change {
        CopyChange::Create(desired) => create(secrets, namespace, desired).await,
        CopyChange::Update(desired, version) => {
            // All of it is ours: keys that somebody added go.
            let mut object = object(namespace, desired);
            object.metadata.resource_version = Some(version.clone());
            let done = secrets.replace(&desired.name, &post(), &object).await;
            done.map(|now| Copy::of(&now)).map_err(|error| failed("updating", &desired.name, error))
        }
        CopyChange::Replace(desired) => {
            delete(secrets, &desired.name)
                .await
                .map_err(|error| failed("replacing", &desired.name, error))?;
            create(secrets, namespace, desired).await
        }
        CopyChange::Delete(name) => {
            delete(secrets, name).await.map(|()| None).map_err(|error| failed("deleting", name, error))
        }
    }
}

async fn delete(secrets: &Api<Secret>, name: &str) -> Result<(), kube::Error> {
    // Only the very object that has the label: another one may have taken its place.
    let Some(found) = secrets.get_metadata_opt(name).await? else { return Ok(()) };
    if !is_ours(found.metadata.labels.as_ref()) {
        return Ok(());
    }
    let preconditions = Preconditions { uid: found.metadata.uid, resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match secrets.delete(name, &params).await {
        Err(error) if code(&error) != Some(404) => Err(error),
        _ => Ok(()),
    }
}

async fn create(
    secrets: &Api<Secret>,
    namespace: &str,
    desired: &DesiredCopy,
) -> Result<Option<Copy>, ApplyError> {
    let error = match secrets.create(&post(), &object(namespace, desired)).await {
        Ok(now) => return Ok(Copy::of(&now)),
        Err(error) => error,
    };
    let name = &desired.name;
    if code(&error) == Some(409) {
        // Another replica may have been faster. What is not ours stays.
        let found = secrets.get_metadata_opt(name).await;
        let found = found.map_err(|error| failure("reading", "Secret", namespace, name, error))?;
        if found.is_some_and(|found| !is_ours(found.metadata.labels.as_ref())) {
            return Err(ApplyError::NameTaken { namespace: namespace.to_owned(), name: name.clone() });
        }
    }
    Err(failure("creating", "Secret", namespace, name, error))
}

/// What an uninstall removes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// How many `ServiceAccounts` name copies.
    pub service_accounts: usize,
    /// How many copies there are.
    pub copies: usize,
}

/// Counts what [`clean`] would remove.
pub async fn to_clean(client: &Client) -> Result<Cleaned, kube::Error> {
    let (accounts, copies) = leftovers(client).await?;
    Ok(Cleaned { service_accounts: accounts.len(), copies: copies.len() })
}

/// Removes everything that was added to `ServiceAccounts`, and all copies. No controller may run.
pub async fn clean(client: &Client) -> Result<Cleaned, kube::Error> {
    let (accounts, copies) = leftovers(client).await?;
    for (namespace, change) in &accounts {
        clean_account(&Api::namespaced(client.clone(), namespace), change).await?;
    }
    for copy in &copies {
        let name = copy.metadata.name.as_deref().unwrap_or_default();
        let namespace = copy.metadata.namespace.as_deref().unwrap_or_default();
        delete(&Api::namespaced(client.clone(), namespace), name).await?;
    }
    Ok(Cleaned { service_accounts: accounts.len(), copies: copies.len() })
}

/// Reads the `ServiceAccount` again while others change it. One that is gone needs nothing.
async fn clean_account(api: &Api<ServiceAccount>, change: &AccountChange) -> Result<(), kube::Error> {
    let mut change = Some(change.clone());
    while let Some(next) = change.take() {
        match patch_account(api, &next).await {
            Err(error) if code(&error) == Some(409) => {
                change = api.get_opt(&next.name).await?.and_then(|object| removal(&object));
            }
            Err(error) if code(&error) != Some(404) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The change that removes everything that was added; `None` if nothing was.
fn removal(object: &ServiceAccount) -> Option<AccountChange> {
    let account = Account::of(object);
    let (names, recorded) = account.with(&BTreeSet::new())?;
    let Account { name, uid, resource_version, labels: _, names: _, recorded: _ } = account;
    Some(AccountChange { name, uid, resource_version, names, recorded, added: Vec::new() })
}

type Leftovers = (Vec<(String, AccountChange)>, Vec<PartialObjectMeta<Secret>>);

async fn leftovers(client: &Client) -> Result<Leftovers, kube::Error> {
    let accounts = Api::<ServiceAccount>::all(client.clone()).list(&ListParams::default()).await?;
    let accounts = accounts
        .items
        .iter()
        .filter_map(|object| Some((object.metadata.namespace.clone().unwrap_or_default(), removal(object)?)));
    let accounts = accounts.collect();
    let params = ListParams::default().labels(&copies());
    let copies = Api::<Secret>::all(client.clone()).list_metadata(&params).await?.items;
    Ok((accounts, copies))
}

fn is_ours(labels: Option<&BTreeMap<String, String>>) -> bool {
    labels.is_some_and(|labels| labels.get(COPY_LABEL).is_some_and(|value| value == "true"))
}

async fn account(
    accounts: &Api<ServiceAccount>,
    namespace: &str,
    change: &AccountChange,
) -> Result<Account, ApplyError> {
    let AccountChange { name, uid, resource_version: _, names, recorded, added: _ } = change;
    let done = patch_account(accounts, change).await;
    let now = done.map_err(|error| failure("changing", "ServiceAccount", namespace, name, error))?;
    Ok(Account {
        name: name.clone(),
        uid: uid.clone(),
        resource_version: now.metadata.resource_version.unwrap_or_default(),
        labels: now.metadata.labels.unwrap_or_default(),
        names: names.clone(),
        recorded: recorded.clone(),
    })
}

async fn patch_account(
    accounts: &Api<ServiceAccount>,
    change: &AccountChange,
) -> Result<PartialObjectMeta<ServiceAccount>, kube::Error> {
    let AccountChange { name, uid, resource_version, names, recorded, added: _ } = change;
    let record = recorded.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let record = (!record.is_empty()).then_some(record);
    let list: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
    // A merge patch replaces the list as a whole, and the resource version makes sure that it is the one that was read.
    let patch = json!({
        "metadata": {"uid": uid, "resourceVersion": resource_version, "annotations": {RECORD: record}},
        "imagePullSecrets": (!list.is_empty()).then_some(list),
    });
    accounts.patch_metadata(name, &params(), &Patch::Merge(patch)).await
}

fn post() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

fn object(namespace: &str, desired: &DesiredCopy) -> Secret {
    let DesiredCopy { name, format, data, consumers, annotations } = desired;
    let labels = [("app.kubernetes.io/managed-by", "postern"), (COPY_LABEL, "true")];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
            annotations: Some(annotations.clone()),
            // Garbage collection removes a copy with its last consumer, also while no controller runs.
            owner_references: Some(consumers.iter().map(crate::Consumer::reference).collect()),
            ..ObjectMeta::default()
        },
        type_: Some(format.secret_type().to_owned()),
        data: Some(BTreeMap::from([(format.key().to_owned(), ByteString(data.clone()))])),
        ..Secret::default()
    }
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

fn failure(
    attempt: &'static str,
    kind: &'static str,
    namespace: &str,
    name: &str,
    error: kube::Error,
) -> ApplyError {
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    match code(&error) {
        Some(404 | 409) => ApplyError::Conflict { kind, namespace, name },
        _ => ApplyError::Refused { attempt, kind, namespace, name, source: Box::new(error) },
    }
}
