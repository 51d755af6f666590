//! An ephemeral container of the agent beside containers without shell and tar.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{Outcome, apply, enabled, get, kubeconfig, kubectl, write_kubeconfig};
use postern_exec::ExecError;
use postern_exec::ephemeral::{Reached, User, Wanted, reach};
use postern_exec::target::Place;
use postern_kube::{Cluster, Target};
use serde_json::{Value, json};
use std::path::Path;

const NAMESPACE: &str = "postern-e2e-ephemeral";
const IMAGE: &str = "ghcr.io/postern-dev/postern-ops:dev";
const AGENT: &str = "/usr/local/bin/postern-agent";
const WANTED: Wanted<'_> = Wanted { image: IMAGE, agent: AGENT, user: None };

/// A namespace that is enforced as named, new for each test: what is added to a pod stays.
struct Namespace(String);

impl Namespace {
    fn new(name: &str, enforce: &str) -> Self {
        let name = format!("{NAMESPACE}-{name}");
        kubectl(&["delete", "namespace", &name, "--ignore-not-found", "--timeout=60s"]).ok();
        apply(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name,
                "labels": {"pod-security.kubernetes.io/enforce": enforce}}})
            .to_string(),
        );
        Self(name)
    }

    /// Starts a pod whose container `app` has no shell, with this security context, and more of the spec.
    fn pod(&self, name: &str, security: &Value, more: &Value) {
        let mut spec = json!({
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "app", "image": "scratch-static:1", "imagePullPolicy": "IfNotPresent",
                "securityContext": security}],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        apply(
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.0},
                "spec": spec})
            .to_string(),
        );
        let pod = format!("pod/{name}");
        kubectl(&["wait", "-n", &self.0, "--for=condition=Ready", &pod, "--timeout=60s"]).ok();
    }

    fn place(&self, pod: &str, container: &str) -> Place {
        let (namespace, pod, container) = (self.0.clone(), pod.to_owned(), container.to_owned());
        Place { namespace, pod, container, agent: None }
    }

    fn reach(&self, pod: &str, wanted: &Wanted<'_>) -> Result<Reached, ExecError> {
        reach_as(&kubeconfig(), &self.place(pod, "app"), wanted)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        kubectl(&["delete", "namespace", &self.0, "--wait=false"]);
    }
}

fn reach_as(kubeconfig: &Path, place: &Place, wanted: &Wanted<'_>) -> Result<Reached, ExecError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let target = Target { kubeconfig: Some(kubeconfig.to_owned()), ..Target::default() };
        let cluster = Cluster::connect(&target).await.unwrap();
        reach(&cluster, place, wanted, &mut |_| {}).await
    })
}

/// A command in the ephemeral container.
fn inside(place: &Place, command: &[&str]) -> Outcome {
    let Place { namespace, pod, container, agent: _ } = place;
    let mut all = vec!["exec", "-n", namespace, pod, "-c", container, "--"];
    all.extend_from_slice(command);
    kubectl(&all)
}

/// Where the agent finds the target's files.
fn root(reached: &Reached) -> Outcome {
    inside(&reached.place, &[reached.place.agent.as_deref().unwrap(), "target-root", &reached.container_id])
}

/// What is to be seen there: the one program of the image.
#[track_caller]
fn sees_the_app(reached: &Reached) -> String {
    let path = root(reached).ok().stdout.trim().to_owned();
    assert!(
        inside(&reached.place, &["ls", &format!("{path}/")]).ok().stdout.lines().any(|name| name == "app")
    );
    path
}

fn bare() -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "runAsUser": 65532})
}

#[test]
fn files_are_seen_and_written_within_the_restricted_standard() {
    if !enabled() {
        return;
    }
    let namespace = Namespace::new("restricted", "restricted");
    namespace.pod("apart", &bare(), &json!({}));
    let reached = namespace.reach("apart", &WANTED).unwrap();
    assert_eq!(reached.created, std::slice::from_ref(&reached.place.container));
    let path = sees_the_app(&reached);
    assert_eq!(path, "/proc/1/root");
    // As the target's own user: it owns what is written.
    let file = format!("{path}/tmp/put");
    inside(&reached.place, &["sh", "-c", &format!("echo here >{file}; stat -c %u:%g {file}")])
        .ok()
        .stdout
        .contains("65532:0")
        .then_some(())
        .unwrap();
    let again = namespace.reach("apart", &WANTED).unwrap();
    assert_eq!((again.place, again.created.len()), (reached.place.clone(), 0));
    // One that ended is not used again.
    inside(
        &reached.place,
        &["sh", "-c", "kill -TERM $(grep -l postern-agent /proc/[0-9]*/comm | cut -d/ -f3)"],
    );
    let name = reached.place.container.as_str();
    e2e::eventually("it ends", std::time::Duration::from_secs(20), || {
        let pod = get(&["pod", "-n", &namespace.0, "apart"]);
        let all = pod["status"]["ephemeralContainerStatuses"].as_array().unwrap();
        all.iter().any(|one| one["name"] == name && one["state"]["terminated"]["exitCode"] == 0)
    });
    let next = namespace.reach("apart", &WANTED).unwrap();
    assert_eq!(
        (next.place.container.as_str(), next.created.as_slice()),
        ("postern-app-2", &["postern-app-2".to_owned()][..])
    );
    sees_the_app(&next);
}

