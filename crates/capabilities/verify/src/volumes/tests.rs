use super::*;
use postern_report::Object;
use serde_json::{Value, json};

fn pod(volume: &Value, security: &Value) -> PodOf {
    let mut volume = volume.clone();
    volume["name"] = "data".into();
    let spec = json!({
        "securityContext": security, "volumes": [volume],
        "containers": [{"name": "main", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
    });
    PodOf {
        object: Object {
            context: None,
            api_version: Some("v1".to_owned()),
            kind: "Pod".to_owned(),
            namespace: Some("a".to_owned()),
            name: "web".to_owned(),
        },
        place: None,
        namespace: "a".to_owned(),
        spec: serde_json::from_value(spec).unwrap(),
        path: "spec".to_owned(),
        claim_templates: Vec::new(),
    }
}

fn user() -> Value {
    json!({"runAsUser": 2000, "runAsGroup": 3000, "fsGroup": 3000})
}

fn driver(policy: Option<&str>) -> CSIDriver {
    let object = json!({"metadata": {"name": "d"}, "spec": {"fsGroupPolicy": policy}});
    serde_json::from_value(object).unwrap()
}

fn one(pod: &PodOf, storage: &Storage) -> (Severity, String) {
    let findings = judge(std::slice::from_ref(pod), storage);
    assert_eq!(findings.len(), 1, "{findings:?}");
    (findings[0].severity, findings[0].message.clone())
}

#[test]
fn fs_group_is_for_some_types_of_volumes_only() {
    for (volume, want) in [
        (json!({"hostPath": {"path": "/x"}}), Some(Severity::Problem)),
        (json!({"nfs": {"server": "s", "path": "/x"}}), Some(Severity::Problem)),
        (json!({"iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}}), Some(Severity::Ok)),
        (json!({"persistentVolumeClaim": {"claimName": "none"}}), Some(Severity::Inconclusive)),
        (json!({"emptyDir": {}}), None),
        (json!({"secret": {"secretName": "s"}}), None),
    ] {
        let findings = judge(&[pod(&volume, &user())], &Storage::default());
        assert_eq!(findings.first().map(|one| one.severity), want, "{volume}");
    }
}

#[test]
fn csi_drivers_say_whether_they_take_it() {
    for (policy, volume, want) in [
        (Some("File"), json!({}), Severity::Ok),
        (Some("None"), json!({"fsType": "ext4"}), Severity::Problem),
        (Some("ReadWriteOnceWithFSType"), json!({"fsType": "ext4"}), Severity::Ok),
        (None, json!({"fsType": "ext4"}), Severity::Ok),
        (None, json!({}), Severity::Problem),
    ] {
        let storage =
            Storage { drivers: BTreeMap::from([("d".to_owned(), driver(policy))]), ..Storage::default() };
        let mut csi = volume.clone();
        csi["driver"] = "d".into();
        let found = one(&pod(&json!({"csi": csi}), &user()), &storage);
        assert_eq!(found.0, want, "{policy:?} {volume} {}", found.1);
    }
}

#[test]
fn a_claim_is_judged_by_its_volume() {
    let bound = |volume: Value| {
        let mut spec = volume;
        spec["accessModes"] = json!(["ReadWriteMany"]);
        let claim = json!({"spec": {"volumeName": "pv"}});
        Storage {
            claims: BTreeMap::from([(
                ("a".to_owned(), "c".to_owned()),
                serde_json::from_value(claim).unwrap(),
            )]),
            volumes: BTreeMap::from([(
                "pv".to_owned(),
                serde_json::from_value(json!({"spec": spec})).unwrap(),
            )]),
            drivers: BTreeMap::from([("d".to_owned(), driver(None))]),
            ..Storage::default()
        }
    };
    let claimed = pod(&json!({"persistentVolumeClaim": {"claimName": "c"}}), &user());
    let (severity, message) = one(&claimed, &bound(json!({"hostPath": {"path": "/x"}})));
    assert_eq!(severity, Severity::Problem);
    assert!(
        message.contains("fsGroup 3000 has no effect") && message.contains("runs as 2000:3000"),
        "{message}"
    );
    assert_eq!(one(&claimed, &bound(json!({"local": {"path": "/x"}}))).0, Severity::Ok);
    let shared = json!({"csi": {"driver": "d", "volumeHandle": "h", "fsType": "ext4"}});
    assert!(one(&claimed, &bound(shared)).1.contains("not ReadWriteOnce"));
}

#[test]
fn root_and_an_init_container_are_enough() {
    let host = json!({"hostPath": {"path": "/x"}});
    assert_eq!(one(&pod(&host, &json!({"runAsUser": 0})), &Storage::default()).0, Severity::Ok);
    let mut owned = pod(&host, &user());
    let init = json!([{"name": "postern-own", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]);
    owned.spec.init_containers = Some(serde_json::from_value(init).unwrap());
    assert_eq!(one(&owned, &Storage::default()).0, Severity::Ok);
    // Without fsGroup nothing is wrong in the manifest; the directory decides.
    let plain = pod(&host, &json!({"runAsUser": 2000, "runAsGroup": 3000}));
    assert_eq!(one(&plain, &Storage::default()).0, Severity::Warning);
}

#[test]
fn what_a_probe_saw_decides() {
    let host = pod(&json!({"hostPath": {"path": "/x"}}), &user());
    let seen = |uid, gid, mode| {
        let key = ["a", "web", "main", "/data"].map(str::to_owned);
        let [namespace, name, container, path] = key;
        let owners = BTreeMap::from([((namespace, name, container, path), Seen { uid, gid, mode })]);
        one(&host, &Storage { owners, ..Storage::default() }).0
    };
    assert_eq!(seen(2000, 0, 0o755), Severity::Ok);
    assert_eq!(seen(1000, 3000, 0o775), Severity::Ok);
    assert_eq!(seen(1000, 1000, 0o777), Severity::Ok);
    assert_eq!(seen(1000, 1000, 0o755), Severity::Problem);
    // The owner's own bits count, though others may write.
    assert_eq!(seen(2000, 1000, 0o577), Severity::Problem);
}
