//! Faults that users of other tools reported, remade in small: copies on this machine, closed pipes, limits, kubeconfigs.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn postern(folder: &Path, args: &[&str]) -> Ended {
    let mut command = command(folder);
    let output = command.args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", folder);
    command.current_dir(folder).stdin(Stdio::null());
    command
}

impl Ended {
    #[track_caller]
    fn is(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
        self
    }
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn an_empty_source_never_empties_a_destination_by_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let fill = || {
        let _ = fs::remove_dir_all(here.join("project"));
        fs::create_dir_all(here.join("project/below")).unwrap();
        for number in 0..24 {
            fs::write(here.join(format!("project/{number}")), "x").unwrap();
            fs::write(here.join(format!("project/below/{number}")), "x").unwrap();
        }
    };
    fs::create_dir(here.join("empty")).unwrap();
    fill();
    for dry in [&["--dry-run"][..], &[]] {
        let args = [&["sync", "--delete", "empty", "project"], dry].concat();
        postern(here, &args).is(1, &["the source is empty", "nothing was removed", "--delete=all"]);
        assert_eq!((count(&here.join("project")), count(&here.join("project/below"))), (25, 24));
    }
    // 49 entries: 24 files, a directory, 24 files in it.
    postern(here, &["sync", "--delete", "--max-delete", "48", "empty", "project"])
        .is(1, &["would remove 49 of the 49", "--max-delete allows 48", "none was removed"]);
    postern(here, &["sync", "--delete", "--max-delete", "99%", "empty", "project"]).is(1, &["allows 99%"]);
    assert_eq!(count(&here.join("project")), 25);
    postern(here, &["sync", "--delete", "--max-delete", "49", "empty", "project"]).is(0, &[]);
    assert_eq!(count(&here.join("project")), 0);
    fill();
    postern(here, &["sync", "--delete=all", "empty", "project"]).is(0, &[]);
    assert_eq!(count(&here.join("project")), 0);
    postern(here, &["sync", "--delete", "empty", "project"]).is(0, &[]);
    // A limit holds where little is removed of much, too.
    fill();
    fs::write(here.join("empty/0"), "x").unwrap();
    postern(here, &["sync", "--delete", "--max-delete", "50%", "empty", "project"]).is(1, &["allows 50%"]);
    assert_eq!(count(&here.join("project")), 25);
    // What this copy adds is not what was there: here, all that was there would go.
    fs::create_dir(here.join("other")).unwrap();
    (0..100).for_each(|number| fs::create_dir(here.join(format!("other/dir{number}"))).unwrap());
    postern(here, &["sync", "--delete", "--max-delete", "99%", "other", "project"])
        .is(1, &["would remove 49 of the 49", "allows 99%"]);
    assert!(here.join("project/0").exists());
    // Nor does a file take the place of a directory before it is known how much goes.
    fs::write(here.join("other/below"), "x").unwrap();
    postern(here, &["sync", "--delete", "--max-delete", "10%", "other", "project"]).is(1, &["allows 10%"]);
    assert_eq!(count(&here.join("project/below")), 24);
    postern(here, &["sync", "--max-delete", "3", "empty", "project"]).is(2, &["--delete"]);
    postern(here, &["sync", "--delete", "--max-delete", "101%", "empty", "project"]).is(2, &["percentage"]);
}

#[test]
fn a_name_that_exists_is_taken_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for name in ["TEST0", "TEST[0]", "r[1].txt", "r1.txt", "a*b", "ab", "back\\slash"] {
        fs::write(here.join(name), name).unwrap();
    }
    for folder in ["pages/[id]", "pages/i"] {
        fs::create_dir_all(here.join(folder)).unwrap();
        fs::write(here.join(folder).join("index.tsx"), folder).unwrap();
    }
    let copied = |sources: &[&str]| {
        let _ = fs::remove_dir_all(here.join("d"));
        fs::create_dir(here.join("d")).unwrap();
        postern(here, &[&["cp"], sources, &["d/"]].concat()).is(0, &[]);
        let mut names: Vec<String> = fs::read_dir(here.join("d"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    // As a shell has expanded TEST*.
    assert_eq!(copied(&["TEST0", "TEST[0]"]), ["TEST0", "TEST[0]"]);
    assert_eq!(copied(&["r[1].txt"]), ["r[1].txt"]);
    assert_eq!(copied(&["pages/[id]/index.tsx"]), ["index.tsx"]);
    assert_eq!(fs::read_to_string(here.join("d/index.tsx")).unwrap(), "pages/[id]");
    assert_eq!(copied(&["back\\slash"]), ["back\\slash"]);
    // Quoted, where nothing is called just so.
    assert_eq!(copied(&["a\\*b"]), ["a*b"]);
    assert_eq!(copied(&["r\\[1\\].txt"]), ["r[1].txt"]);
    assert_eq!(copied(&["r[0-9].txt"]), ["r1.txt"]);
}

#[test]
fn a_local_name_with_a_colon_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("a:b"), "x").unwrap();
    for args in [&["cp", "a:b", "d"][..], &["sync", "a:b", "d"], &["cp", "--clean", "a:b"]] {
        // Without any cluster to ask it is as likely.
        let ended = postern(here, args);
        assert!(ended.stderr.contains("write ./a:b"), "{args:?}: {}", ended.stderr);
    }
    postern(here, &["cp", "./a:b", "d"]).is(0, &[]);
}

