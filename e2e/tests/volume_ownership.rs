//! The webhook gives volumes to the user that writes them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::controller::{SOON, delete, installed, namespace, object, pod};
use e2e::pods::{apply, wait};
use e2e::{eventually, get, make_namespace, with_stdin};
use serde_json::{Value, json};

#[test]
fn volumes_belong_to_the_user_that_writes_them() {
    if !installed() {
        return;
    }
    let (case, restricted) = ("e2e-owned", "e2e-owned-restricted");
    apply(&[
        namespace(case, case),
        object(
            "VolumeOwnership",
            None,
            case,
            &json!({
                "namespaces": {"names": [case, restricted]}, "storageClasses": ["local-path"],
            }),
        ),
    ]);
    make_namespace(restricted);
    let claim = |namespace: &str| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "local-path",
                "resources": {"requests": {"storage": "1Mi"}},
            },
        })
    };
    let writer = |namespace: &str, name: &str, security: Value| {
        let mut pod = pod(namespace, name, "default", "docker.io/library/scratch-static:1");
        pod["spec"]["restartPolicy"] = "Never".into();
        pod["spec"]["securityContext"] = security;
        pod["spec"]["securityContext"]["runAsNonRoot"] = true.into();
        pod["spec"]["securityContext"]["seccompProfile"] = json!({"type": "RuntimeDefault"});
        pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        let container = &mut pod["spec"]["containers"][0];
        container["command"] = json!(["/app", "write", "/data/file"]);
        container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        container["securityContext"] =
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        pod
    };
    let user = || json!({"runAsUser": 2000, "runAsGroup": 3000});
    let create = |object: &Value| {
        let mut command = e2e::kubectl_command(&["create", "-f", "-"]);
        with_stdin(&mut command, object.to_string().as_bytes()).ok()
    };
    apply(&[claim(case), claim(restricted)]);
    eventually("the object is known", SOON, || {
        let mut command = e2e::kubectl_command(&["create", "--dry-run=server", "-o", "json", "-f", "-"]);
        let outcome = with_stdin(&mut command, writer(case, "tried", user()).to_string().as_bytes()).ok();
        outcome.stdout.contains("postern-own")
    });
    // The volume belongs to 1000:1000.
    let mut without = writer(case, "without", user());
    without["metadata"]["annotations"] = json!({"postern.dev/own-volumes": "false"});
    create(&without);
    wait(case, "pod/without", "jsonpath={.status.phase}=Failed");
    create(&writer(case, "with", user()));
    wait(case, "pod/with", "jsonpath={.status.phase}=Succeeded");
    let init = get(&["-n", case, "pod/with"])["spec"]["initContainers"][0].clone();
    assert_eq!(init["securityContext"]["capabilities"]["add"], json!(["CHOWN", "DAC_OVERRIDE", "FOWNER"]));
    // What cannot be done is said where kubectl shows it.
    create(&writer(case, "nobody", json!({"runAsUser": 2000}))).says(&["Warning", "has no runAsGroup"]);
    create(&writer(restricted, "restricted", user())).says(&["Warning", "Pod Security Standard restricted"]);
    let pod = get(&["-n", restricted, "pod/restricted"]);
    assert!(pod["spec"]["initContainers"].is_null());
    delete(&["volumeownership", case]);
    delete(&["namespace", case, restricted]);
}
