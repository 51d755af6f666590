use super::*;
use serde_json::{Value, json};

const WANTED: Wanted<'_> = Wanted { image: "ops:1", agent: "/bin/agent", user: None };

/// A pod of one running container, with these fields.
fn pod(container: &Value, whole: &Value, user: &Value) -> Pod {
    let mut app = json!({"name": "app", "image": "distroless"});
    app["securityContext"] = container.clone();
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [app], "securityContext": whole},
        "status": {"phase": "Running", "containerStatuses": [{
            "name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": "containerd://147e0b15c89e", "state": {"running": {}}, "user": user}]},
    }))
    .unwrap()
}

fn restricted() -> Pod {
    pod(&json!({"runAsUser": 1000, "runAsGroup": 2000}), &json!({}), &json!({}))
}

/// The pod with this ephemeral container in this state.
fn with(mut pod: Pod, container: &EphemeralContainer, state: &Value) -> Pod {
    let status = json!({"name": container.name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": state});
    pod.spec.as_mut().unwrap().ephemeral_containers.get_or_insert_default().push(container.clone());
    let statuses = &mut pod.status.as_mut().unwrap().ephemeral_container_statuses;
    statuses.get_or_insert_default().push(serde_json::from_value(status).unwrap());
    pod
}

#[track_caller]
fn added(plan: Plan) -> EphemeralContainer {
    match plan.step {
        Step::Add(container) => *container,
        Step::Use(name) => panic!("{name} is used"),
    }
}

fn new(pod: &Pod) -> EphemeralContainer {
    added(plan(pod, "app", &WANTED).unwrap())
}

/// UID and GID, and whether they are a guess.
fn user_of(pod: &Pod) -> (i64, i64, bool) {
    let Plan { user: User { uid, gid }, guessed, step: _ } = plan(pod, "app", &WANTED).unwrap();
    (uid, gid, guessed)
}

#[test]
fn it_is_within_the_restricted_standard_and_has_nothing_that_is_not_allowed() {
    let found = serde_json::to_value(new(&restricted())).unwrap();
    let want = json!({
        "name": "postern-app-1", "image": "ops:1", "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/agent", "serve"], "targetContainerName": "app", "stdin": false, "tty": false,
        "securityContext": {
            "runAsUser": 1000, "runAsGroup": 2000, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            "seccompProfile": {"type": "RuntimeDefault"}},
    });
    assert_eq!(found, want);
}

#[test]
fn the_user_is_the_containers_the_pods_or_what_the_node_reports() {
    let none = json!({});
    let reported = json!({"linux": {"uid": 65532, "gid": 65533}});
    let whole = json!({"runAsUser": 5, "runAsGroup": 6});
    let own = json!({"runAsUser": 7});
    assert_eq!(user_of(&pod(&own, &whole, &reported)), (7, 6, false));
    assert_eq!(user_of(&pod(&none, &whole, &reported)), (5, 6, false));
    assert_eq!(user_of(&pod(&none, &none, &reported)), (65_532, 65_533, false));
    assert_eq!(user_of(&pod(&own, &none, &reported)), (7, 65_533, false));
    assert_eq!(user_of(&pod(&own, &none, &none)), (7, 0, true));
    let of = |image: &str| {
        let mut pod = pod(&none, &none, &none);
        pod.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        user_of(&pod)
    };
    assert_eq!(of("scratch-static:1"), (65_532, 0, true));
    assert_eq!(of("gcr.io/distroless/static:nonroot"), (65_532, 65_532, true), "its /etc/passwd lists it");
    // A user that the caller sets takes precedence.
    let named = Wanted { user: Some(User { uid: 8, gid: 9 }), ..WANTED };
    let security = added(plan(&pod(&own, &whole, &none), "app", &named).unwrap()).security_context.unwrap();
    assert_eq!((security.run_as_user, security.run_as_group), (Some(8), Some(9)));
    // A guess is within the restricted standard too.
    assert_eq!(new(&pod(&none, &none, &none)).security_context.unwrap().run_as_non_root, Some(true));
}

#[test]
fn beside_root_it_has_what_root_has_there() {
    let none = json!({});
    let bare = new(&pod(&json!({"runAsUser": 0}), &none, &none)).security_context.unwrap();
    assert_eq!((bare.run_as_non_root, bare.capabilities), (None, None));
    let own =
        json!({"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}, "privileged": true});
    let same = new(&pod(&own, &none, &none)).security_context.unwrap();
    assert_eq!(serde_json::to_value(same.capabilities).unwrap(), own["capabilities"]);
    assert_eq!((same.privileged, same.allow_privilege_escalation), (None, Some(false)));
    // Beside a non-root user it has no capabilities: the target's processes have none either.
    let own = json!({"runAsUser": 1, "capabilities": {"add": ["CHOWN"]}});
    let other = new(&pod(&own, &none, &none)).security_context.unwrap();
    assert_eq!(serde_json::to_value(other.capabilities).unwrap(), json!({"drop": ["ALL"]}));
}

#[test]
fn one_that_runs_or_is_about_to_is_used_again_and_no_other() {
    let first = new(&restricted());
    for state in [
        json!({"running": {}}),
        json!({}),
        json!({"waiting": {"reason": "ContainerCreating"}}),
        json!({"waiting": {"reason": "ImagePullBackOff"}}),
        json!({"waiting": {"reason": "InvalidImageName"}}),
    ] {
        let pod = with(restricted(), &first, &state);
        let step = plan(&pod, "app", &WANTED).unwrap().step;
        assert_eq!(step, Step::Use("postern-app-1".to_owned()), "{state}");
    }
    for state in [json!({"terminated": {"exitCode": 0}}), json!({"waiting": {"reason": "RunContainerError"}})]
    {
        assert_eq!(new(&with(restricted(), &first, &state)).name, "postern-app-2", "{state}");
    }
    // A container with another owner, image, user or target is not reused.
    let running = json!({"running": {}});
    let mut other = first.clone();
    other.name = "debugger-x".to_owned();
    assert_eq!(new(&with(restricted(), &other, &running)).name, "postern-app-1");
    let mut other = first.clone();
    other.security_context.as_mut().unwrap().run_as_user = Some(1);
    assert_eq!(new(&with(restricted(), &other, &running)).name, "postern-app-2");
    let mut other = first.clone();
    other.target_container_name = Some("db".to_owned());
    assert_eq!(new(&with(restricted(), &other, &running)).name, "postern-app-2");
    let pod = with(restricted(), &first, &running);
    let newer = Wanted { image: "ops:2", ..WANTED };
    assert_eq!(added(plan(&pod, "app", &newer).unwrap()).name, "postern-app-2");
}

#[test]
fn names_are_labels_and_free() {
    let long = "a".repeat(50) + "-" + &"b".repeat(12);
    let mut pod = restricted();
    let spec = pod.spec.as_mut().unwrap();
    let mut ephemeral = EphemeralContainer { name: free_name(&Pod::default(), &long), ..Default::default() };
    assert_eq!(ephemeral.name, format!("postern-{}-bb-1", "a".repeat(50)));
    assert_eq!(ephemeral.name.len(), LABEL);
    spec.ephemeral_containers = Some(vec![ephemeral.clone()]);
    assert!(free_name(&pod, &long).ends_with("-bb-2"));
    // No double dash where the name is cut at a dash.
    let cut = "a".repeat(52) + "-b";
    assert_eq!(free_name(&Pod::default(), &cut), format!("postern-{}-1", "a".repeat(52)));
    // A gap in the numbers is filled.
    ephemeral.name = "postern-app-2".to_owned();
    pod.spec.as_mut().unwrap().ephemeral_containers = Some(vec![ephemeral]);
    assert_eq!(free_name(&pod, "app"), "postern-app-1");
}

#[test]
fn only_a_container_that_runs_is_reached() {
    assert_eq!(target_id(&restricted(), "app").unwrap(), "147e0b15c89e");
    let says = |pod: &Pod, container: &str| target_id(pod, container).unwrap_err().to_string();
    assert_eq!(says(&restricted(), "nobody"), "its node does not report it yet");
    let mut pod = restricted();
    let statuses = pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
    let state = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    statuses[0].state = Some(serde_json::from_value(state).unwrap());
    assert_eq!(says(&pod, "app"), "it is not running (CrashLoopBackOff)");
    assert!(plan(&pod, "app", &WANTED).is_err());
    let ephemeral = new(&restricted());
    let pod = with(restricted(), &ephemeral, &json!({"running": {}}));
    assert_eq!(says(&pod, "postern-app-1"), "it is an ephemeral container itself");
}

#[test]
fn what_keeps_it_from_running_is_told() {
    let container = new(&restricted());
    let of = |state: Value| state_of(&with(restricted(), &container, &state), "postern-app-1");
    assert_eq!(of(json!({"running": {}})), State::Running);
    assert_eq!(of(json!({})), State::Waiting(None));
    let pull = json!({"waiting": {"reason": "ErrImagePull", "message": "no route to host"}});
    assert_eq!(of(pull), State::Waiting(Some("waits (ErrImagePull: no route to host)".to_owned())));
    let name = json!({"waiting": {"reason": "InvalidImageName"}});
    assert_eq!(of(name), State::Stuck("does not start (InvalidImageName)".to_owned()));
    let run = json!({"waiting": {"reason": "RunContainerError", "message": "no such file"}});
    assert_eq!(of(run), State::Ended("did not start (RunContainerError: no such file)".to_owned()));
    let ended = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "no such file"}});
    assert_eq!(of(ended), State::Ended("ended with code 128 (StartError: no such file)".to_owned()));
    assert_eq!(state_of(&restricted(), "postern-app-1"), State::Waiting(None));
}
