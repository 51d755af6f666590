//! The OS keychain as a source of credentials: a real Secret Service on a session bus of its own. No cluster.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::{Outcome, canary, enabled, postern};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a script on a new session bus with an unlocked keyring; `$POSTERN` is the program.
///
/// The bus may start a keyring of its own that outlives it. So what is said goes to files, which nobody has to close,
/// and whoever still has this home as theirs is ended.
fn on_a_bus(script: &str) -> Outcome {
    let home = tempfile::tempdir().unwrap();
    let program = postern().get_program().to_owned();
    let unlock = "printf pw | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1; ";
    let said = |name: &str| home.path().join(name);
    let mut command = Command::new("dbus-run-session");
    command.args(["--", "sh", "-c", &format!("{unlock}{script}")]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home.path());
    command.env("XDG_RUNTIME_DIR", home.path()).env("POSTERN", program).env("VALUE", canary());
    command.stdin(Stdio::null());
    command.stdout(File::create(said("out")).unwrap()).stderr(File::create(said("err")).unwrap());
    let status = command.status().unwrap();
    end_all_of(home.path());
    let read = |name: &str| std::fs::read(said(name)).unwrap();
    Outcome::from(Output { status, stdout: read("out"), stderr: read("err") })
}

/// Ends every process whose `HOME` this is.
fn end_all_of(home: &Path) {
    let ours = format!("HOME={}", home.display());
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|entry| entry == ours.as_bytes()) {
            let _ = Command::new("kill").arg("-9").arg(process.file_name()).status();
        }
    }
}

#[test]
fn a_credential_is_found_in_the_keychain() {
    if !enabled() {
        return;
    }
    let store = "printf %s \"$VALUE\" | secret-tool store --label=x service postern username MY_KEY && ";
    let run = "\"$POSTERN\" run --backend local --credential MY_KEY";
    let seen =
        on_a_bus(&format!("{store}{run}=keychain -- sh -c 'printf %s \"$MY_KEY\" | wc -c; echo $MY_KEY'"))
            .ok();
    assert_eq!(seen.stdout, format!("{}\n[REDACTED]\n", canary().len()));
    // In the chain it comes after the environment and before the config.
    let seen = on_a_bus(&format!("{store}{run} -v -- true")).ok();
    assert!(seen.stderr.contains("MY_KEY comes from keychain"), "{}", seen.stderr);
    on_a_bus(&format!("{run}=keychain -- true")).exits(127).says(&["MY_KEY was not found in keychain"]);
}

#[test]
fn where_there_is_none_it_is_said_once_and_the_others_are_asked() {
    if !enabled() {
        return;
    }
    let mut command = postern();
    command.args([
        "run",
        "--backend",
        "local",
        "--credential",
        "A_KEY",
        "--credential",
        "B_KEY",
        "--",
        "true",
    ]);
    let config = tempfile::NamedTempFile::new().unwrap();
    let value = "{value_base64: bG9uZy1lbm91Z2gtdmFsdWU=}";
    std::fs::write(config.path(), format!("credentials: {{A_KEY: {value}, B_KEY: {value}}}")).unwrap();
    let seen = Outcome::of(command.env("POSTERN_CONFIG", config.path())).ok();
    assert_eq!(seen.stderr.matches("no keychain").count(), 1, "{}", seen.stderr);
    let pinned = ["run", "--backend", "local", "--credential", "A_KEY=keychain", "--", "true"];
    Outcome::of(postern().args(pinned)).exits(127).says(&["no session bus"]);
}