#[test]
fn who_reads_no_more_hears_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("file"), vec![b'x'; 1_000_000]).unwrap();
    for args in [
        &["completions", "bash"][..],
        &["run", "--backend", "local", "--", "seq", "1", "9999999"],
        &["run", "--backend", "local", "--each", "1", "--each", "2", "--", "seq", "1", "999999"],
        &["cp", "file", "-"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(here).args(args).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(141), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("error"), "{args:?}: {said}");
    }
}

#[test]
fn as_many_entries_as_are_allowed_are_copied() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir(here.join("tree")).unwrap();
    (0..30).for_each(|number| fs::write(here.join(format!("tree/{number}")), "x").unwrap());
    postern(here, &["cp", "--max-entries", "31", "tree", "copy"]).is(0, &[]);
    postern(here, &["cp", "--max-entries", "30", "tree", "other"]).is(1, &["more than 30 entries"]);
}

#[test]
fn what_files_inherit_their_group_by_stays() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir_all(here.join("tree/a/b")).unwrap();
    fs::create_dir(here.join("volume")).unwrap();
    let set =
        |path: &str, mode| fs::set_permissions(here.join(path), fs::Permissions::from_mode(mode)).unwrap();
    let mode = |path: &str| fs::metadata(here.join(path)).unwrap().permissions().mode() & 0o7777;
    set("volume", 0o2775);
    set("tree/a", 0o775);
    set("tree/a/b", 0o700);
    postern(here, &["cp", "-r", "tree", "volume/"]).is(0, &[]);
    assert_eq!((mode("volume/tree/a"), mode("volume/tree/a/b")), (0o2775, 0o2700));
    // One of the source's own that is not kept is said.
    set("tree/a", 0o2775);
    postern(here, &["cp", "-r", "tree", "plain"]).is(0, &["tree/a: without its setgid bit"]);
    assert_eq!(mode("plain/a"), 0o775);
    postern(here, &["cp", "-a", "--specials", "tree", "kept"]).is(0, &[]);
    assert_eq!(mode("kept/a"), 0o2775);
}

#[test]
fn what_is_too_long_is_said_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let words: Vec<String> = (0..20).map(|_| "x".repeat(60_000)).collect();
    let mut args = vec!["run", "--backend", "local", "--", "true"];
    args.extend(words.iter().map(String::as_str));
    postern(folder.path(), &args).is(2, &["has 12", "bytes, and at most", "--file"]);
}

#[test]
fn a_link_that_leads_nowhere_names_the_directory_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("f"), "x").unwrap();
    fs::create_dir(here.join("b")).unwrap();
    symlink("../missing/x", here.join("b/link")).unwrap();
    postern(here, &["cp", "f", "b/link"]).is(1, &["b/link is a symlink that points into b/../missing"]);
}

#[test]
fn a_summary_counts_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::create_dir(here.join("tree")).unwrap();
    fs::write(here.join("tree/f"), "ab").unwrap();
    symlink("f", here.join("tree/l")).unwrap();
    let ended = postern(here, &["cp", "tree", "copy"]).is(0, &["1 directory, 1 link; 2 B in"]);
    assert!(!ended.stderr.contains(":1)"), "{}", ended.stderr);
}

/// A kubeconfig whose user has these fields.
fn kubeconfig(folder: &Path, cluster: &str, user: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
    );
    fs::write(folder.join("kubeconfig"), text).unwrap();
}

#[test]
fn requests_are_never_sent_as_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let server = "server: 'https://127.0.0.1:1'";
    let plugin = "exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: cat, args: [answer]}";
    let answer = |status: &str| {
        let head = r#""apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential""#;
        fs::write(here.join("answer"), format!("{{{head}, \"status\": {status}}}")).unwrap();
    };
    let run = || postern(here, &["ops", "show", "--kubeconfig", "kubeconfig"]);
    for (user, status, words) in [
        ("", "", "the user \"u\" of the context \"c\" has no credentials"),
        (plugin, "{}", "the kubeconfig's exec plug-in cat gave neither a token nor a certificate"),
        (
            plugin,
            r#"{"clientCertificateData": "x"}"#,
            "the kubeconfig's exec plug-in cat gave clientCertificateData without clientKeyData",
        ),
    ] {
        answer(status);
        kubeconfig(here, server, user);
        let ended = run().is(1, &[words]);
        assert!(!ended.stderr.contains("VPN") && !ended.stderr.contains("Role"), "{}", ended.stderr);
    }
    fs::write(
        here.join("kubeconfig"),
        "current-context: c\ncontexts: [{name: c, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: \
         'https://127.0.0.1:1'}}]\n",
    )
    .unwrap();
    run().is(1, &["the context \"c\" names no user"]);
    // What is wrong with a proxy is named with its place, and without its password.
    kubeconfig(here, &format!("{server}, proxy-url: 'socks4://u:canary@proxy.example:1080'"), "token: t");
    let ended = run().is(1, &["socks4://proxy.example:1080", "socks5://"]);
    assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
}
