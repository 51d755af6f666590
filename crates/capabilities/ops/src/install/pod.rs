//! The last step of an install: it keeps, creates or replaces the pod, and waits for it.

use super::{Install, InstallError, Reporter, at, written};
use crate::pod_plan::{Step, Wanted, fatal_reason, next_step};
use crate::{diagnose, names, objects, quota};
use postern_kube::apply::{self, Change, Deletion, ObjectRef};
use postern_kube::k8s_openapi::api::core::v1::{Pod, Secret};
use postern_kube::kube::core::DynamicObject;
use postern_kube::{KubeError, Reason, pods};
use std::time::Duration;
use tokio::time::Instant;

impl<R: Reporter> Install<'_, R> {
    /// Returns the current versions of the Secret and the `ServiceAccount`.
    async fn made_with(&self) -> Result<objects::MadeWith, InstallError> {
        let of = self.settings.pod.secret_ref();
        Ok(self.made_from(self.observe(&of).await?.as_ref()))
    }

    fn made_from(&self, secret: Option<&DynamicObject>) -> objects::MadeWith {
        let secret = secret.map(|object| &object.metadata);
        let part = |part: Option<String>| part.unwrap_or_else(|| "none".to_owned());
        objects::MadeWith {
            version: format!(
                "{}.{}",
                part(secret.and_then(|metadata| metadata.uid.clone())),
                part(secret.and_then(|metadata| metadata.resource_version.clone()))
            ),
            rotated_at: part(
                secret.and_then(|metadata| metadata.annotations.as_ref()?.get(names::ROTATED_AT).cloned()),
            ),
            account: self.account.clone(),
        }
    }

    pub(super) async fn pod(&mut self) -> Result<(), InstallError> {
        let of = self.settings.pod.pod_ref();
        let first = self.current_pod().await?;
        let first_uid = first.as_ref().and_then(|pod| pod.metadata.uid.clone());
        let force = first_uid.as_deref().filter(|_| self.settings.force);
        if self.dry_run {
            let desired = objects::pod(self.settings, &self.made_with().await?);
            return self.pod_dry_run(first.as_ref(), &desired, force).await;
        }
        let mut change = Change::Unchanged;
        // The old pod's end and the new pod's start share one time limit.
        let end = Instant::now() + self.settings.timeout;
        // Each turn reads everything again, the Secret too: another install or a person may change it at the same
        // time, and the pod must record the Secret that it was created with, not the one that this install wrote.
        for _ in 0..6 {
            let desired = objects::pod(self.settings, &self.made_with().await?);
            let existing = self.current_pod().await?;
            let wanted = Wanted { pod: &desired, force };
            let gone = match next_step(existing.as_ref(), wanted) {
                Step::Keep => {
                    self.record(change, of.clone(), Vec::new());
                    return self.ready(end).await;
                }
                Step::Create => {
                    let object = written(&desired, &of)?;
                    match apply::apply(self.cluster, &object, None, false).await {
                        Ok(_) if first_uid.is_some() => change = Change::Updated,
                        Ok(_) => change = Change::Created,
                        // Another install created a pod with another specification at the same time.
                        Err(error) if error.is_conflict() => {}
                        Err(KubeError { reason: Reason::Refused { code: 422, .. }, .. })
                            if self.current_pod().await?.is_some() => {}
                        Err(error) => return Err(at(&of)(error)),
                    }
                    continue;
                }
                Step::Replace { uid, why } => {
                    self.admitted(&of, &desired).await?;
                    let seconds = grace(end).as_secs();
                    self.reporter.progress(&format!(
                        "replacing {of}: {why}; running tools may take {seconds} s to finish"
                    ));
                    uid
                }
                Step::WaitGone { uid } => {
                    self.reporter.progress(&format!("waiting for the old {of} to go"));
                    uid
                }
            };
            self.delete_pod(&of, gone, end).await?;
        }
        Err(InstallError::Contended(of))
    }

    async fn current_pod(&self) -> Result<Option<Pod>, InstallError> {
        let ops = &self.settings.pod;
        let of = self.settings.pod.pod_ref();
        match pods::get(self.cluster, ops.namespace(), ops.name()).await {
            Ok(pod) => Ok(pod),
            Err(error) if self.cannot_validate(&of, &error) => Ok(None),
            Err(error) => Err(at(&of)(error)),
        }
    }

    /// Before anything is rotated or removed: checks whether the pod that replaces the existing one would be
    /// admitted.
    pub(super) async fn check_replacement(&self) -> Result<(), InstallError> {
        let of = self.settings.pod.pod_ref();
        let Some(there) = self.current_pod().await?.filter(|_| !self.dry_run) else { return Ok(()) };
        let secret = self.observe(&self.settings.pod.secret_ref()).await?;
        let desired = objects::pod(self.settings, &self.made_from(secret.as_ref()));
        let force = there.metadata.uid.as_deref().filter(|_| self.settings.force);
        let replaced = matches!(
            next_step(Some(&there), Wanted { pod: &desired, force }),
            Step::Replace { .. } | Step::WaitGone { .. }
        );
        let secret: Option<Secret> = secret.and_then(|object| object.try_parse().ok());
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        let rotated = data != objects::secret_data(self.settings);
        if replaced || rotated { self.admitted(&of, &desired).await } else { Ok(()) }
    }

    /// The existing pod is deleted only if its replacement would be admitted.
    async fn admitted(&self, of: &ObjectRef, desired: &Pod) -> Result<(), InstallError> {
        match apply::admitted(self.cluster, &written(desired, of)?).await {
            Ok(()) => Ok(()),
            Err(error) if quota::fits_as_replacement(&error) => Ok(()),
            // A webhook without dry-run support.
            Err(KubeError { attempt: _, reason: Reason::Refused { code: _, message } })
                if message.contains("does not support dry run") =>
            {
                Ok(())
            }
            Err(KubeError { attempt, reason }) => {
                let attempt = format!("{attempt} (the one that is there was kept)");
                Err(at(of)(KubeError { attempt, reason }))
            }
        }
    }

    async fn delete_pod(&self, of: &ObjectRef, uid: String, end: Instant) -> Result<(), InstallError> {
        let seconds = u32::try_from(grace(end).as_secs()).unwrap_or(u32::MAX);
        let deletion = Deletion { uid: Some(uid), grace_seconds: Some(seconds) };
        let limit = end.saturating_duration_since(Instant::now());
        apply::delete(self.cluster, of, &deletion, limit).await.map(|_| ()).map_err(at(of))
    }

    async fn pod_dry_run(
        &mut self,
        existing: Option<&Pod>,
        desired: &Pod,
        force: Option<&str>,
    ) -> Result<(), InstallError> {
        let of = self.settings.pod.pod_ref();
        let rotated = self
            .report
            .changes
            .iter()
            .any(|changed| changed.object.kind == "Secret" && changed.change != Change::Unchanged);
        match next_step(existing, Wanted { pod: desired, force }) {
            Step::Keep if !rotated => self.record(Change::Unchanged, of, Vec::new()),
            Step::Keep => {
                self.record(Change::Updated, of, vec!["replaced: the credential changed".to_owned()]);
            }
            Step::Replace { why, .. } => self.record(Change::Updated, of, vec![format!("replaced: {why}")]),
            Step::Create | Step::WaitGone { .. } => {
                self.apply(desired).await?;
            }
        }
        Ok(())
    }

    async fn ready(&mut self, end: Instant) -> Result<(), InstallError> {
        let ops = &self.settings.pod;
        let of = self.settings.pod.pod_ref();
        let api = pods::api(self.cluster, ops.namespace());
        let left = end.saturating_duration_since(Instant::now());
        let mut last = String::new();
        let reporter = &mut *self.reporter;
        let waited = pods::until(self.cluster, &api, &of, left, |pod: Option<&Pod>| {
            let Some(pod) = pod else { return Some(Err("it was deleted".to_owned())) };
            if postern_exec::target::is_ready(pod) {
                return Some(Ok(()));
            }
            let state = state(pod);
            if state != last {
                reporter.progress(&format!("waiting for {of} to be ready: {state}"));
                last.clone_from(&state);
            }
            fatal_reason(pod).map(Err)
        });
        let why = match waited.await {
            Ok(Ok(())) => {
                self.report.ready = true;
                return Ok(());
            }
            Ok(Err(why)) => why,
            Err(error) if Instant::now() >= end => {
                drop(error);
                format!("not within {} s", self.settings.timeout.as_secs())
            }
            Err(error) => return Err(at(&of)(error)),
        };
        let pod = pods::get(self.cluster, ops.namespace(), ops.name()).await.ok().flatten();
        let events = pods::events(self.cluster, ops.namespace(), "Pod", ops.name()).await.unwrap_or_default();
        let uid = pod.as_ref().and_then(|pod| pod.metadata.uid.as_ref());
        // Events of earlier pods of that name are irrelevant.
        let events: Vec<_> = events
            .into_iter()
            .filter(|event| uid.is_none() || event.involved_object.uid.as_ref() == uid)
            .collect();
        let diagnosis = Box::new(diagnose::of_pod(&of, pod.as_ref(), &events));
        Err(InstallError::NotReady { pod: ops.to_string(), why, diagnosis })
    }
}

/// Returns how long running tools may take to finish, so that the kubelet has time to end the rest and the next pod
/// to start.
fn grace(end: Instant) -> Duration {
    let left = end.saturating_duration_since(Instant::now());
    left.saturating_sub(AFTER_GRACE).max(Duration::from_secs(1)).min(left)
}

/// See [`grace`].
const AFTER_GRACE: Duration = Duration::from_secs(5);

/// Returns in a word the state of a pod that is not ready.
fn state(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let mut containers = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let waiting = containers.find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    waiting.or_else(|| status.and_then(|status| status.phase.clone())).unwrap_or_else(|| "Pending".to_owned())
}
