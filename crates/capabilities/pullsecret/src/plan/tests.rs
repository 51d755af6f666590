use super::*;
use crate::rule::{Rules, Secret};
use crate::types::ClusterPullSecret;
use crate::{PodInfo, secrets_of_pod};
use postern_registry::DockerConfig;
use serde_json::{Value, json};

fn secret(auths: &Value) -> SecretState {
    let text = json!({"auths": auths}).to_string();
    let format = Format::DockerConfigJson;
    SecretState::Valid(Arc::new(Secret {
        config: DockerConfig::parse(format, text.as_bytes()).unwrap(),
        format,
    }))
}

fn cluster(name: &str, spec: &Value) -> ClusterPullSecret {
    let mut spec = spec.clone();
    spec["source"] = json!({"namespace": "a", "name": "s"});
    let object = json!({
        "apiVersion": "postern.dev/v1alpha1", "kind": "ClusterPullSecret", "spec": spec,
        // UIDs sort the other way round than names.
        "metadata": {"name": name, "uid": if name == "one" { "z" } else { "a" }},
    });
    serde_json::from_value(object).unwrap()
}

fn rules(objects: &[ClusterPullSecret]) -> Rules {
    let mut rules = Rules::default();
    for object in objects {
        rules.add(object.metadata.uid.as_ref().unwrap(), Rule::try_from(object));
    }
    rules
}

