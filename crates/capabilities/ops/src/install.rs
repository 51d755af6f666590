//! `ops install`: idempotent. It can stop after any step, and running it again converges.
//!
//! The order keeps every intermediate state safe. The ServiceAccount's access is recorded before it is granted, and
//! the record is removed only after the access. The Secret exists before the pod that mounts it.

mod account_and_secret;
mod pod;
mod stream;

use crate::diagnose;
use crate::identity::Identity;
use crate::ops_pod::OpsPod;
pub use crate::reporter::Reporter;
use crate::settings::{Access, InvalidSetting, Settings};
use crate::{diff, names, objects, rules};
use postern_kube::apply::{self, Change, Deletion, ObjectRef};
use postern_kube::k8s_openapi::ByteString;
use postern_kube::k8s_openapi::api::core::v1::Namespace;
use postern_kube::k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use postern_kube::kube::core::DynamicObject;
use postern_kube::kube::{Resource, ResourceExt as _};
use postern_kube::{Cluster, KubeError, Reason};
use postern_report::Finding;
use serde::Serialize;

/// Why an install stopped. Running it again continues.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A setting is invalid; nothing was sent.
    #[error(transparent)]
    Invalid(#[from] InvalidSetting),
    /// A step failed.
    #[error("install stopped at {step}")]
    Step {
        /// The step.
        step: String,
        /// The reason.
        source: KubeError,
        /// Why the API server refused the pod, if it did.
        diagnosis: Option<Box<Finding>>,
    },
    /// The pod did not become ready.
    #[error("Pod {pod} is not ready: {why}")]
    NotReady {
        /// `NAMESPACE/NAME`.
        pod: String,
        /// A short reason.
        why: String,
        /// The likely cause.
        diagnosis: Box<Finding>,
    },
    /// Another client kept changing an object.
    #[error("{0} kept changing while it was installed: another install is running")]
    Contended(ObjectRef),
}

impl InstallError {
    /// Returns what the user can do; `None` if the diagnosis says it.
    pub fn hint(&self) -> Option<String> {
        const AGAIN: &str = "run install again to continue";
        match self {
            Self::Invalid(_) | Self::NotReady { .. } => None,
            Self::Contended(_) => Some("wait for it, then run install again".to_owned()),
            Self::Step { step, source, diagnosis: _ } => {
                let is_immutable = matches!(&source.reason, Reason::Refused { message, .. } if message.contains("immutable"));
                Some(match source.hint() {
                    _ if source.is_not_found() => {
                        format!("make the namespace that is missing, or correct its name; then {AGAIN}")
                    }
                    _ if is_immutable => format!("delete {step}, which was made immutable; then {AGAIN}"),
                    _ if source.is_forbidden() => format!("{}; then {AGAIN}", crate::FORBIDDEN),
                    Some(hint) => format!("{hint}; then {AGAIN}"),
                    None => AGAIN.to_owned(),
                })
            }
        }
    }
}

/// The result of an install.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    /// Each object and its change.
    pub changes: Vec<Changed>,
    /// The provider that trusts the pod; none with a static key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// Whether the pod is ready.
    pub ready: bool,
}

/// One object of the report.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The change.
    pub change: Change,
    /// The object.
    #[serde(flatten)]
    pub object: ObjectRef,
    /// The differences of a dry run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<String>,
}

struct Install<'a, R> {
    cluster: &'a Cluster,
    settings: &'a Settings,
    reporter: &'a mut R,
    dry_run: bool,
    report: Installed,
    /// The UID of the current `ServiceAccount`.
    account: Option<String>,
}

/// Installs or converges; with `dry_run` the server validates everything and stores nothing.
pub async fn install(
    cluster: &Cluster,
    settings: &Settings,
    dry_run: bool,
    reporter: &mut impl Reporter,
) -> Result<Installed, InstallError> {
    settings.validate()?;
    let report = Installed { identity: settings.identity.clone(), dry_run, ..Installed::default() };
    let mut install = Install { cluster, settings, reporter, dry_run, report, account: None };
    for name in settings.pod.own_namespaces() {
        install.namespace(name).await?;
    }
    install.may_grant().await?;
    let before = install.account().await?;
    install.check_replacement().await?;
    install.secret().await?;
    install.roles(&before).await?;
    let key = install.stream().await?;
    install.pod().await?;
    if let Some(key) = key {
        install.notify_kubelet(&key).await?;
    }
    Ok(install.report)
}

fn at(of: &ObjectRef) -> impl FnOnce(KubeError) -> InstallError {
    let of = of.clone();
    move |source| {
        let diagnosis =
            if of.kind == "Pod" { diagnose::of_refusal(&of, &source).map(Box::new) } else { None };
        InstallError::Step { step: of.to_string(), source, diagnosis }
    }
}

