//! Runs the agent beside a container that has neither shell nor tar: in an ephemeral container of the same pod. It
//! sees the processes of the target and, as the same user, its files below `/proc/PID/root`.
//!
//! An ephemeral container can neither be removed nor restarted. So a running one is reused as long as it fits, and
//! none is added if it is known that it cannot work.

mod plan;

pub use plan::{Plan, Step, plan};

use crate::ephemeral_error::EphemeralError;
use crate::error::ExecError;
use crate::inject;
use crate::target::Place;
use plan::{State, existing, state_of, target_id};
use postern_kube::apply::ObjectRef;
use postern_kube::k8s_openapi::api::core::v1::Pod;
use postern_kube::{Cluster, KubeError, Reason, pods};
use std::time::Duration;

/// The time limit for pulling the image and starting the agent.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The time limit for the agent to report the target's user.
const DETECT_LIMIT: Duration = Duration::from_secs(20);

/// The container to add.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// An image with the agent.
    pub image: &'a str,
    /// The agent's path in the image.
    pub agent: &'a str,
    /// The target's user, if the caller knows it.
    pub user: Option<User>,
}

/// A user and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Its UID.
    pub uid: i64,
    /// Its GID.
    pub gid: i64,
}

impl User {
    /// Parses `UID` or `UID:GID`. The default GID is 0, as in Kubernetes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
        let number = |text: &str| text.parse::<u32>().ok().map(i64::from);
        match (number(uid), number(gid)) {
            (Some(uid), Some(gid)) => Ok(Self { uid, gid }),
            _ => Err(format!("{text:?} is not UID:GID, such as 65532:0")),
        }
    }
}

/// An ephemeral container that runs beside the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The ephemeral container, with the agent's path.
    pub place: Place,
    /// The target container's ID, without the prefix of the runtime.
    pub container_id: String,
    /// The containers that this call added, which stay in the pod's record: this one, and one before it if the
    /// target's user had to be detected.
    pub created: Vec<String>,
}

