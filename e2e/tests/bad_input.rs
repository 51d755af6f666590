//! Proof 8: bad input gets an error that names what is wrong, and nothing is left half done.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{Outcome, enabled, install, kubectl, postern, run, testbed};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn an_unreachable_server_is_said_to_be() {
    if !enabled() {
        return;
    }
    let kubeconfig = e2e::kubeconfig_by_way_of("https://127.0.0.1:1");
    let with = |args: &[&str]| Outcome::of(postern().env("KUBECONFIG", kubeconfig.path()).args(args));
    with(&["ops", "show"]).exits(1).says(&["127.0.0.1:1", "cannot be reached", "hint:"]);
    with(&["run", "--", "true"]).exits(127).says(&["cannot be reached"]);
    let kubeconfig = e2e::kubeconfig_by_way_of("https://no-such-host.invalid:6443");
    let with = |args: &[&str]| Outcome::of(postern().env("KUBECONFIG", kubeconfig.path()).args(args));
    let start = Instant::now();
    with(&["ops", "show"]).exits(1).says(&["no-such-host.invalid"]);
    assert!(start.elapsed() < Duration::from_secs(40));
}

#[test]
fn a_wrong_ca_and_wrong_credentials_are_told_apart() {
    if !enabled() {
        return;
    }
    let mut config: serde_json::Value = serde_json::from_str(
        &kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]).ok().stdout,
    )
    .unwrap();
    config["users"][0]["user"] = serde_json::json!({"token": "no-such-token"});
    let file = e2e::write_kubeconfig(&config);
    Outcome::of(postern().env("KUBECONFIG", file.path()).args(["ops", "show"]))
        .exits(1)
        .says(&["401", "log in again"]);
    config["clusters"][0]["cluster"].as_object_mut().unwrap().remove("certificate-authority-data");
    let file = e2e::write_kubeconfig(&config);
    Outcome::of(postern().env("KUBECONFIG", file.path()).args(["ops", "show"]))
        .exits(1)
        .says(&["certificate"]);
}

#[test]
fn an_expired_certificate_is_said_to_be() {
    if !enabled() || !testbed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ca = e2e::audit_log().parent().unwrap().join("pki");
    let openssl = |args: &[&str]| Outcome::of(Command::new("openssl").args(args)).ok();
    openssl(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/O=system:masters/CN=late",
        "-keyout",
        &path("key"),
        "-out",
        &path("csr"),
    ]);
    std::fs::write(path("ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    let (crt, key) = (ca.join("ca.crt").display().to_string(), ca.join("ca.key").display().to_string());
    openssl(&[
        "x509",
        "-req",
        "-in",
        &path("csr"),
        "-CA",
        &crt,
        "-CAkey",
        &key,
        "-set_serial",
        "7",
        "-days",
        "-1",
        "-extfile",
        &path("ext"),
        "-out",
        &path("crt"),
    ]);
    let mut config: serde_json::Value = serde_json::from_str(
        &kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"]).ok().stdout,
    )
    .unwrap();
    config["users"][0]["user"] =
        serde_json::json!({"client-certificate": path("crt"), "client-key": path("key")});
    let file = e2e::write_kubeconfig(&config);
    let seen = Outcome::of(postern().env("KUBECONFIG", file.path()).args(["ops", "show"])).exits(1);
    assert!(seen.stderr.contains("xpired") || seen.stderr.contains("401"), "{}", seen.stderr);
}

#[test]
fn a_missing_permission_names_verb_and_resource() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    kubectl(&["create", "serviceaccount", "nobody", "-n", e2e::ops()]);
    let config = e2e::kubeconfig_of("nobody");
    let with = |args: &[&str]| Outcome::of(postern().env("KUBECONFIG", config.path()).args(args));
    with(&["ops", "install"]).exits(1).says(&[
        "cannot get resource \"serviceaccounts\"",
        "install stopped at ServiceAccount",
        "ops rbac",
    ]);
    with(&["run", "--", "true"]).exits(127).says(&["pods/exec"]);
    with(&["ops", "audit"]).exits(1).says(&["cannot"]);
    with(&["ops", "show"]).ok();
}

#[test]
fn names_and_bytes_that_cannot_be_right_are_refused_before_anything_is_sent() {
    if !enabled() {
        return;
    }
    let long = "x".repeat(64);
    run(&["ops", "install", "--cluster-access", &long]).exits(2).says(&["--cluster-access", "at most 63"]);
    run(&["ops", "install", "--image-pull-secret", "Not_A_Name"]).exits(2).says(&["--image-pull-secret"]);
    let invalid = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    Outcome::of(postern().args(["ops", "install", "--image"]).arg(invalid)).exits(2).says(&["UTF-8"]);
    // Linux knows no encoding for arguments: the tool gets its bytes.
    install(&[]).ok();
    let seen = Outcome::of(
        postern().args(["run", "--", "sh", "-c", "printf %s \"$1\" | od -An -tx1", "sh"]).arg(invalid),
    )
    .ok();
    assert_eq!(seen.stdout.trim(), "ff fe");
    run(&["run", "--"]).exits(2);
    run(&["run", "--", ""]).exits(2).says(&["the command is empty"]);
    run(&["exec", "-n", "default", "no-such-pod", "--", "true"]).exits(127).says(&["no-such-pod"]);
}
