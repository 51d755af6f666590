//! Copies to and from S3: against versitygw, a real server, and moto for keys that an identity provider gives.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::moto::Moto;
use e2e::proxy::Cutter;
use e2e::s3::S3;
use e2e::scene::Scene;
use e2e::{Outcome, apply, enabled, kubectl, with_stdin};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

fn server() -> Option<S3> {
    enabled().then(S3::start).flatten()
}

fn cp(s3: &S3, folder: &Path, args: &[&str]) -> Outcome {
    Outcome::of(s3.postern(s3.port).current_dir(folder).arg("cp").args(args))
}

fn sync(s3: &S3, folder: &Path, args: &[&str]) -> Outcome {
    Outcome::of(s3.postern(s3.port).current_dir(folder).arg("sync").args(args))
}

fn summary(outcome: &Outcome) -> Value {
    let line = outcome.stdout.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(line).unwrap()["summary"].clone()
}

fn random(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for eight in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        eight.copy_from_slice(&state.to_le_bytes()[..eight.len()]);
    }
    bytes
}

/// What a copy keeps of a tree: path, type, mode, time, and content or target.
fn seen(root: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, at: &Path, all: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let what = match () {
                () if stat.is_symlink() => format!("link {}", fs::read_link(&path).unwrap().display()),
                () if stat.is_dir() => {
                    walk(root, &path, all);
                    format!("directory {:o} {}.{}", stat.mode(), stat.mtime(), stat.mtime_nsec())
                }
                () => {
                    let content = fs::read(&path).unwrap();
                    let hash = ring::digest::digest(&ring::digest::SHA256, &content);
                    format!("file {:o} {}.{} {hash:?}", stat.mode(), stat.mtime(), stat.mtime_nsec())
                }
            };
            all.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), what);
        }
    }
    let mut all = BTreeMap::new();
    walk(root, root, &mut all);
    all
}

fn tree(root: &Path) {
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    for (name, content) in [
        ("a/zero", Vec::new()),
        ("a/small", b"hello".to_vec()),
        ("a/b/random", random(12_000_000)),
        ("a/-rf &+%", b"1".to_vec()),
        ("a/new\nline", b"2".to_vec()),
        (".hidden", b"3".to_vec()),
        ("sm\u{f6}rg\u{e5}s", b"4".to_vec()),
    ] {
        fs::write(root.join(name), content).unwrap();
    }
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(20_000_000).unwrap();
    sparse.write_at(b"end", 19_999_997).unwrap();
    symlink("a/small", root.join("link")).unwrap();
    fs::hard_link(root.join("a/small"), root.join("hard")).unwrap();
    fs::set_permissions(root.join("a/small"), fs::Permissions::from_mode(0o640)).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_500_000_000, 123_456_789);
    for name in ["a/small", "empty", "a/b/random"] {
        fs::File::open(root.join(name)).unwrap().set_modified(old).unwrap();
    }
}