/// A progress report while a container is being reached.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A normal step.
    Step(&'a str),
    /// What prevents the start so far.
    Problem(&'a str),
}

/// Finds or adds an ephemeral container beside `place`, and waits until it runs. `notify` gets reports of the steps
/// that take time.
///
/// If neither the pod nor its node gives the target's user, the first container reads it from the target's processes.
/// Only if that user differs from the guess, a second container with that user is added.
///
/// This needs `get`, `list` and `watch` on `pods`, and `patch` on `pods/ephemeralcontainers`; to detect the user,
/// `get` and `create` on `pods/exec`.
pub async fn reach(
    cluster: &Cluster,
    place: &Place,
    wanted: &Wanted<'_>,
    notify: &mut dyn FnMut(Progress<'_>),
) -> Result<Reached, ExecError> {
    let (first, user, guessed) = ensure(cluster, place, wanted, notify).await?;
    if !guessed {
        return Ok(first);
    }
    let its = detect_user(cluster, &first).await.map_err(|why| failed(place, EphemeralError::NoUser(why)))?;
    if its == user {
        return Ok(first);
    }
    let User { uid, gid } = its;
    notify(Progress::Problem(&format!(
        "container {} runs as UID:GID {uid}:{gid}, which neither the pod nor its node reports, so a second ephemeral \
         container is needed; with --user {uid}:{gid} one is enough",
        place.container
    )));
    let wanted = Wanted { user: Some(its), ..*wanted };
    let (second, ..) = ensure(cluster, place, &wanted, notify).await?;
    Ok(Reached { created: [first.created, second.created].concat(), ..second })
}

/// Finds or adds one and waits until it runs. Also returns its user, and whether that user is a guess.
async fn ensure(
    cluster: &Cluster,
    place: &Place,
    wanted: &Wanted<'_>,
    notify: &mut dyn FnMut(Progress<'_>),
) -> Result<(Reached, User, bool), ExecError> {
    let Place { namespace, pod: pod_name, container, agent: _ } = place;
    let failed = |why| failed(place, why);
    let pod = pods::get(cluster, namespace, pod_name).await?;
    let pod = pod.ok_or_else(|| failed(EphemeralError::Target("there is no such pod".to_owned())))?;
    let Plan { step, user, guessed } = plan(&pod, container, wanted).map_err(failed)?;
    let (name, created) = match step {
        Step::Use(name) => (name, Vec::new()),
        Step::Add(new) => {
            let words = format!("adding ephemeral container {} to pod {namespace}/{pod_name}", new.name);
            notify(Progress::Step(&format!(
                "{words}, image {}; it stays until the pod is gone",
                wanted.image
            )));
            pods::add_ephemeral(cluster, namespace, pod_name, &new)
                .await
                .map_err(|error| refused(place, &pod, &new.name, error))?;
            (new.name.clone(), vec![new.name])
        }
    };
    let container_id = running(cluster, place, &name, wanted.image, notify).await?;
    let agent = Some(wanted.agent.to_owned());
    let place = Place { namespace: namespace.clone(), pod: pod_name.clone(), container: name, agent };
    Ok((Reached { place, container_id, created }, user, guessed))
}

/// Returns the target's user, which the agent reads; any user may read it.
async fn detect_user(cluster: &Cluster, reached: &Reached) -> Result<User, String> {
    let Reached { place, container_id, created: _ } = reached;
    let agent = place.agent.as_deref().unwrap_or_default();
    let command = [agent, "target-user", container_id];
    let answer = inject::simple(cluster, place, &command, DETECT_LIMIT).await;
    let answer = answer.map_err(|error| inject::reason(&error))?;
    User::parse(String::from_utf8_lossy(&answer).trim_end())
}

fn failed(place: &Place, why: EphemeralError) -> ExecError {
    let Place { namespace, pod, container, agent: _ } = place.clone();
    ExecError::Ephemeral { namespace, pod, container, why: Box::new(why) }
}

/// Classifies a refusal: one that is about the pod's existing containers will be repeated, whatever is added.
fn refused(place: &Place, pod: &Pod, ours: &str, error: KubeError) -> ExecError {
    match &error.reason {
        Reason::Refused { message, .. } => {
            let others = rejected_containers(message, pod, ours);
            failed(place, EphemeralError::Refused { error, others })
        }
        _ => error.into(),
    }
}

/// Returns the pod's containers that a refusal names: by name in quotes, as Pod Security admission does, or by index,
/// as validation does.
fn rejected_containers(message: &str, pod: &Pod, ours: &str) -> Vec<String> {
    // The text before it names the pod, whose name often equals that of its container.
    let message = message.split_once(" is ").map_or(message, |(_, rest)| rest);
    // Here the target's name occurs in an error about our container.
    if message.contains("targetContainerName") {
        return Vec::new();
    }
    let others = existing(pod).filter(|(kind, index, name)| {
        let named = message.contains(&format!("\"{name}\"")) || message.contains(&format!("{kind}[{index}]"));
        named && *name != ours
    });
    others.map(|(_, _, name)| format!("container {name}")).collect()
}

/// Waits until it runs, and returns the target's ID.
async fn running(
    cluster: &Cluster,
    place: &Place,
    name: &str,
    image: &str,
    notify: &mut dyn FnMut(Progress<'_>),
) -> Result<String, ExecError> {
    let Place { namespace, pod, container, agent: _ } = place;
    let not_running = |state: String| {
        failed(place, EphemeralError::NotRunning { name: name.to_owned(), image: image.to_owned(), state })
    };
    let mut last: Option<String> = None;
    let of = ObjectRef::of::<Pod>(Some(namespace), pod);
    let check = |pod: Option<&Pod>| {
        let Some(pod) = pod else {
            return Some(Err(failed(place, EphemeralError::Target("the pod is gone".to_owned()))));
        };
        match state_of(pod, name) {
            State::Running => Some(target_id(pod, container).map_err(|why| failed(place, why))),
            State::Stuck(how) | State::Ended(how) => Some(Err(not_running(how))),
            State::Waiting(why) => {
                if let Some(why) = why
                    && last.as_ref() != Some(&why)
                {
                    notify(Progress::Problem(&format!("ephemeral container {name} {why}")));
                    last = Some(why);
                }
                None
            }
        }
    };
    match pods::until(cluster, &pods::api(cluster, namespace), &of, START_LIMIT, check).await {
        Ok(result) => result,
        Err(KubeError { reason: Reason::NoAnswer(seconds), .. }) if seconds == START_LIMIT.as_secs() => {
            let last = last.unwrap_or_else(|| "has no state that its node reports".to_owned());
            Err(not_running(format!("does not run after {seconds} s: it {last}")))
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ephemeral_error::replacement_hint;

    #[test]
    fn a_user_is_a_uid_and_a_gid_of_0_unless_named() {
        assert_eq!(User::parse("65532"), Ok(User { uid: 65_532, gid: 0 }));
        assert_eq!(User::parse("1000:2000"), Ok(User { uid: 1000, gid: 2000 }));
        for wrong in ["", "app", "1000:", ":0", "-1:0", "1:2:3"] {
            assert!(User::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_of_what_is_there_already_says_so() {
        let pod: Pod = serde_json::from_str(
            r#"{"metadata":{"name":"p","namespace":"n"},"spec":{"containers":[{"name":"app"}],
            "ephemeralContainers":[{"name":"loose"}]}}"#,
        )
        .unwrap();
        let of = |message: &str| rejected_containers(message, &pod, "postern-app-1");
        // The wording of the API server of 1.36.
        let old = r#"pods "app" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false
            (container "loose" must set securityContext.allowPrivilegeEscalation=false)"#;
        assert_eq!(of(old), ["container loose"]);
        assert_eq!(of("spec.ephemeralContainers[0].resources: Forbidden"), ["container loose"]);
        let main = r#"seccompProfile (pod or containers "app", "loose" must set …)"#;
        assert_eq!(of(main), ["container app", "container loose"]);
        // A refusal of our container does not name the others.
        let ours = r#"violates PodSecurity "restricted:latest": runAsUser=0 (container "postern-app-1" must not set …)"#;
        assert!(of(ours).is_empty());
        assert!(of(r#"spec.ephemeralContainers[1].targetContainerName: Not found: "app""#).is_empty());
        let words = replacement_hint(&of(old));
        assert!(words.contains("container loose") && words.contains("kubernetes#118961"), "{words}");
    }
}
