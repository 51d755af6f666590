//! The book's chapters that are walks: every command in their examples is run, in its order, and succeeds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::servers::Servers;
use e2e::{Outcome, clean, enabled, postern, testbed};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a reader would paste into a shell, block by block.
fn chapter(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs/src").join(name)).unwrap();
    let blocks = text.split("```console\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A reader's shell: a home of its own, and our programs in the `PATH`.
struct Reader {
    home: tempfile::TempDir,
    path: String,
}

impl Reader {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let program = std::env::current_dir().unwrap().join(postern().get_program());
        std::os::unix::fs::symlink(program, bin.join("postern")).unwrap();
        let own = root().join("target/testbed/bin");
        let path = format!("{}:{}:{}", bin.display(), own.display(), std::env::var("PATH").unwrap());
        Self { home, path }
    }

    fn pastes(&self, script: &str) -> Outcome {
        let mut shell = Command::new("sh");
        shell.env_clear().env("PATH", &self.path).env("HOME", self.home.path());
        shell.env("KUBECONFIG", e2e::kubeconfig()).env("TMPDIR", self.home.path());
        Outcome::of(shell.args(["-ec", script]).current_dir(root()).stdin(Stdio::null()))
    }
}

#[test]
fn the_ops_pods_chapter_does_what_it_says() {
    if !enabled() {
        return;
    }
    let blocks = chapter("ops-pod.md");
    let examples: Vec<_> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert!(examples.len() >= 20, "{examples:?}");
    clean();
    let reader = Reader::new();
    for example in examples {
        let seen = reader.pastes(example);
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

#[test]
fn the_copy_chapter_does_what_it_says() {
    if !enabled() || !testbed() {
        return;
    }
    let blocks = chapter("copy.md");
    let examples: Vec<_> = blocks.iter().flat_map(|block| block.lines()).collect();
    assert!(examples.len() >= 20, "{examples:?}");
    let gone = ["delete", "namespace", "copy-book", "--ignore-not-found", "--timeout=60s"];
    e2e::kubectl(&gone).ok();
    let reader = Reader::new();
    let script = format!("cd \"$HOME\"; {}", examples.join("\n"));
    let seen = reader.pastes(&script).ok();
    assert!(
        seen.stdout.contains("from a pipe") && seen.stderr.contains("reached by ephemeral"),
        "{}",
        seen.stderr
    );
}

#[test]
fn the_identity_chapter_leads_from_nothing_to_a_cron_job() {
    if !enabled() || !testbed() || Servers::up().is_none() {
        return;
    }
    let blocks = chapter("identity.md");
    let (begin, end) = (&blocks[0], blocks.last().unwrap());
    assert!(begin.contains("providers up") && end.contains("kcadm.sh delete"), "{blocks:?}");
    let reader = Reader::new();
    // What is made but once has been, by whoever runs this test; a walk that broke off may have left something.
    let begin: String =
        begin.lines().filter(|line| !line.starts_with("cargo ")).collect::<Vec<_>>().join("\n");
    reader.pastes(&end.replace('\n', " || true\n"));
    let seen = reader.pastes(&format!("{begin}\n{}", blocks[1..].concat())).ok();
    assert!(
        seen.stdout.contains("\"preferred_username\":\"service-account-jobs-digest\""),
        "{}",
        seen.stdout
    );
    let refused = seen.stdout.split("service-account-jobs-digest").last().unwrap();
    assert!(refused.contains("invalid_client") && refused.contains("usually:"), "{refused}");
    assert!(!seen.stdout.contains("eyJ") && !seen.stderr.contains("eyJ"), "a token is shown");
}

#[test]
fn every_test_that_the_book_names_exists() {
    fn sources(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, text);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut all = String::new();
    for dir in ["crates", "e2e"] {
        sources(&root().join(dir), &mut all);
    }
    let chapter = std::fs::read_to_string(root().join("docs/src/identity-facts.md")).unwrap();
    let mut count = 0;
    for cell in chapter.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit(" | ").next()) {
        for name in cell.split('`').skip(1).step_by(2) {
            assert!(all.contains(&format!("fn {name}(")), "there is no test {name}");
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}