/// Returns the object as it is sent.
fn written<K>(desired: &K, of: &ObjectRef) -> Result<DynamicObject, InstallError>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    apply::dynamic(desired).map_err(|error| {
        at(of)(KubeError { attempt: format!("writing {of}"), reason: Reason::Answer(error.to_string()) })
    })
}

impl<R: Reporter> Install<'_, R> {
    fn record(&mut self, change: Change, of: ObjectRef, differences: Vec<String>) {
        self.reporter.changed(change, &of, &differences);
        self.report.changes.push(Changed { change, object: of, differences });
    }

    /// In a dry run, the server cannot validate an object whose namespace would be created and does not exist yet.
    fn cannot_validate(&self, of: &ObjectRef, error: &KubeError) -> bool {
        let ours = self.settings.pod.own_namespaces();
        // A pod is validated after its ServiceAccount, which was not created either: admission answers 403.
        let absent = error.is_not_found()
            || matches!(&error.reason, Reason::Refused { code: 403, message } if message.contains("looking up service account"));
        self.dry_run && absent && of.namespace.as_deref().is_none_or(|name| ours.contains(&name))
    }

    async fn observe(&self, of: &ObjectRef) -> Result<Option<DynamicObject>, InstallError> {
        match apply::get(self.cluster, of).await {
            Ok(existing) => Ok(existing),
            Err(error) if self.cannot_validate(of, &error) => Ok(None),
            Err(error) => Err(at(of)(error)),
        }
    }

    /// Returns the current object. Waits if it is being deleted: changes to it would be lost.
    async fn settled(&mut self, of: &ObjectRef) -> Result<Option<DynamicObject>, InstallError> {
        let there = self.observe(of).await?;
        match there {
            Some(ending) if ending.metadata.deletion_timestamp.is_some() => {
                self.wait_gone(of, &ending).await?;
                if self.dry_run { Ok(None) } else { self.observe(of).await }
            }
            there => Ok(there),
        }
    }

    async fn wait_gone(&mut self, of: &ObjectRef, ending: &DynamicObject) -> Result<(), InstallError> {
        if self.dry_run {
            return Ok(());
        }
        self.reporter.progress(&format!("waiting for the old {of} to go"));
        let uid = ending.metadata.uid.as_deref();
        apply::gone(self.cluster, of, uid, self.settings.timeout).await.map_err(at(of))
    }

    /// Applies an object that does not depend on the existing one: the read before is only for the report.
    async fn apply<K>(&mut self, desired: &K) -> Result<(), InstallError>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let of = ObjectRef::of::<K>(
            desired.meta().namespace.as_deref(),
            desired.meta().name.as_deref().unwrap_or_default(),
        );
        let desired = written(desired, &of)?;
        let existing = self.settled(&of).await?;
        let mut applied = apply::apply(self.cluster, &desired, existing.as_ref(), self.dry_run).await;
        let mut tries = 0;
        let binding = of.kind.ends_with("Binding");
        if self.dry_run
            && binding
            && matches!(&applied, Err(KubeError { reason: Reason::Refused { code: 422, .. }, .. }))
        {
            self.record(Change::Updated, of, vec!["replaced: it binds a different role".to_owned()]);
            return Ok(());
        }
        while let Err(error) = &applied {
            tries += 1;
            match &error.reason {
                // Another client changed it at the same time.
                Reason::Refused { code: 409, .. } if tries <= 3 => {}
                // The role of a binding cannot be changed: an older binding is replaced.
                Reason::Refused { code: 422, .. } if tries == 1 && binding => {
                    let any = Deletion::default();
                    apply::delete(self.cluster, &of, &any, self.settings.timeout).await.map_err(at(&of))?;
                }
                _ => break,
            }
            applied = apply::apply(self.cluster, &desired, existing.as_ref(), self.dry_run).await;
        }
        self.applied(of, existing.as_ref(), applied)
    }

    /// Records the change that an apply over `existing` made.
    fn applied(
        &mut self,
        of: ObjectRef,
        existing: Option<&DynamicObject>,
        applied: Result<(Change, DynamicObject), KubeError>,
    ) -> Result<(), InstallError> {
        match applied {
            Ok((change, now)) => {
                if of.kind == "ServiceAccount" {
                    self.account.clone_from(&now.metadata.uid);
                }
                let differences = match existing {
                    Some(before) if self.dry_run => diff::lines(before, &now),
                    _ => Vec::new(),
                };
                let change = if self.dry_run && existing.is_some() {
                    if differences.is_empty() { Change::Unchanged } else { Change::Updated }
                } else {
                    change
                };
                self.record(change, of, differences);
                Ok(())
            }
            Err(error) if self.cannot_validate(&of, &error) => {
                self.record(Change::Created, of, Vec::new());
                Ok(())
            }
            Err(error) => Err(at(&of)(error)),
        }
    }

    /// A namespace that someone else created is used as it is.
    async fn namespace(&mut self, name: &str) -> Result<(), InstallError> {
        let of = ObjectRef::of::<Namespace>(None, name);
        let desired = objects::namespace(name);
        let mut existing = match apply::get(self.cluster, &of).await {
            Ok(existing) => existing,
            Err(error) if error.is_forbidden() => {
                self.reporter.progress(&format!("{of}: assumed to exist (you may not read it)"));
                return Ok(());
            }
            Err(error) => return Err(at(&of)(error)),
        };
        if let Some(ending) = existing.take_if(|object| object.metadata.deletion_timestamp.is_some()) {
            self.wait_gone(&of, &ending).await?;
        }
        let Some(existing) = existing else { return self.apply(&desired).await };
        let wanted = desired.metadata.labels.unwrap_or_default();
        let labels = existing.labels();
        let ours = labels.get(objects::MANAGED_BY.0).is_some_and(|value| value == objects::MANAGED_BY.1);
        if wanted.iter().all(|(key, value)| labels.get(key) == Some(value)) {
            self.record(Change::Unchanged, of, Vec::new());
        } else if ours {
            self.apply(&objects::namespace(name)).await?;
        } else {
            let enforced = labels.get("pod-security.kubernetes.io/enforce").map(String::as_str);
            if enforced != Some("restricted") {
                self.reporter.warn(&format!(
                    "{of} is not ours and does not enforce the restricted Pod Security Standard; \
                     label it pod-security.kubernetes.io/enforce=restricted"
                ));
            }
            self.record(Change::Unchanged, of, Vec::new());
        }
        Ok(())
    }

    /// Checks whether the user may grant the access before it is recorded: without the right to grant, a user could
    /// not remove a record of access that was never granted.
    async fn may_grant(&self) -> Result<(), InstallError> {
        if self.dry_run {
            return Ok(());
        }
        let pod = &self.settings.pod;
        match &self.settings.access {
            Access::None => Ok(()),
            Access::Namespaces(wanted) => {
                for namespace in wanted {
                    self.check_allowed(&objects::role(pod, namespace, &pod.access_role(), rules::ACCESS).0)
                        .await?;
                }
                Ok(())
            }
            Access::All => self.check_allowed(&objects::cluster_role(pod).0).await,
        }
    }

    async fn check_allowed<K>(&self, desired: &K) -> Result<(), InstallError>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let name = desired.meta().name.as_deref().unwrap_or_default();
        let of = ObjectRef::of::<K>(desired.meta().namespace.as_deref(), name);
        let desired = written(desired, &of)?;
        match apply::apply(self.cluster, &desired, None, true).await {
            Ok(_) => Ok(()),
            // Another install is running at the same time, and it has the permission.
            Err(error) if error.is_conflict() => Ok(()),
            Err(error) => Err(at(&of)(error)),
        }
    }

    /// Deletes an object; returns whether it existed. If it does not exist, a missing delete permission is not an
    /// error.
    async fn delete_if_present(&self, of: &ObjectRef) -> Result<bool, InstallError> {
        if self.dry_run {
            return Ok(self.observe(of).await?.is_some());
        }
        match apply::delete(self.cluster, of, &Deletion::default(), self.settings.timeout).await {
            Ok(was_there) => Ok(was_there),
            Err(error) if error.is_forbidden() && matches!(apply::get(self.cluster, of).await, Ok(None)) => {
                Ok(false)
            }
            Err(error) => Err(at(of)(error)),
        }
    }

    async fn roles(&mut self, before: &str) -> Result<(), InstallError> {
        let (pod, desired) = (&self.settings.pod, &self.settings.access);
        match desired {
            Access::None => {}
            Access::Namespaces(wanted) => {
                for namespace in wanted {
                    let (role, binding) = objects::role(pod, namespace, &pod.access_role(), rules::ACCESS);
                    self.apply(&role).await?;
                    self.apply(&binding).await?;
                }
            }
            Access::All => {
                self.reporter.warn(
                    "--cluster-access all: tools in the ops pod may run commands in every pod of the cluster, \
                     system pods included, and so act as any of them; name namespaces instead where you can",
                );
                let (role, binding) = objects::cluster_role(pod);
                self.apply(&role).await?;
                self.apply(&binding).await?;
            }
        }
        if *desired != Access::None {
            let (role, binding) =
                objects::role(pod, pod.namespace(), &pod.secret_role(), rules::ACCESS_SECRET);
            self.apply(&role).await?;
            self.apply(&binding).await?;
        }
        for of in stale(pod, before, desired) {
            if self.delete_if_present(&of).await? {
                self.record(Change::Deleted, of, Vec::new());
            }
        }
        if !self.dry_run && before != desired.text() && !before.is_empty() {
            // A merge patch, because an apply would leave alone what another client wrote.
            let text = Some(desired.text()).filter(|text| !text.is_empty());
            let patch = serde_json::json!({ "metadata": { "annotations": { names::CLUSTER_ACCESS: text } } });
            let of = pod.account_ref();
            apply::merge(self.cluster, &of, &patch).await.map_err(at(&of))?;
        }
        Ok(())
    }
}