#[test]
fn a_tree_goes_to_a_bucket_and_comes_back_the_same() {
    let Some(s3) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    tree(&here.join("tree"));
    cp(&s3, here, &["tree", "s3://first-bucket/"]).ok();
    assert_eq!(fs::read(s3.object("tree/a/small")).unwrap(), b"hello");
    assert_eq!(s3.unfinished(), 0);
    cp(&s3, here, &["s3://first-bucket/tree", "back"]).ok();
    assert_eq!(seen(&here.join("tree")), seen(&here.join("back")));
    // What was holes is holes again.
    assert!(fs::metadata(here.join("back/sparse")).unwrap().blocks() * 512 < 1_000_000);

    // Again: nothing is sent, and neither directories nor links are planned or written anew.
    let planned = cp(&s3, here, &["-o", "json", "--dry-run", "tree", "s3://first-bucket/"]).ok();
    assert_eq!(summary(&planned)["made"], json!(5), "{}", planned.stdout);
    let written = || fs::metadata(s3.object("tree/link")).unwrap().modified().unwrap();
    let before = written();
    let again = summary(&cp(&s3, here, &["-o", "json", "tree", "s3://first-bucket/"]).ok());
    assert_eq!(written(), before);
    assert_eq!(
        (&again["written"], again["sentBytes"].as_u64().unwrap() < 5_000),
        (&json!(0), true),
        "{again}"
    );
    let again = summary(&cp(&s3, here, &["-o", "json", "s3://first-bucket/tree", "."]).ok());
    assert_eq!(
        (&again["written"], again["sentBytes"].as_u64().unwrap() < 5_000),
        (&json!(0), true),
        "{again}"
    );

    // From bucket to bucket, and by wildcards, found there.
    cp(&s3, here, &["s3://first-bucket/tree/.", "s3://first-bucket/second"]).ok();
    fs::create_dir(here.join("some")).unwrap();
    cp(&s3, here, &["s3://first-bucket/second/**/s*l", "s3://first-bucket/second/e*", "some"]).ok();
    assert_eq!(seen(&here.join("some")).keys().collect::<Vec<_>>(), ["empty", "small"]);
    let none = cp(&s3, here, &["s3://first-bucket/second/*.gz", "some"]);
    assert_eq!(none.code, 1);
    assert!(none.stderr.contains("no match"), "{}", none.stderr);
}

#[test]
fn a_directory_is_synchronized_with_a_prefix_both_ways() {
    let Some(s3) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    tree(&here.join("tree"));
    sync(&s3, here, &["tree", "s3://first-bucket/site"]).ok();
    fs::remove_file(here.join("tree/a/zero")).unwrap();
    fs::remove_dir(here.join("tree/empty")).unwrap();
    fs::write(here.join("tree/new"), "new").unwrap();
    let planned = sync(&s3, here, &["--delete", "--dry-run", "tree", "s3://first-bucket/site"]).ok();
    assert!(planned.stdout.contains("would write new") && planned.stdout.contains("would remove a/zero"));
    assert!(s3.object("site/a/zero").exists() && !s3.object("site/new").exists());
    let done = sync(&s3, here, &["-o", "json", "--delete", "tree", "s3://first-bucket/site"]).ok();
    let done = summary(&done);
    assert_eq!((&done["written"], &done["deleted"]), (&json!(1), &json!(2)), "{done}");
    assert!(!s3.object("site/a/zero").exists() && !s3.object("site/empty").exists());

    fs::create_dir_all(here.join("copy/a/extra")).unwrap();
    fs::write(here.join("copy/keep.log"), "").unwrap();
    sync(&s3, here, &["--delete", "--exclude", "*.log", "s3://first-bucket/site", "copy"]).ok();
    assert!(here.join("copy/keep.log").exists());
    fs::remove_file(here.join("copy/keep.log")).unwrap();
    assert_eq!(seen(&here.join("tree")), seen(&here.join("copy")));
}

#[test]
fn objects_go_into_pods_and_out_of_them_and_streams_to_objects() {
    let Some(s3) = server() else { return };
    kubectl(&["delete", "namespace", "postern-e2e-s3", "--ignore-not-found", "--timeout=90s"]).ok();
    kubectl(&["create", "namespace", "postern-e2e-s3"]).ok();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "little", "namespace": "postern-e2e-s3"},
        "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "busybox:1.35", "command": ["sleep", "infinity"]}]}});
    apply(&pod.to_string());
    kubectl(&["wait", "-n", "postern-e2e-s3", "--for=condition=Ready", "pod/little", "--timeout=90s"]).ok();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    tree(&here.join("tree"));
    cp(&s3, here, &["tree", "s3://first-bucket/"]).ok();
    cp(&s3, here, &["s3://first-bucket/tree", "postern-e2e-s3/little:/tmp/"]).ok();
    cp(&s3, here, &["postern-e2e-s3/little:/tmp/tree", "s3://first-bucket/returned"]).ok();
    cp(&s3, here, &["s3://first-bucket/returned", "back"]).ok();
    assert_eq!(seen(&here.join("tree")), seen(&here.join("back")));

    // A stream, longer than one part, and back to another.
    let content = random(11_000_000);
    let mut command = s3.postern(s3.port);
    with_stdin(command.args(["cp", "-", "s3://first-bucket/stream"]), &content).ok();
    assert_eq!(fs::read(s3.object("stream")).unwrap(), content);
    let mut command = s3.postern(s3.port);
    let output = command.args(["cp", "s3://first-bucket/stream", "-"]).output().unwrap();
    assert!(output.status.success() && output.stdout == content);
    kubectl(&["delete", "namespace", "postern-e2e-s3", "--wait=false"]).ok();
}