#[test]
fn in_a_shared_process_namespace_it_is_the_targets_root_and_not_the_pause_containers() {
    if !enabled() {
        return;
    }
    let namespace = Namespace::new("shared", "restricted");
    let other = json!({"name": "other", "image": "busybox:1.35", "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"], "securityContext": bare()});
    let app = json!({"name": "app", "image": "scratch-static:1", "imagePullPolicy": "IfNotPresent",
        "securityContext": bare()});
    namespace.pod("shared", &bare(), &json!({"shareProcessNamespace": true, "containers": [other, app]}));
    let reached = namespace.reach("shared", &WANTED).unwrap();
    assert_ne!(sees_the_app(&reached), "/proc/1/root");
    // A container that is not there is none of those that are.
    let elsewhere = "0123456789abcdef".repeat(4);
    inside(&reached.place, &[AGENT, "target-root", &elsewhere]).exits(1).says(&["none of its own"]);
}

#[test]
fn what_the_kernel_does_not_allow_is_said() {
    if !enabled() {
        return;
    }
    let namespace = Namespace::new("denied", "privileged");
    // Root's container, with what containers have by default: ours has the same.
    namespace.pod("root", &json!({"runAsUser": 0}), &json!({}));
    sees_the_app(&namespace.reach("root", &WANTED).unwrap());
    let wrong = Wanted { user: Some(User { uid: 65_531, gid: 0 }), ..WANTED };
    let denied = root(&namespace.reach("root", &wrong).unwrap()).exits(1);
    denied.says(&["UID:GID 0:0 and this agent as 65531:0", "a volume that both mount"]);
    // A process that has made itself not dumpable.
    let agent = json!([{"name": "app", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": [AGENT, "serve"],
        "securityContext": bare()}]);
    namespace.pod("hardened", &bare(), &json!({"containers": agent}));
    root(&namespace.reach("hardened", &WANTED).unwrap()).exits(1).says(&["not dumpable"]);
}

