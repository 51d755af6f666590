//! Determines which ephemeral container a pod needs, as a pure function of the pod.

use super::{User, Wanted};
use crate::ephemeral_error::EphemeralError;
use postern_kube::k8s_openapi::api::core::v1::{
    Capabilities, ContainerState, ContainerStateTerminated, ContainerStatus, EphemeralContainer, Pod,
    PodSpec, PodStatus, SeccompProfile, SecurityContext,
};

/// The prefix of the names of Postern's ephemeral containers.
const PREFIX: &str = "postern-";

/// The maximum length of a container's name: a DNS label.
const LABEL: usize = 63;

/// The usual non-root user of images, by the convention of distroless.
const NONROOT: i64 = 65_532;

/// What to do, and as which user.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What to do.
    pub step: Step,
    /// The user of the ephemeral container.
    pub user: User,
    /// Whether that user is a guess; the true one can be read from inside.
    pub guessed: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Use this existing container.
    Use(String),
    /// Add this container.
    Add(Box<EphemeralContainer>),
}

/// The state of an ephemeral container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It runs.
    Running,
    /// It may still start; why it has not yet.
    Waiting(Option<String>),
    /// Its node retries without success until something is changed.
    Stuck(String),
    /// It will never run (again).
    Ended(String),
}

/// Returns the ephemeral container that reaches `container`.
pub fn plan(pod: &Pod, container: &str, wanted: &Wanted<'_>) -> Result<Plan, EphemeralError> {
    let spec = pod.spec.as_ref().ok_or_else(|| EphemeralError::Target("the pod has no spec".to_owned()))?;
    // This fails before a container is added that could not be used.
    target_id(pod, container)?;
    let (user, guessed) = user(pod, spec, container, wanted.user);
    let mut new = EphemeralContainer {
        image: Some(wanted.image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec![wanted.agent.to_owned(), "serve".to_owned()]),
        target_container_name: Some(container.to_owned()),
        stdin: Some(false),
        tty: Some(false),
        security_context: Some(security(spec, container, user)),
        ..EphemeralContainer::default()
    };
    // Not the whole security context is compared: admission may have added to it.
    let user_in = |one: &EphemeralContainer| {
        let security = one.security_context.as_ref();
        security.map(|security| (security.run_as_user, security.run_as_group))
    };
    let serves = |old: &&EphemeralContainer| {
        old.name.starts_with(PREFIX)
            && old.image == new.image
            && old.command == new.command
            && old.target_container_name == new.target_container_name
            && user_in(old) == user_in(&new)
            && !matches!(state_of(pod, &old.name), State::Ended(_))
    };
    if let Some(old) = spec.ephemeral_containers.iter().flatten().find(serves) {
        return Ok(Plan { step: Step::Use(old.name.clone()), user, guessed });
    }
    new.name = free_name(pod, container);
    Ok(Plan { step: Step::Add(Box::new(new)), user, guessed })
}

/// Returns `postern-CONTAINER-N`, with the lowest free number. Two clients at the same time choose the same name, and
/// so share one container.
fn free_name(pod: &Pod, container: &str) -> String {
    let taken: Vec<&str> = existing(pod).map(|(_, _, name)| name).collect();
    let name = |number: usize| {
        let suffix = format!("-{number}");
        let mut middle = container.to_owned();
        middle.truncate(LABEL - PREFIX.len() - suffix.len());
        format!("{PREFIX}{}{suffix}", middle.trim_end_matches('-'))
    };
    // One of the numbers up to the count of names plus one must be free.
    (1..=taken.len())
        .map(name)
        .find(|name| !taken.contains(&name.as_str()))
        .unwrap_or_else(|| name(taken.len() + 1))
}

/// Returns every container of a pod: its list in the spec, its index there, and its name.
pub(super) fn existing(pod: &Pod) -> impl Iterator<Item = (&'static str, usize, &str)> {
    let spec = pod.spec.as_ref();
    let of = |kind, names: Vec<_>| names.into_iter().enumerate().map(move |(at, name)| (kind, at, name));
    let containers =
        spec.into_iter().flat_map(|spec| &spec.containers).map(|one| one.name.as_str()).collect();
    let init = spec.and_then(|spec| spec.init_containers.as_ref()).into_iter().flatten();
    let ephemeral = spec.and_then(|spec| spec.ephemeral_containers.as_ref()).into_iter().flatten();
    let (init, ephemeral) = (init.map(|one| one.name.as_str()), ephemeral.map(|one| one.name.as_str()));
    of("spec.containers", containers)
        .chain(of("spec.initContainers", init.collect()))
        .chain(of("spec.ephemeralContainers", ephemeral.collect()))
}

/// Returns the security context of a container itself, without the pod's.
fn own_security(spec: &PodSpec, container: &str) -> SecurityContext {
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.find(|one| one.name == container).and_then(|one| one.security_context.clone()).unwrap_or_default()
}

