//! The book's chapter on the ops pod: every command in its examples is run, in its order, and succeeds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{Outcome, clean, enabled, postern};
use std::path::Path;

/// The lines of all blocks that a reader would paste into a shell.
fn examples(chapter: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in chapter.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            line if inside => found.push(line),
            _ => {}
        }
    }
    found
}

#[test]
fn the_ops_pods_chapter_does_what_it_says() {
    if !enabled() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let chapter = std::fs::read_to_string(root.join("docs/src/ops-pod.md")).unwrap();
    let examples = examples(&chapter);
    assert!(examples.len() >= 20, "{examples:?}");
    clean();
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let program = std::env::current_dir().unwrap().join(postern().get_program());
    std::os::unix::fs::symlink(program, bin.join("postern")).unwrap();
    let own = root.join("target/testbed/bin");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{}:{path}", bin.display(), own.display());
    for example in examples {
        let mut shell = std::process::Command::new("sh");
        shell.env_clear().env("PATH", &path).env("HOME", home.path()).env("KUBECONFIG", e2e::kubeconfig());
        let seen = Outcome::of(shell.args(["-c", example]).stdin(std::process::Stdio::null()));
        assert_eq!(seen.code, 0, "{example}\n{}\n{}", seen.stdout, seen.stderr);
        for value in ["first-value", "second-value"] {
            assert!(!seen.stdout.contains(value) && !seen.stderr.contains(value), "{example} shows {value}");
        }
    }
    // The Roles of the example are not the ops pod's: they stay until someone takes them away, as here.
    clean();
    let roles = ["delete", "clusterrole", "postern-auditor", "--ignore-not-found"];
    e2e::kubectl(&roles).ok();
}