fn account(name: &str, names: &[&str], recorded: &[&str]) -> Arc<Account> {
    Arc::new(Account {
        name: name.to_owned(),
        uid: String::new(),
        resource_version: "1".to_owned(),
        labels: BTreeMap::new(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        recorded: recorded.iter().map(|name| (*name).to_owned()).collect(),
    })
}

fn source() -> ObjectName {
    ObjectName { namespace: "a".to_owned(), name: "s".to_owned() }
}

/// The copy as the API server has it after the change.
fn stored(desired: &DesiredCopy) -> Arc<Copy> {
    Arc::new(Copy {
        name: desired.name.clone(),
        resource_version: "7".to_owned(),
        kind: desired.format.secret_type().to_owned(),
        data: Some(blake3::hash(&desired.data)),
        is_immutable: false,
        owners: desired.consumers.iter().map(|consumer| consumer.uid.clone()).collect(),
        annotations: desired.annotations.clone(),
    })
}

fn run(rules: &Rules, accounts: &[Arc<Account>], copies: &[Arc<Copy>], state: Option<SecretState>) -> Plan {
    let namespace = NamespaceInfo { name: "b".to_owned(), ..NamespaceInfo::default() };
    let sources = state.map(|state| (source(), state)).into_iter().collect();
    let observed = Observed { namespace: &namespace, accounts, copies, sources: &sources };
    plan(&observed, rules.of_namespace("b", &namespace.labels))
}

fn created(plan: &Plan) -> DesiredCopy {
    match plan.copies.as_slice() {
        [CopyChange::Create(desired)] => desired.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_copy_is_made_named_kept_and_taken_away() {
    let all = json!({"namespaces": {"selector": {}}});
    let (one, two) = (rules(&[cluster("one", &all)]), rules(&[cluster("one", &all), cluster("two", &all)]));
    let valid = || Some(secret(&json!({"a.io": {"auth": "x"}})));
    let first = run(&one, &[account("default", &["user"], &[])], &[], valid());
    let copy = created(&first);
    assert_eq!(first.accounts[0].names, ["user", &copy.name]);
    // The second run has nothing to do.
    let accounts = [account("default", &["user", &copy.name], &[&copy.name])];
    assert!(run(&one, &accounts, &[stored(&copy)], valid()).is_empty());
    // A second consumer owns it too, and when it is gone the first still does.
    let both = run(&two, &accounts, &[stored(&copy)], valid());
    let [CopyChange::Update(shared, version)] = both.copies.as_slice() else { panic!("{both:?}") };
    assert_eq!((shared.consumers.len(), version.as_str()), (2, "7"));
    assert!(run(&two, &accounts, &[stored(shared)], valid()).is_empty());
    let [CopyChange::Update(left, _)] = &run(&one, &accounts, &[stored(shared)], valid()).copies[..] else {
        panic!()
    };
    assert_eq!(left.consumers.len(), 1);
    // The credential is rotated.
    let rotated = run(&one, &accounts, &[stored(&copy)], Some(secret(&json!({"a.io": {"auth": "y"}}))));
    assert!(matches!(rotated.copies.as_slice(), [CopyChange::Update(..)]) && rotated.accounts.is_empty());
    // Nobody asks any more, or the source is gone.
    for gone in [
        run(&Rules::default(), &accounts, &[stored(&copy)], valid()),
        run(&one, &accounts, &[stored(&copy)], Some(SecretState::Missing)),
        run(&one, &accounts, &[stored(&copy)], Some(secret(&json!({})))),
    ] {
        assert_eq!(gone.copies, [CopyChange::Delete(copy.name.clone())]);
        assert_eq!(
            (&gone.accounts[0].names[..], gone.accounts[0].added.len()),
            (&["user".to_owned()][..], 0)
        );
    }
}

#[test]
fn what_cannot_be_read_changes_nothing() {
    let one = rules(&[cluster("one", &json!({"namespaces": {"selector": {}}}))]);
    let copy = created(&run(&one, &[], &[], Some(secret(&json!({"a.io": {}})))));
    let accounts = [account("default", &[&copy.name], &[&copy.name]), account("other", &[], &[])];
    let invalid = DockerConfig::parse(Format::DockerCfg, b"{").unwrap_err();
    for state in [None, Some(SecretState::Invalid(invalid))] {
        assert!(run(&one, &accounts, &[stored(&copy)], state.clone()).is_empty(), "{state:?}");
        assert!(run(&one, &[], &[], state).is_empty());
    }
    let namespace = NamespaceInfo { name: "b".to_owned(), is_terminating: true, ..NamespaceInfo::default() };
    let sources = Sources::from([(source(), secret(&json!({"a.io": {}})))]);
    let observed = Observed { namespace: &namespace, accounts: &[], copies: &[], sources: &sources };
    assert!(plan(&observed, one.iter()).is_empty());
}

#[test]
fn a_copy_that_was_changed_is_put_right() {
    let one = rules(&[cluster("one", &json!({"namespaces": {"names": ["b"]}}))]);
    let valid = || Some(secret(&json!({"a.io": {"auth": "x"}})));
    let copy = created(&run(&one, &[], &[], valid()));
    let changed = |change: fn(&mut Copy)| {
        let mut other = (*stored(&copy)).clone();
        change(&mut other);
        run(&one, &[], &[Arc::new(other)], valid()).copies.remove(0)
    };
    assert!(matches!(changed(|copy| copy.data = None), CopyChange::Update(..)));
    assert!(matches!(changed(|copy| copy.owners.clear()), CopyChange::Update(..)));
    assert!(matches!(changed(|copy| copy.annotations.clear()), CopyChange::Update(..)));
    assert!(matches!(changed(|copy| (copy.is_immutable, copy.data) = (true, None)), CopyChange::Replace(_)));
    assert!(matches!(
        changed(|copy| copy.kind = "kubernetes.io/dockercfg".to_owned()),
        CopyChange::Replace(_)
    ));
}

#[test]
fn a_narrowed_copy_has_only_its_registries_and_another_name() {
    let all = json!({"namespaces": {"names": ["b"]}});
    let mut narrowed = all.clone();
    narrowed["registries"] = json!(["a.io/team"]);
    let both = rules(&[cluster("one", &all), cluster("two", &narrowed)]);
    let plan = run(&both, &[], &[], Some(secret(&json!({"a.io": {"auth": "x"}, "b.io": {"auth": "y"}}))));
    let texts: Vec<_> = plan
        .copies
        .iter()
        .map(|change| match change {
            CopyChange::Create(desired) => String::from_utf8(desired.data.clone()).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    let (whole, part) =
        (r#"{"auths":{"a.io":{"auth":"x"},"b.io":{"auth":"y"}}}"#, r#"{"auths":{"a.io/team":{"auth":"x"}}}"#);
    assert!(texts.contains(&whole.to_owned()) && texts.contains(&part.to_owned()), "{texts:?}");
}

#[test]
fn a_pod_names_what_is_for_it() {
    let spec = json!({"namespaces": {"names": ["b"]}});
    let with = |field: &str, value: Value| {
        let mut spec = spec.clone();
        spec[field] = value;
        rules(&[cluster("one", &spec)])
    };
    let names = |rules: &Rules, pod: Value| {
        let namespace = NamespaceInfo { name: "b".to_owned(), ..NamespaceInfo::default() };
        let sources = Sources::from([(source(), secret(&json!({"a.io": {}})))]);
        let spec = serde_json::from_value(pod).unwrap();
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let pod =
            PodInfo { namespace: &namespace, labels: &labels, account_labels: &BTreeMap::new(), spec: &spec };
        secrets_of_pod(&pod, rules.of_namespace("b", &namespace.labels), &sources).len()
    };
    let pod =
        |image: &str| json!({"serviceAccountName": "web", "containers": [{"name": "a", "image": image}]});
    let everything = rules(&[cluster("one", &spec)]);
    assert_eq!(names(&everything, pod("a.io/x")), 1);
    let mut having = pod("a.io/x");
    having["imagePullSecrets"] = json!([{"name": copy_name_of(&everything)}]);
    assert_eq!(names(&everything, having), 0);
    for (field, value, want) in [
        ("serviceAccounts", json!({"names": ["web"]}), 1),
        ("serviceAccounts", json!({"names": ["default"]}), 0),
        ("pods", json!({"matchLabels": {"app": "web"}}), 1),
        ("pods", json!({"matchLabels": {"app": "db"}}), 0),
        ("registries", json!(["a.io/x"]), 1),
        ("registries", json!(["a.io/y"]), 0),
        // The Secret has no credential for this registry.
        ("registries", json!(["b.io"]), 0),
    ] {
        assert_eq!(names(&with(field, value.clone()), pod("a.io/x")), want, "{field} {value}");
    }
    // A rule for Pods is named by Pods only.
    let pods = with("pods", json!({}));
    assert!(
        run(&pods, &[account("web", &[], &[])], &[], Some(secret(&json!({"a.io": {}})))).accounts.is_empty()
    );
}

fn copy_name_of(rules: &Rules) -> String {
    rules.iter().next().unwrap().secret_name("b")
}