#[test]
fn a_user_that_nobody_tells_is_asked_for() {
    if !enabled() {
        return;
    }
    let namespace = Namespace::new("user", "privileged");
    // Of the image: a runtime that is older than containerd 2 does not report it, and its group is not the image's.
    namespace.pod("image", &json!({}), &json!({}));
    let first = namespace.reach("image", &WANTED).unwrap();
    assert_eq!(first.created, ["postern-app-1"], "one does");
    sees_the_app(&first);
    // Of the image's /etc/passwd, which has a group for that user.
    let listed = json!([{"name": "app", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"], "securityContext": {"runAsUser": 65532}}]);
    namespace.pod("listed", &json!({}), &json!({"containers": listed}));
    root(&namespace.reach("listed", &WANTED).unwrap()).ok();
    // Again, nothing is added.
    let again = namespace.reach("image", &WANTED).unwrap();
    assert_eq!((again.place, again.created.len()), (first.place, 0));
}

#[test]
fn several_at_a_time_share_one() {
    if !enabled() {
        return;
    }
    let namespace = Namespace::new("several", "restricted");
    let mut security = bare();
    security["runAsGroup"] = json!(0);
    namespace.pod("app", &security, &json!({}));
    let places: Vec<Place> = std::thread::scope(|scope| {
        let one = || namespace.reach("app", &WANTED).unwrap().place;
        let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(places.iter().all(|place| place.container == "postern-app-1"), "{places:?}");
}

#[test]
fn beside_a_target_that_was_restarted_there_is_another() {
    if !enabled() {
        return;
    }
    let namespace = Namespace::new("restarted", "restricted");
    let mut security = bare();
    security["runAsGroup"] = json!(0);
    namespace.pod("app", &security, &json!({}));
    let first = namespace.reach("app", &WANTED).unwrap();
    // The target's process namespace ends, and ours with it.
    inside(&first.place, &["sh", "-c", "kill -TERM 1"]);
    e2e::eventually("it is restarted", std::time::Duration::from_secs(30), || {
        let status = &get(&["pod", "-n", &namespace.0, "app"])["status"];
        status["containerStatuses"][0]["restartCount"] == 1
            && status["containerStatuses"][0]["state"]["running"].is_object()
            && status["ephemeralContainerStatuses"][0]["state"]["terminated"].is_object()
    });
    let second = namespace.reach("app", &WANTED).unwrap();
    assert_eq!(
        (second.place.container.as_str(), second.created.as_slice()),
        ("postern-app-2", &["postern-app-2".to_owned()][..])
    );
    assert_ne!(second.container_id, first.container_id);
    sees_the_app(&second);
}

#[test]
#[ignore = "takes a minute"]
fn an_image_that_does_not_come_is_named_with_the_reason() {
    if !enabled() {
        return;
    }
    let namespace = Namespace::new("image", "restricted");
    namespace.pod("app", &bare(), &json!({}));
    let nowhere = Wanted { image: "nowhere.invalid/none:1", ..WANTED };
    let error = namespace.reach("app", &nowhere).unwrap_err().to_string();
    for words in ["nowhere.invalid/none:1", "60 s", "ErrImagePull"] {
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
}

#[test]
fn what_cannot_be_added_or_does_not_start_is_said() {
    if !enabled() {
        return;
    }
    let namespace = Namespace::new("refused", "privileged");
    namespace.pod("root", &json!({"runAsUser": 0}), &json!({}));
    namespace.pod("app", &bare(), &json!({}));
    let nowhere = Wanted { image: "not an image", ..WANTED };
    let error = namespace.reach("app", &nowhere).unwrap_err().to_string();
    assert!(error.contains("InvalidImageName"), "{error}");
    let no_agent = Wanted { agent: "/no/such", ..WANTED };
    let error = namespace.reach("app", &no_agent).unwrap_err().to_string();
    assert!(error.contains("/no/such") && error.contains("no such file"), "{error}");
    let gone = reach_as(&kubeconfig(), &namespace.place("nobody", "app"), &WANTED).unwrap_err().to_string();
    assert!(gone.contains("there is no such pod"), "{gone}");
    // What is in the pod already is judged again with each container that is added.
    let loose =
        r#"{"spec":{"ephemeralContainers":[{"name":"loose","image":"busybox:1.35","command":["true"]}]}}"#;
    let patch =
        ["patch", "pod", "app", "-n", &namespace.0, "--subresource=ephemeralcontainers", "--type=strategic"];
    kubectl(&[patch.as_slice(), &["-p", loose]].concat()).ok();
    let label = "pod-security.kubernetes.io/enforce=restricted";
    kubectl(&["label", "namespace", &namespace.0, "--overwrite", label]).ok();
    let error = namespace.reach("app", &WANTED).unwrap_err().to_string();
    for words in ["allowPrivilegeEscalation", "this is about container loose", "kubernetes#118961"] {
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
    let error = namespace.reach("root", &WANTED).unwrap_err().to_string();
    assert!(error.contains("violates PodSecurity") && error.contains("runAsUser=0"), "{error}");
}

#[test]
fn these_permissions_are_enough_and_needed() {
    if !enabled() {
        return;
    }
    let namespace = Namespace::new("rbac", "restricted");
    let mut security = bare();
    security["runAsGroup"] = json!(0);
    namespace.pod("app", &security, &json!({}));
    let name = &namespace.0;
    kubectl(&["create", "serviceaccount", "files", "-n", name]).ok();
    let account = format!("--serviceaccount={name}:files");
    kubectl(&["create", "role", "look", "-n", name, "--verb=get,list,watch", "--resource=pods"]).ok();
    kubectl(&["create", "rolebinding", "look", "-n", name, "--role=look", &account]).ok();
    let token = kubectl(&["create", "token", "files", "-n", name]).ok().stdout.trim().to_owned();
    let mut config = e2e::whole_kubeconfig();
    config["users"][0]["user"] = json!({ "token": token });
    let file = write_kubeconfig(&config);
    let place = namespace.place("app", "app");
    let error = reach_as(file.path(), &place, &WANTED).unwrap_err().to_string();
    assert!(error.contains(r#"cannot patch resource "pods/ephemeralcontainers""#), "{error}");
    kubectl(&["create", "role", "add", "-n", name, "--verb=patch", "--resource=pods/ephemeralcontainers"])
        .ok();
    kubectl(&["create", "rolebinding", "add", "-n", name, "--role=add", &account]).ok();
    reach_as(file.path(), &place, &WANTED).unwrap();
}
