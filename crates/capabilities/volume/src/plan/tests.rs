use super::*;
use serde_json::{Value, json};

/// A pod of these containers, with volumes `data` (a claim), `logs` (NFS), `tmp`, `host` and `config`.
fn workload(containers: &Value, pod_context: &Value) -> Workload {
    let volumes = json!([
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "logs", "nfs": {"server": "s", "path": "/"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": "/var"}},
        {"name": "config", "configMap": {"name": "c"}},
    ]);
    let spec = json!({"containers": containers, "volumes": volumes, "securityContext": pod_context});
    Workload::of(&json!({"kind": "Pod", "spec": spec})).unwrap().unwrap()
}

fn container(name: &str, ids: Option<(i64, i64)>, mounts: &[(&str, &str)]) -> Value {
    let mounts: Vec<_> = mounts.iter().map(|(name, path)| json!({"name": name, "mountPath": path})).collect();
    let context = ids.map_or(json!({}), |(uid, gid)| json!({"runAsUser": uid, "runAsGroup": gid}));
    json!({"name": name, "volumeMounts": mounts, "securityContext": context})
}

fn mount(volume: &str, path: &str) -> Mount {
    Mount { volume: volume.to_owned(), path: path.to_owned(), sub_path: None }
}

const ALL: [(&str, &str); 5] =
    [("data", "/data"), ("logs", "/logs"), ("tmp", "/tmp"), ("host", "/host"), ("config", "/config")];

#[test]
fn volumes_with_data_belong_to_the_user_of_their_container() {
    let pod = workload(&json!([container("web", Some((1000, 2000)), &ALL)]), &json!({}));
    let found = plan(&pod, &Selection::default()).unwrap();
    let owner = Owner { uid: 1000, gid: 2000 };
    assert_eq!(found.mounts, [(owner, vec![mount("data", "/data"), mount("logs", "/logs")])].into());
}

#[test]
fn the_containers_own_context_comes_first() {
    let pod_context = json!({"runAsUser": 1, "runAsGroup": 2});
    let pod = workload(&json!([container("web", None, &ALL[..1])]), &pod_context);
    let owners: Vec<_> = plan(&pod, &Selection::default()).unwrap().mounts.into_keys().collect();
    assert_eq!(owners, [Owner { uid: 1, gid: 2 }]);
    let pod = workload(&json!([container("web", Some((3, 4)), &ALL[..1])]), &pod_context);
    let owners: Vec<_> = plan(&pod, &Selection::default()).unwrap().mounts.into_keys().collect();
    assert_eq!(owners, [Owner { uid: 3, gid: 4 }]);
}

#[test]
fn named_volumes_may_be_of_the_host_but_not_of_the_kubelet() {
    let pod = workload(&json!([container("web", Some((1, 1)), &ALL)]), &json!({}));
    let named = |name: &str| Selection { volumes: vec![name.to_owned()], ..Selection::default() };
    let found = plan(&pod, &named("host")).unwrap();
    assert_eq!(found.mounts.into_values().next(), Some(vec![mount("host", "/host")]));
    let error = plan(&pod, &named("config")).unwrap_err();
    assert_eq!(error, PlanError::Kubelet { name: "config".to_owned(), kind: "a ConfigMap" });
    let error = plan(&pod, &named("dta")).unwrap_err();
    assert!(error.to_string().starts_with("there is no volume \"dta\"; there are: config, data"), "{error}");
}

#[test]
fn an_unknown_user_is_an_error_that_names_the_field() {
    let pod = workload(&json!([container("web", None, &ALL[..1])]), &json!({}));
    let error = plan(&pod, &Selection::default()).unwrap_err();
    let want = "container \"web\" mounts volume \"data\", but its securityContext has no runAsUser";
    assert_eq!(error.to_string(), want);
    let pod = workload(&json!([container("web", None, &ALL[..1])]), &json!({"runAsUser": 5}));
    let error = plan(&pod, &Selection::default()).unwrap_err();
    assert!(error.to_string().ends_with("no runAsGroup"), "{error}");
    assert!(error.hint().unwrap().contains("set runAsGroup"));
}

#[test]
fn root_needs_nothing() {
    let pod = workload(&json!([container("web", Some((0, 0)), &ALL)]), &json!({}));
    let found = plan(&pod, &Selection::default()).unwrap();
    assert_eq!(found, Plan { mounts: BTreeMap::new(), root: vec!["web".to_owned()] });
}

#[test]
fn two_users_of_one_volume_are_an_error_and_of_two_volumes_two_owners() {
    let two = json!([container("a", Some((1, 1)), &ALL[..1]), container("b", Some((2, 2)), &ALL[..1])]);
    let error = plan(&workload(&two, &json!({})), &Selection::default()).unwrap_err();
    let want = "volume \"data\" is mounted by container \"a\" as 1:1 and by container \"b\" as 2:2";
    assert_eq!(error.to_string(), want);
    let one = Selection { container: Some("b".to_owned()), ..Selection::default() };
    let found = plan(&workload(&two, &json!({})), &one).unwrap();
    assert_eq!(found.mounts.into_keys().collect::<Vec<_>>(), [Owner { uid: 2, gid: 2 }]);
    let two = json!([container("a", Some((1, 1)), &ALL[..1]), container("b", Some((2, 2)), &ALL[1..2])]);
    assert_eq!(plan(&workload(&two, &json!({})), &Selection::default()).unwrap().mounts.len(), 2);
}

#[test]
fn what_is_mounted_for_reading_is_left_out() {
    let mut web = container("web", Some((1, 1)), &ALL[..2]);
    web["volumeMounts"][0]["readOnly"] = json!(true);
    let pod = workload(&json!([web]), &json!({}));
    let found = plan(&pod, &Selection::default()).unwrap();
    assert_eq!(found.mounts.into_values().next(), Some(vec![mount("logs", "/logs")]));
    let named = Selection { volumes: vec!["data".to_owned()], ..Selection::default() };
    assert_eq!(plan(&pod, &named), Err(PlanError::NotWritten("data".to_owned())));
}

#[test]
fn parts_of_a_volume_are_mounted_as_such() {
    let mut web = container("web", Some((1, 1)), &[("data", "/a"), ("data", "/b"), ("data", "/c")]);
    web["volumeMounts"][0]["subPath"] = json!("one");
    web["volumeMounts"][1]["subPath"] = json!("two");
    web["volumeMounts"][2]["subPath"] = json!("one");
    let found = plan(&workload(&json!([web.clone()]), &json!({})), &Selection::default()).unwrap();
    let mounts = found.mounts.into_values().next().unwrap();
    let parts: Vec<_> = mounts.iter().map(|mount| (mount.path.as_str(), mount.sub_path.as_deref())).collect();
    assert_eq!(parts, [("/a", Some("one")), ("/b", Some("two"))]);
    web["volumeMounts"][0]["subPathExpr"] = json!("$(POD)");
    let error = plan(&workload(&json!([web]), &json!({})), &Selection::default()).unwrap_err();
    assert!(matches!(error, PlanError::SubPathExpr { .. }));
}

#[test]
fn two_volumes_at_the_same_path_get_paths_of_their_own() {
    let two = json!([
        container("a", Some((1, 1)), &[("data", "/data")]),
        container("b", Some((1, 1)), &[("logs", "/data")]),
    ]);
    let found = plan(&workload(&two, &json!({})), &Selection::default()).unwrap();
    let mounts = found.mounts.into_values().next().unwrap();
    assert_eq!(mounts, [mount("data", "/data"), mount("logs", "/postern-own/logs")]);
}
