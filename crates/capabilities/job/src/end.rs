//! Why a Job's pod ended while the command ran.

use crate::names::CONTAINER;
use crate::settings::Settings;
use postern_exec::ExecError;
use postern_exec::target::Place;
use postern_kube::k8s_openapi::api::batch::v1::Job;
use postern_kube::k8s_openapi::api::core::v1::Pod;
use postern_kube::kube::Api;
use postern_kube::{Cluster, pods};
use std::time::{Duration, Instant};

/// How long the kubelet and the Job controller may take to report an end.
const LIMIT: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_millis(250);
/// The number of SIGKILL.
const KILLED: u8 = 128 + 9;

/// Returns the result of a command. An error says why its pod ended, if the cluster knows; a command that was killed
/// because it used too much memory is an error too.
pub async fn explain(
    cluster: &Cluster,
    settings: &Settings,
    place: &Place,
    ran: Result<u8, ExecError>,
) -> Result<u8, ExecError> {
    let is_lost = match &ran {
        Ok(code) => *code == KILLED,
        Err(ExecError::Broke(_) | ExecError::NoAgent(_)) => true,
        Err(_) => false,
    };
    if !is_lost {
        return ran;
    }
    let began = Instant::now();
    loop {
        let pod = pods::get(cluster, &place.namespace, &place.pod).await.ok().flatten();
        let api: Api<Job> = Api::namespaced(cluster.client.clone(), &settings.namespace);
        let job = api.get_opt(&settings.name).await.ok().flatten();
        if let Some(why) = cause(pod.as_ref(), job.as_ref(), settings) {
            return Err(ExecError::Broke(format!("pod {}/{}: {why}", place.namespace, place.pod)));
        }
        // A command that was killed for another reason ended by itself.
        let is_over = pod.as_ref().is_some_and(has_ended);
        if is_over || began.elapsed() >= LIMIT {
            return ran;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Why a pod ended, if its own end or the Job's says so.
fn cause(pod: Option<&Pod>, job: Option<&Job>, settings: &Settings) -> Option<String> {
    let conditions = job.and_then(|job| job.status.as_ref()).into_iter();
    let failed = conditions
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|condition| condition.type_ == "Failed" && condition.status == "True");
    if failed.is_some_and(|condition| condition.reason.as_deref() == Some("DeadlineExceeded")) {
        return Some("the Job's deadline has passed; set a longer one with --timeout".to_owned());
    }
    let pod = match pod {
        Some(pod) => pod,
        None if job.is_none() => return Some("the Job was deleted".to_owned()),
        None => return Some("it was deleted while the command ran".to_owned()),
    };
    let status = pod.status.as_ref()?;
    let mut statuses = status.container_statuses.iter().flatten();
    let ended = statuses
        .find(|status| status.name == CONTAINER)
        .and_then(|status| status.state.as_ref()?.terminated.as_ref());
    if ended.and_then(|ended| ended.reason.as_deref()) == Some("OOMKilled") {
        let limit = settings.resources.memory.as_ref().map_or("256Mi", |memory| &memory.0);
        return Some(format!(
            "the command used more memory than its limit of {limit}; raise it with --memory"
        ));
    }
    let message = status.message.as_deref().unwrap_or_default();
    let mut conditions = status.conditions.iter().flatten();
    let disrupted =
        conditions.find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    match (status.reason.as_deref(), disrupted.and_then(|condition| condition.reason.as_deref())) {
        (Some("NodeLost"), _) | (_, Some("DeletionByTaintManager" | "DeletionByPodGC")) => {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("?");
            Some(format!("its node {node} was lost"))
        }
        (Some("Evicted"), _) => Some(format!("it was evicted: {message}")),
        (_, Some(reason @ ("EvictionByEvictionAPI" | "PreemptionByScheduler" | "TerminationByKubelet"))) => {
            Some(format!("it was evicted: {reason} {message}").trim_end().to_owned())
        }
        _ if pod.metadata.deletion_timestamp.is_some() => {
            Some("it was deleted while the command ran".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(status: &Value, job: Option<&Value>) -> Option<String> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {}, "spec": {"nodeName": "n1", "containers": []}, "status": status}),
        )
        .unwrap();
        let job = job.map(|status| -> Job {
            serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap()
        });
        cause(Some(&pod), job.as_ref(), &crate::objects::tests::settings())
    }

    #[test]
    fn ends_are_told_apart() {
        let failed =
            |reason: &str| json!({"conditions": [{"type": "Failed", "status": "True", "reason": reason}]});
        let running = json!({"phase": "Running"});
        assert!(of(&running, Some(&failed("DeadlineExceeded"))).unwrap().contains("deadline"));
        assert_eq!(of(&running, Some(&failed("BackoffLimitExceeded"))), None);
        let oom = json!({"phase": "Failed", "containerStatuses": [{
            "name": "tool", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
        }]});
        assert!(of(&oom, None).unwrap().contains("256Mi"));
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        assert_eq!(of(&evicted, None).unwrap(), "it was evicted: The node was low on resource: memory.");
        let disrupted = |reason: &str| json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]});
        assert_eq!(of(&disrupted("DeletionByTaintManager"), None).unwrap(), "its node n1 was lost");
        assert!(of(&disrupted("PreemptionByScheduler"), None).unwrap().contains("evicted"));
        assert_eq!(cause(None, None, &crate::objects::tests::settings()).unwrap(), "the Job was deleted");
    }
}
