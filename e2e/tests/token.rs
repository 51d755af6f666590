//! Credentials by `postern identity`: what providers do wrong, and many processes at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::provider::{Behaviour, busy, unsigned};
use e2e::scene::{Running, Scene};
use e2e::{Outcome, enabled};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

#[test]
fn the_grant_is_sent_as_rfc_7523_has_it_and_the_token_comes_in_every_form() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({
        "scopes": ["a", "b"], "audience": ["x", "y"], "resource": "https://api", "extra_params": {"k": "v w"},
    }));
    let first = scene.token().ok().stdout;
    assert!(first.starts_with("access-1-") && first.ends_with('\n'));
    let subject = std::fs::read_to_string(scene.path("token")).unwrap();
    assert_eq!(
        scene.provider.asked()[0],
        json!([
            ["grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"],
            ["assertion", subject],
            ["scope", "a b"],
            ["audience", "x"],
            ["audience", "y"],
            ["resource", "https://api"],
            ["client_id", "runner"],
            ["k", "v w"],
        ])
    );
    let json = scene.run(&["token", "reports", "-o", "json"]).ok().json();
    assert_eq!((json["tokenType"].as_str(), json["type"].as_str()), (Some("Bearer"), Some("oauth2")));
    let header = scene.run(&["token", "-o", "header"]).ok().stdout;
    assert!(header.starts_with("Authorization: Bearer access-"));
    // In memory only: each process asked.
    assert_eq!(scene.provider.asked().len(), 3);
    assert!(!scene.path("cache").exists());
}

