//! `postern verify images` with a registry that asks for a password.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::controller::{delete, namespace, pod};
use e2e::pods::apply;
use e2e::registry::{A1, A2, HOST, docker_config, docker_config_of, pull_secret, registry, token_registry};
use e2e::{Outcome, enabled, postern};
use serde_json::{Value, json};

#[test]
fn verify_says_what_an_image_is_pulled_with_and_whether_it_can_be() {
    if !enabled() {
        return;
    }
    let case = "e2e-verify";
    let image = registry().push("verify/app");
    // From here the registry has another name than for the nodes.
    let here = registry().here(&image);
    let wrong = ("a1", "hunter2");
    let in_here = |name: &str, login: (&str, &str)| {
        let mut secret = pull_secret(case, name, login);
        let text = docker_config(login).replace(HOST, here.split('/').next().unwrap());
        secret["stringData"][".dockerconfigjson"] = text.into();
        secret
    };
    let with = |name: &str, secret: &str, image: &str| {
        let mut pod = pod(case, name, "default", image);
        pod["spec"]["imagePullSecrets"] = json!([{"name": secret}]);
        // It never runs.
        pod["spec"]["nodeSelector"] = json!({"none": "none"});
        pod
    };
    apply(&[
        namespace(case, "none"),
        in_here("right", A1),
        in_here("wrong", wrong),
        in_here("unused", A2),
        pull_secret(case, "elsewhere", A1),
    ]);
    let missing = format!("{here}-none");
    // The registry that asks for a token gives it to everybody, for the user's own repositories.
    let owned = token_registry().here(&token_registry().push("of-a1/verify"));
    let with_token = |name: &str, login| {
        let mut secret = pull_secret(case, name, login);
        let text = docker_config_of(owned.split('/').next().unwrap(), login);
        secret["stringData"][".dockerconfigjson"] = text.into();
        secret
    };
    apply(&[with_token("owner", A1), with_token("other-user", A2)]);
    apply(&[
        with("right", "right", &here),
        with("wrong", "wrong", &here),
        with("none", "gone", &here),
        with("elsewhere", "elsewhere", &here),
        with("missing", "right", &missing),
        with("token", "owner", &owned),
        with("token-other-user", "other-user", &owned),
    ]);
    let report = Outcome::of(postern().args(["verify", "images", "-n", case, "-o", "json"])).exits(1).json();
    let find = |rule: &str, name: &str| {
        let findings = report["findings"].as_array().unwrap();
        let is = |one: &&Value| one["rule"] == rule && one["subject"]["name"] == name;
        let found = findings.iter().find(is).unwrap_or_else(|| panic!("{rule} {name}: {report:#}"));
        (found["severity"].as_str().unwrap().to_owned(), found["message"].as_str().unwrap().to_owned())
    };
    assert_eq!(find("image-pull", "right").0, "ok");
    assert_eq!(find("image-pull", "wrong").0, "problem");
    assert_eq!(find("image-pull", "none").0, "problem");
    assert_eq!(find("pull-secret", "none").0, "problem");
    let (severity, message) = find("image-pull", "elsewhere");
    assert!(
        severity == "problem" && message.contains("no credential of elsewhere is for this registry"),
        "{message}"
    );
    assert_eq!(find("image-pull", "token").0, "ok");
    assert_eq!(find("image-pull", "token-other-user").0, "problem");
    assert!(find("image-pull", "missing").1.contains("does not exist"));
    assert_eq!(find("pull-secret-unused", "unused").0, "warning");
    assert!(!report.to_string().contains(A1.1) && !report.to_string().contains("hunter2"), "{report:#}");
    delete(&["namespace", case]);
}