/// Returns the Roles and bindings of an earlier access that the desired access does not include.
fn stale(pod: &OpsPod, before: &str, desired: &Access) -> Vec<ObjectRef> {
    let role = pod.access_role();
    let (namespaces, all) = Access::parse(before);
    let keeps =
        |namespace: &String| matches!(desired, Access::Namespaces(wanted) if wanted.contains(namespace));
    let pair = |namespace: &str, name: &str| {
        [ObjectRef::of::<RoleBinding>(Some(namespace), name), ObjectRef::of::<Role>(Some(namespace), name)]
    };
    let mut gone: Vec<ObjectRef> = namespaces
        .iter()
        .filter(|namespace| !keeps(namespace))
        .flat_map(|namespace| pair(namespace, &role))
        .collect();
    if all && *desired != Access::All {
        gone.push(ObjectRef::of::<ClusterRoleBinding>(None, &role));
        gone.push(ObjectRef::of::<ClusterRole>(None, &role));
    }
    if *desired == Access::None && (all || !namespaces.is_empty()) {
        gone.extend(pair(pod.namespace(), &pod.secret_role()));
    }
    gone
}

/// Returns the manifests that would be applied, without the Secret's values.
pub fn manifests(settings: &Settings) -> Result<Vec<DynamicObject>, serde_json::Error> {
    let empty = objects::secret_data(settings).into_keys().map(|key| (key, ByteString::default())).collect();
    let credential =
        objects::MadeWith { version: "none".to_owned(), rotated_at: "never".to_owned(), account: None };
    let pod = &settings.pod;
    let mut all = Vec::new();
    for name in pod.own_namespaces() {
        all.push(apply::dynamic(&objects::namespace(name))?);
    }
    let trusted = settings.identity.as_ref().map(|identity| (identity, "never"));
    all.push(apply::dynamic(&objects::service_account(pod, &settings.access.text(), trusted))?);
    all.push(apply::dynamic(&objects::secret(pod, empty, "never"))?);
    let mut pairs = Vec::new();
    match &settings.access {
        Access::None => {}
        Access::Namespaces(wanted) => {
            pairs.extend(
                wanted
                    .iter()
                    .map(|namespace| objects::role(pod, namespace, &pod.access_role(), rules::ACCESS)),
            );
        }
        Access::All => {
            let (role, binding) = objects::cluster_role(pod);
            all.extend([apply::dynamic(&role)?, apply::dynamic(&binding)?]);
        }
    }
    if settings.access != Access::None {
        pairs.push(objects::role(pod, pod.namespace(), &pod.secret_role(), rules::ACCESS_SECRET));
    }
    for (role, binding) in pairs {
        all.extend([apply::dynamic(&role)?, apply::dynamic(&binding)?]);
    }
    if settings.stream {
        // Each install generates their content.
        all.push(apply::dynamic(&objects::secret_named(pod, &pod.stream_secret(), "never"))?);
        all.push(apply::dynamic(&objects::config_map(pod, &pod.stream_keys(), []))?);
    }
    all.push(apply::dynamic(&objects::pod(settings, &credential))?);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_that_is_no_longer_asked_for_is_taken_away() {
        let names = |before: &str, desired: Access| {
            stale(&OpsPod::default(), before, &desired).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let of = |names: &[&str]| Access::Namespaces(names.iter().map(|name| (*name).to_owned()).collect());
        assert!(names("", Access::None).is_empty());
        assert!(names("a", of(&["a", "b"])).is_empty());
        assert_eq!(names("a,b", of(&["b"])), ["RoleBinding a/postern-ops", "Role a/postern-ops"]);
        assert_eq!(names("*", of(&["b"])), ["ClusterRoleBinding postern-ops", "ClusterRole postern-ops"]);
        assert_eq!(names("a", Access::None).len(), 4);
    }
}
