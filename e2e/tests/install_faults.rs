//! Installs that are killed or lose their connection: no half state.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::proxy::{Fault, Proxy};
use e2e::{OPS, Outcome, enabled, get, install, postern, run, server, sh};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

/// The state that matters, without what differs from install to install.
fn state() -> Vec<Value> {
    let strip = |mut object: Value| {
        let metadata = object["metadata"].as_object_mut().unwrap();
        for key in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
            metadata.remove(key);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("postern.dev/rotated-at");
            annotations.remove("postern.dev/credential-version");
        }
        object
    };
    let mut all = Vec::new();
    for kind in [
        "serviceaccount/postern-ops",
        "secret/postern-ops-credentials",
        "role/postern-ops",
        "rolebinding/postern-ops",
    ] {
        all.push(strip(get(&["-n", OPS, kind])));
    }
    all.push(strip(get(&["namespace", OPS])));
    all.push(strip(get(&["namespace", "postern-test"])));
    let pod = get(&["-n", OPS, "pod/postern-ops"]);
    all.push(pod["metadata"]["annotations"]["postern.dev/spec-hash"].clone());
    // Whoever made the pod last, it was made with the Secret that is there.
    let secret = get(&["-n", OPS, "secret/postern-ops-credentials"]);
    let version = format!(
        "{}.{}",
        secret["metadata"]["uid"].as_str().unwrap(),
        secret["metadata"]["resourceVersion"].as_str().unwrap()
    );
    assert_eq!(pod["metadata"]["annotations"]["postern.dev/credential-version"], version);
    all
}

/// The private half in the Secret and the public half in the pod are of one install.
fn the_keys_agree() {
    run(&["run", "--transport", "stream", "--", "true"]).ok();
}

const ARGS: [&str; 3] = ["--cluster-access", OPS, "--stream"];

#[test]
fn proof_3_an_install_killed_at_any_step_converges() {
    if !enabled() {
        return;
    }
    e2e::clean();
    let steps = install(&ARGS).ok().stdout.lines().count();
    let undisturbed = state();
    let installing = || {
        let mut command = postern();
        command
            .args(["ops", "install", "--timeout", "90s"])
            .args(ARGS)
            .env("IBMCLOUD_API_KEY", e2e::canary());
        command
    };
    for step in 1..steps {
        e2e::clean();
        let mut client = installing().stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        lines.take(step).for_each(|line| drop(line.unwrap()));
        client.kill().unwrap();
        client.wait().unwrap();
        install(&ARGS).ok();
        assert_eq!(state(), undisturbed, "killed after step {step}");
        the_keys_agree();
    }
    // And two at once, from nothing and over an old credential.
    for clean in [true, false] {
        if clean {
            e2e::clean();
        } else {
            run(&["ops", "install"]).ok();
        }
        let both = [installing(), installing()]
            .map(|mut command| std::thread::spawn(move || Outcome::of(&mut command)));
        for one in both {
            one.join().unwrap().ok();
        }
        the_keys_agree();
        install(&ARGS).ok();
        assert_eq!(state(), undisturbed);
        sh("test -n \"$IC_API_KEY\"").ok();
    }
}

#[test]
fn an_outage_names_its_step_and_running_again_converges() {
    if !enabled() {
        return;
    }
    e2e::clean();
    // Enough for the handshake and a few objects, not for all of them.
    let proxy = Proxy::start(&server(), Fault::Cut, 6_000);
    let kubeconfig = e2e::kubeconfig_by_way_of(&proxy.server);
    let seen = Outcome::of(postern().env("KUBECONFIG", kubeconfig.path()).args(["ops", "install"])).exits(1);
    assert!(seen.stderr.contains("install stopped at "), "{}", seen.stderr);
    assert!(seen.stderr.contains("run install again"), "{}", seen.stderr);
    install(&[]).ok();
}