#[test]
fn proof_2_whatever_the_provider_does_wrong_is_named_and_never_taken_for_a_token() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let raw =
        |status: u16, headers: &str, body: &str| Behaviour::Raw(status, headers.to_owned(), body.to_owned());
    let json = "Content-Type: application/json\r\n";
    for (behaviour, words) in [
        (raw(200, "Content-Type: text/html\r\n", "<html>log in</html>"), "it is not JSON"),
        (raw(200, json, "{}"), "it has no access_token"),
        (raw(200, json, r#"{"access_token":"a","token_type":"mac"}"#), "only Bearer can be used"),
        (raw(200, json, r#"{"access_token":"a","expires_in":-5}"#), "its expires_in is not positive"),
        (raw(200, json, r#"{"access_token":"a","expires_in":"soon"}"#), "its expires_in is no number"),
        (raw(302, "Location: https://evil.example.com/token\r\n", ""), "it redirects elsewhere"),
        (raw(400, json, r#"{"error":"invalid_client"}"#), "invalid_client"),
        (raw(500, "", "boom"), "it gave no reason (HTTP status 500)"),
        (Behaviour::Half, "cannot be reached"),
        (Behaviour::Endless, "cannot be reached"),
    ] {
        scene.provider.behave(behaviour.clone());
        let outcome = scene.token().exits(1).says(&["no token of reports", words]);
        assert_eq!(outcome.stdout, "", "{behaviour:?}");
    }
    // Taken as servers write it, or not at all.
    for life in [json!("60"), json!(60), json!(1e18), Value::Null] {
        scene.provider.behave(Behaviour::Issue(life));
        scene.token().ok();
    }
    // A server that is busy is asked again; one that refuses is not.
    let before = scene.provider.asked().len();
    scene.provider.first([busy(429), busy(503)]);
    scene.token().ok();
    assert_eq!(scene.provider.asked().len(), before + 3);
    // One that closes the connection without a word was not there.
    scene.provider.first([Behaviour::HangUp, Behaviour::HangUp]);
    scene.token().ok();
    let before = before + 3;
    assert_eq!(scene.provider.asked().len(), before + 3);
    scene.provider.behave(raw(403, json, r#"{"error":"access_denied","error_description":"no"}"#));
    scene.token().exits(1);
    assert_eq!(scene.provider.asked().len(), before + 4);
}

#[test]
fn proof_2_a_silent_provider_costs_fifteen_seconds() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    scene.provider.behave(Behaviour::Silent);
    scene.token().exits(1).says(&["did not answer within 15 s"]);
}

#[test]
fn each_thing_wrong_with_the_subject_token_is_its_own_error() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let expired = unsigned("x", -30);
    for (content, words) in [
        ("", "is empty"),
        ("opaque", "is not a JWT"),
        (expired.as_str(), "expired 30 s ago: the kubelet did not renew it"),
    ] {
        std::fs::write(scene.path("token"), content).unwrap();
        let said = scene.token().exits(1).says(&["no token of reports", words]).stderr;
        assert!(content.is_empty() || !said.contains(content), "{said}");
    }
    // As the kubelet mounts it: a link, and open to the group. Nobody is to be warned of that.
    std::fs::write(scene.path("mounted"), unsigned("x", 300)).unwrap();
    std::fs::set_permissions(scene.path("mounted"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::remove_file(scene.path("token")).unwrap();
    std::os::unix::fs::symlink("mounted", scene.path("token")).unwrap();
    assert_eq!(scene.token().ok().stderr, "");
    let asked = scene.provider.asked().len();
    std::fs::remove_file(scene.path("token")).unwrap();
    scene.token().exits(1).says(&["there is no token at", "hint: outside a pod use"]);
    assert_eq!(scene.provider.asked().len(), asked);
}

#[test]
fn nobody_is_asked_to_log_in_where_nobody_is() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    for (grant, endpoint) in
        [("device_code", "device_authorization_endpoint"), ("authorization_code", "authorization_endpoint")]
    {
        let at = &scene.provider.address;
        scene.configure(&json!({"me": {
            "type": "oauth2", "grant": grant, "client_id": "cli", "token_endpoint": format!("{at}/token"),
            endpoint: format!("{at}/authorize"),
        }}));
        scene
            .run(&["token"])
            .exits(1)
            .says(&["needs a person at a terminal", "stdin and stderr are no terminal"]);
        let mut in_ci = scene.postern(&["token"]);
        Outcome::of(in_ci.env("CI", "true")).exits(1).says(&["CI is set"]);
    }
    assert!(scene.provider.asked().is_empty());
}

#[test]
fn proof_4_a_hundred_processes_ask_once() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({"cache": "disk"}));
    let all: Vec<Child> = (0..100)
        .map(|_| scene.postern(&["token"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    for process in all {
        let outcome = Outcome::from(process.wait_with_output().unwrap()).ok();
        assert!(outcome.stdout.starts_with("access-1-"), "{outcome:?}");
    }
    assert_eq!(scene.provider.asked().len(), 1);
    // A failure is shared by who waited for it, too.
    let scene = Scene::new(&json!({"cache": "disk"}));
    let refusal = r#"{"error":"invalid_client"}"#.to_owned();
    scene.provider.behave(Behaviour::Silent);
    let mut holder = scene.postern(&["token"]).stderr(Stdio::null()).spawn().unwrap();
    e2e::eventually("the holder asks", Duration::from_secs(10), || scene.provider.asked().len() == 1);
    let waiting: Vec<Child> = (0..20)
        .map(|_| scene.postern(&["token"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    e2e::eventually("all wait for the lock", Duration::from_secs(20), || {
        waiting.iter().all(|one| is_at_lock(one.id()))
    });
    scene.provider.behave(Behaviour::Raw(401, "Content-Type: application/json\r\n".to_owned(), refusal));
    holder.kill().unwrap();
    holder.wait().unwrap();
    for process in waiting {
        Outcome::from(process.wait_with_output().unwrap()).exits(1).says(&["invalid_client"]);
    }
    // The holder's, and one for all who waited.
    assert_eq!(scene.provider.asked().len(), 2);
}

/// Whether a thread of this process waits in the kernel for a file lock.
fn is_at_lock(process: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { return false };
    tasks.flatten().any(|task| {
        let number = std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        // flock(2) on x86-64 and on arm64.
        ["73 ", "32 "].iter().any(|flock| number.starts_with(flock))
    })
}

#[test]
fn proof_4_a_holder_that_is_killed_is_followed_within_a_second() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({"cache": "disk"}));
    scene.provider.behave(Behaviour::Silent);
    let mut holder = scene.postern(&["token"]).stderr(Stdio::null()).spawn().unwrap();
    e2e::eventually("the holder asks", Duration::from_secs(10), || scene.provider.asked().len() == 1);
    let next = scene.postern(&["token"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    e2e::eventually("the next waits", Duration::from_secs(10), || is_at_lock(next.id()));
    scene.provider.behave(Behaviour::Issue(json!(300)));
    let killed = Instant::now();
    holder.kill().unwrap();
    let outcome = Outcome::from(next.wait_with_output().unwrap()).ok();
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    assert!(outcome.stdout.starts_with("access-1-"));
    holder.wait().unwrap();
}

#[test]
fn a_command_gets_it_in_its_environment_and_a_file_that_goes_with_it() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let script = "printf '%s|' \"$REPORTS_ACCESS_TOKEN\"; cat \"$REPORTS_ACCESS_TOKEN_FILE\"; \
                  stat -c '|%a|%n' \"$REPORTS_ACCESS_TOKEN_FILE\"; exit 7";
    let outcome = scene.run(&["exec", "reports", "--", "sh", "-c", script]).exits(7);
    let parts: Vec<_> = outcome.stdout.trim().split('|').collect();
    assert_eq!((parts[0], parts[2]), (parts[1], "600"), "{outcome:?}");
    assert!(parts[0].starts_with("access-1-") && !Path::new(parts[3]).exists());
    scene.run(&["exec", "reports", "--", "/nonexistent"]).exits(127).says(&["cannot be started"]);
    scene.run(&["exec", "reports", "--", "sh", "-c", "kill -9 $$"]).exits(137);
    scene.provider.behave(Behaviour::Raw(400, String::new(), String::new()));
    scene.run(&["exec", "reports", "--", "touch", scene.path("ran").to_str().unwrap()]).exits(1);
    assert!(!scene.path("ran").exists());
}

#[test]
fn a_file_is_kept_fresh() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    scene.provider.behave(Behaviour::Issue(json!(1)));
    let to = scene.path("out");
    let mut watch = scene.postern(&["write", "reports", "--watch", "--to", to.to_str().unwrap()]);
    let watch = Running(watch.stdout(Stdio::null()).spawn().unwrap());
    let read = || std::fs::read_to_string(&to).unwrap_or_default();
    e2e::eventually("it is written", Duration::from_secs(10), || !read().is_empty());
    let first = read();
    e2e::eventually("it is renewed", Duration::from_secs(10), || read() != first);
    watch.stop();
    // Nothing but the file: no half of another.
    let names: Vec<_> =
        std::fs::read_dir(scene.home.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains(".new")), "{names:?}");
}

#[test]
fn what_determines_a_token_decides_which_kept_one_is_found() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let entry = |more: &Value| {
        let mut entry = json!({
            "type": "oauth2", "token_endpoint": format!("{}/token", scene.provider.address), "grant": "jwt_bearer",
            "client_id": "runner", "cache": "disk", "subject_token": {"type": "file", "path": scene.path("token")},
        });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    // One name, in turn: as it is kept by neither.
    let mut asked = 0;
    for more in [
        json!({}),
        json!({"scopes": ["a"]}),
        json!({"audience": ["b"]}),
        json!({"client_id": "other"}),
        json!({"resource": "https://r"}),
        json!({"extra_params": {"a": "b"}}),
    ] {
        asked += 1;
        for _ in 0..2 {
            scene.configure(&json!({"../../evil": entry(&more)}));
            scene.run(&["token"]).exits(2).says(&["../../evil"]);
            scene.configure(&json!({"reports": entry(&more)}));
            scene.token().ok();
        }
        assert_eq!(scene.provider.asked().len(), asked, "{more}");
    }
    // A token that the kubelet renewed is the same account's.
    scene.rotate("renewed");
    scene.token().ok();
    assert_eq!(scene.provider.asked().len(), asked);
}
