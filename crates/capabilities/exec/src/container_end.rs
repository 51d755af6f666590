//! Detects a container that ended while a command ran in it. The runtime reports this as exit code 137, as for a
//! killed command.

use crate::error::ExecError;
use crate::target::Place;
use postern_kube::k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use postern_kube::k8s_openapi::jiff::Timestamp;
use postern_kube::{Cluster, pods};
use std::time::Duration;

/// The exit code of a process that SIGKILL ended.
const KILLED: u8 = 137;

/// If the start of the command is not known, a container's end counts only if it is at most this old.
const RECENT: Duration = Duration::from_secs(60);

/// The clock skew that is allowed for.
const SKEW: Duration = Duration::from_secs(2);

/// How long the kubelet may take to report a container's end, and the interval of the requests.
const STATUS_LIMIT: Duration = Duration::from_secs(3);
const STATUS_INTERVAL: Duration = Duration::from_millis(500);

/// Returns the exit code of a command that ran for `ran`, or an error if its container was ended meanwhile.
pub async fn check_exit_code(
    cluster: &Cluster,
    place: &Place,
    code: u8,
    ran: Duration,
) -> Result<u8, ExecError> {
    if code != KILLED {
        return Ok(code);
    }
    let found = ended_container(cluster, place, ran + SKEW).await;
    found.map_or(Ok(code), |why| Err(ExecError::Broke(why)))
}

/// Returns the result of a run. If the container's end caused the error, the error says so.
pub async fn explain_error<T>(
    cluster: &Cluster,
    place: &Place,
    ran: Result<T, ExecError>,
) -> Result<T, ExecError> {
    let killed = format!("code {KILLED}");
    Err(match ran {
        Err(ExecError::Broke(why)) if why.contains(&killed) => {
            ExecError::Broke(await_ended_container(cluster, place).await.unwrap_or(why))
        }
        Err(ExecError::NoAgent(why)) if why.contains(&killed) => {
            ExecError::NoAgent(await_ended_container(cluster, place).await.unwrap_or(why))
        }
        other => return other,
    })
}

/// Returns how the container ended. The kubelet reports it some time after the end.
async fn await_ended_container(cluster: &Cluster, place: &Place) -> Option<String> {
    let began = tokio::time::Instant::now();
    loop {
        let found = ended_container(cluster, place, RECENT).await;
        if found.is_some() || began.elapsed() >= STATUS_LIMIT {
            return found;
        }
        tokio::time::sleep(STATUS_INTERVAL).await;
    }
}

/// Returns `None` if the container still runs as before, or if the pod cannot be read. Ends older than `recent` are
/// ignored.
async fn ended_container(cluster: &Cluster, place: &Place, recent: Duration) -> Option<String> {
    let Place { namespace, pod, container, agent: _ } = place;
    let found = pods::get(cluster, namespace, pod).await.ok()?;
    let name = format!("pod {namespace}/{pod}");
    match found {
        None => Some(format!("{name} was deleted while the command ran")),
        Some(found) => {
            of_pod(&found, container, Timestamp::now(), recent).map(|what| format!("{name} {what}"))
        }
    }
}

fn of_pod(pod: &Pod, container: &str, now: Timestamp, recent: Duration) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("was deleted while the command ran".to_owned());
    }
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() == Some("Failed") {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        let message = status.message.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        return Some(format!("was ended while the command ran ({reason}{message})"));
    }
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let its = all.find(|status| status.name == container)?;
    let its_end = |ended: &&ContainerStateTerminated| {
        let at = ended.finished_at.as_ref().map(|time| time.0);
        at.is_some_and(|at| now.duration_since(at).unsigned_abs() < recent)
    };
    let words = |ended: &ContainerStateTerminated| {
        ended.reason.clone().unwrap_or_else(|| format!("exit code {}", ended.exit_code))
    };
    if let Some(ended) = its.state.as_ref().and_then(|state| state.terminated.as_ref()) {
        return Some(format!("has container {container} ended while the command ran ({})", words(ended)));
    }
    let last = its.last_state.as_ref().and_then(|state| state.terminated.as_ref()).filter(its_end)?;
    Some(format!("had container {container} restarted while the command ran ({})", words(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &str, metadata: &str) -> Pod {
        serde_json::from_str(&format!(r#"{{"metadata":{{{metadata}}},"status":{{{status}}}}}"#)).unwrap()
    }

    #[test]
    fn the_end_of_a_container_is_reported_and_a_killed_command_stays_one() {
        let now: Timestamp = "2026-01-01T00:00:30Z".parse().unwrap();
        let of = |status: &str| of_pod(&pod(status, ""), "app", now, Duration::from_secs(25));
        let last = |at: &str| {
            format!(
                r#""containerStatuses":[{{"name":"app","image":"i","imageID":"i","ready":true,"restartCount":1,
                "state":{{"running":{{}}}},"lastState":{{"terminated":{{"exitCode":137,"reason":"OOMKilled",
                "finishedAt":"{at}"}}}}}}]"#
            )
        };
        assert_eq!(
            of(&last("2026-01-01T00:00:10Z")).unwrap(),
            "had container app restarted while the command ran (OOMKilled)"
        );
        assert_eq!(of(&last("2026-01-01T00:00:01Z")), None, "that was before the command");
        let evicted = of(r#""phase":"Failed","reason":"Evicted","message":"low on memory""#).unwrap();
        assert_eq!(evicted, "was ended while the command ran (Evicted: low on memory)");
        let going = pod("", r#""deletionTimestamp":"2026-01-01T00:00:00Z""#);
        assert!(of_pod(&going, "app", now, RECENT).unwrap().contains("deleted"));
        assert_eq!(of(r#""phase":"Running""#), None);
    }
}