#[test]
fn many_directories_and_links_go_and_come() {
    let Some(s3) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir(here.join("many")).unwrap();
    // More than a source may have unanswered, if they were files.
    for number in 0..2_500 {
        fs::create_dir(here.join(format!("many/d{number}"))).unwrap();
        symlink("d1", here.join(format!("many/l{number}"))).unwrap();
    }
    let up = summary(&cp(&s3, here, &["-o", "json", "many", "s3://first-bucket/"]).ok());
    assert_eq!((&up["made"], &up["retries"]), (&json!(5_001), &json!(0)), "{up}");
    let down = summary(&cp(&s3, here, &["-o", "json", "s3://first-bucket/many", "back"]).ok());
    assert_eq!((&down["made"], &down["retries"]), (&json!(5_001), &json!(0)), "{down}");
    assert_eq!(seen(&here.join("many")), seen(&here.join("back")));
}

#[test]
fn what_is_refused_says_why_and_leaves_nothing() {
    let Some(s3) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("file"), "x").unwrap();
    let refused = |command: &mut Command, words: &str| {
        let outcome = Outcome::of(command.current_dir(here));
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(words), "{words}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains(S3::SECRET_KEY));
    };
    let up = ["cp", "file", "s3://first-bucket/file"];
    let down = ["cp", "s3://first-bucket/file", "got"];
    // What an object is asked for is answered without a body, and so without a code.
    for (args, wrong_key) in [(up, "SignatureDoesNotMatch"), (down, "the credentials do not allow it")] {
        let mut command = s3.postern(s3.port);
        refused(command.args(args).env("AWS_SECRET_ACCESS_KEY", "wrong"), wrong_key);
        let mut command = s3.postern(s3.port);
        refused(command.args(args).env("AWS_ACCESS_KEY_ID", "nobody"), "the access key does not exist");
        let mut command = s3.postern(s3.port);
        refused(command.args(args).env_remove("AWS_ACCESS_KEY_ID"), "no credentials: set AWS_PROFILE");
        let mut command = s3.postern(e2e::servers::free_port());
        refused(command.args(args).args(["--retries", "1"]), "it cannot be reached: Connection refused");
    }
    let mut command = s3.postern(s3.port);
    refused(command.args(["cp", "file", "s3://no-bucket/file"]), "there is no such bucket");
    let mut command = s3.postern(s3.port);
    refused(command.args(["cp", "s3://no-bucket/file", "got"]), "there is no such bucket");
    let mut command = s3.postern(s3.port);
    refused(command.args(down), "there is no object s3://first-bucket/file");
    let mut command = s3.postern(s3.port);
    let unknown = Outcome::of(
        command.args(["cp", "file", "s3://first-bucket/file", "--s3-identity", "none"]).current_dir(here),
    );
    unknown.exits(2).says(&["the config names no provider"]);
    assert!(!s3.object("file").exists() && !here.join("got").exists());
    assert_eq!(s3.unfinished(), 0);
}