/// Returns a security context that permits access to the target only, within the restricted Pod Security Standard if
/// the target is within it.
///
/// The kernel requires the same UID and GID (ptrace(2)), and that the target has no capability that we lack. A
/// non-root process in a pod has none, so neither do we. A root process has what its container was given, so we
/// request the same. If the target has its own confinement, it must apply to us too.
fn security(spec: &PodSpec, container: &str, user: User) -> SecurityContext {
    let own = own_security(spec, container);
    let root = user.uid == 0;
    let none = || Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None };
    SecurityContext {
        run_as_user: Some(user.uid),
        run_as_group: Some(user.gid),
        run_as_non_root: (!root).then_some(true),
        allow_privilege_escalation: Some(false),
        capabilities: if root { own.capabilities } else { Some(none()) },
        read_only_root_filesystem: Some(true),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        se_linux_options: own.se_linux_options,
        app_armor_profile: own.app_armor_profile,
        ..SecurityContext::default()
    }
}

/// Returns the target's user, and whether that is a guess. A user that the container or the pod sets is the one that
/// runs. Otherwise only the node has it, and reports it from Kubernetes 1.31 and containerd 2 on.
///
/// If it does not: any UID except root's may read it from inside, so the most frequent one is used. The GID is 0
/// unless the image's `/etc/passwd` has another one for the UID (the group in the image's `USER` is ignored for it).
fn user(pod: &Pod, spec: &PodSpec, container: &str, named: Option<User>) -> (User, bool) {
    if let Some(user) = named {
        return (user, false);
    }
    let own = own_security(spec, container);
    let whole = spec.security_context.as_ref();
    let reported = status(pod, container).and_then(|status| status.user.as_ref()?.linux.as_ref());
    let uid = own.run_as_user.or(whole.and_then(|whole| whole.run_as_user));
    let gid = own.run_as_group.or(whole.and_then(|whole| whole.run_as_group));
    let uid = uid.or(reported.map(|user| user.uid));
    let gid = gid.or(reported.map(|user| user.gid));
    match (uid, gid) {
        (Some(uid), Some(gid)) => (User { uid, gid }, false),
        (Some(uid), None) => (User { uid, gid: 0 }, true),
        (None, gid) => {
            (User { uid: NONROOT, gid: gid.unwrap_or_else(|| likely_group(spec, container)) }, true)
        }
    }
}

/// Returns the group of an image's unknown user: the one in its `/etc/passwd`, which distroless images and similar
/// ones have, otherwise 0 (the group in the image's `USER` is ignored for it).
fn likely_group(spec: &PodSpec, container: &str) -> i64 {
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let image =
        all.find(|one| one.name == container).and_then(|one| one.image.as_deref()).unwrap_or_default();
    let lists = ["distroless", "cgr.dev/", "chainguard"].iter().any(|name| image.contains(name));
    if lists { NONROOT } else { 0 }
}

/// Returns the status of a container that is not ephemeral.
fn status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let PodStatus { container_statuses, init_container_statuses, .. } = pod.status.as_ref()?;
    let all = container_statuses.iter().chain(init_container_statuses).flatten();
    all.into_iter().find(|status| status.name == container)
}

/// Returns the ID of a running container.
pub(super) fn target_id(pod: &Pod, container: &str) -> Result<String, EphemeralError> {
    if existing(pod).any(|(kind, _, name)| kind == "spec.ephemeralContainers" && name == container) {
        return Err(EphemeralError::Target("it is an ephemeral container itself".to_owned()));
    }
    let its = status(pod, container)
        .ok_or_else(|| EphemeralError::Target("its node does not report it yet".to_owned()))?;
    let id = its.container_id.as_deref().map(|id| id.split_once("://").map_or(id, |(_, id)| id));
    match (&its.state, id) {
        (Some(ContainerState { running: Some(_), .. }), Some(id)) if !id.is_empty() => Ok(id.to_owned()),
        (state, _) => {
            let state = state.clone().unwrap_or_default();
            let waiting = state.waiting.and_then(|waiting| waiting.reason);
            let reason = waiting.or_else(|| state.terminated.and_then(|ended| ended.reason));
            let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
            Err(EphemeralError::Target(format!("it is not running{reason}")))
        }
    }
}

/// Waiting reasons that do not resolve with time.
const STUCK: [&str; 4] =
    ["InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError"];

/// Returns the state of an ephemeral container from its node's report.
pub(super) fn state_of(pod: &Pod, name: &str) -> State {
    let statuses = pod.status.as_ref().and_then(|status| status.ephemeral_container_statuses.as_ref());
    let its = statuses.into_iter().flatten().find(|status| status.name == name);
    let Some(state) = its.and_then(|status| status.state.as_ref()) else { return State::Waiting(None) };
    let words = |reason: &Option<String>, message: &Option<String>| {
        let reason = reason.as_deref().unwrap_or("no reason given");
        message.as_ref().map_or_else(|| reason.to_owned(), |message| format!("{reason}: {message}"))
    };
    if state.running.is_some() {
        return State::Running;
    }
    if let Some(ContainerStateTerminated { exit_code, reason, message, .. }) = &state.terminated {
        return State::Ended(format!("ended with code {exit_code} ({})", words(reason, message)));
    }
    let Some(waiting) = &state.waiting else { return State::Waiting(None) };
    let why = words(&waiting.reason, &waiting.message);
    match waiting.reason.as_deref() {
        // It was created, and an ephemeral container is never started a second time.
        Some("RunContainerError") => State::Ended(format!("did not start ({why})")),
        Some(reason) if STUCK.contains(&reason) => State::Stuck(format!("does not start ({why})")),
        None | Some("ContainerCreating" | "PodInitializing") => State::Waiting(None),
        Some(_) => State::Waiting(Some(format!("waits ({why})"))),
    }
}

#[cfg(test)]
mod tests;