#[test]
fn a_cut_connection_is_made_again_and_a_killed_copy_goes_on_where_it_was() {
    let Some(s3) = server() else { return };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let content = random(80_000_000);
    fs::write(here.join("big"), &content).unwrap();
    // Each of the first connections is cut in the middle of a part, on its way there and back.
    for (from, to) in [("big", "s3://first-bucket/big"), ("s3://first-bucket/big", "again")] {
        let cutter = Cutter::start(&format!("127.0.0.1:{}", s3.port), 5, |n| 1_000_000 + n * 300_000);
        let port = cutter.server.rsplit(':').next().unwrap().parse().unwrap();
        let mut command = s3.postern(port);
        Outcome::of(command.current_dir(here).args(["cp", from, to])).ok();
        assert!(cutter.cuts() >= 3, "{from}: {} cuts", cutter.cuts());
    }
    assert!(
        fs::read(s3.object("big")).unwrap() == content && fs::read(here.join("again")).unwrap() == content
    );
    assert_eq!(s3.unfinished(), 0);

    // Killed when some parts have arrived.
    let killed = |target: &str| {
        let mut command = s3.postern(s3.port);
        command.current_dir(here).args(["cp", "--bwlimit", "30M", "big", target]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let state = s3.object("../../state/postern/uploads");
        e2e::eventually("two parts have arrived", Duration::from_secs(30), || {
            let records = fs::read_dir(&state).into_iter().flatten().flatten();
            records
                .map(|one| fs::read_to_string(one.path()).unwrap_or_default())
                .any(|text| text.lines().count() > 3)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(s3.unfinished(), 1);
    };
    killed("s3://first-bucket/killed");
    let went_on = summary(&cp(&s3, here, &["-o", "json", "big", "s3://first-bucket/killed"]).ok());
    assert!(went_on["contentBytes"].as_u64().unwrap() <= 72_000_000, "{went_on}");
    assert_eq!(fs::read(s3.object("killed")).unwrap(), content);
    assert_eq!(s3.unfinished(), 0);

    // A source that changed since is not mixed with what is there; and that can be removed.
    killed("s3://first-bucket/other");
    fs::File::open(here.join("big")).unwrap().set_modified(SystemTime::now()).unwrap();
    let stale = cp(&s3, here, &["big", "s3://first-bucket/other"]);
    assert_eq!(stale.code, 1);
    assert!(stale.stderr.contains("big: failed (it has changed since"), "{}", stale.stderr);
    cp(&s3, here, &["--clean", "s3://first-bucket/elsewhere"]).ok();
    assert_eq!(s3.unfinished(), 1, "it is of another object");
    cp(&s3, here, &["--clean", "s3://first-bucket/other"]).ok();
    assert_eq!(s3.unfinished(), 0);
}

#[test]
fn a_provider_of_the_config_gives_the_keys() {
    let Some(moto) = enabled().then(Moto::start).flatten() else { return };
    let scene = Scene::new(&json!({}));
    let token = json!({"type": "token_request", "namespace": "default", "service_account": "default",
        "audience": "sts.amazonaws.com"});
    scene.configure(&json!({"aws": {"type": "aws", "role_arn": "arn:aws:iam::123456789012:role/reports",
        "region": "us-east-1", "endpoint": moto.address, "subject_token": token}}));
    let make = format!(
        "import boto3; boto3.client('s3', endpoint_url='{}', aws_access_key_id='a', aws_secret_access_key='b', \
         region_name='us-east-1').create_bucket(Bucket='lent')",
        moto.address
    );
    Outcome::of(Command::new(&moto.python).args(["-c", &make])).ok();
    let content = random(7_000_000);
    fs::write(scene.path("file"), &content).unwrap();
    let s3 = |args: &[&str]| {
        let mut command = e2e::postern();
        command.env("POSTERN_CONFIG", scene.path("config.yaml")).env("XDG_CACHE_HOME", scene.path("cache"));
        command.env("XDG_STATE_HOME", scene.path("state"));
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"] {
            command.env_remove(name);
        }
        command.arg("cp").args(args).args(["--s3-identity", "aws", "--s3-endpoint", &moto.address]);
        Outcome::of(command.args(["--s3-region", "us-east-1"]).current_dir(scene.path("")))
    };
    s3(&["file", "s3://lent/a/b"]).ok();
    s3(&["s3://lent/a/b", "back"]).ok();
    assert_eq!(fs::read(scene.path("back")).unwrap(), content);
}
