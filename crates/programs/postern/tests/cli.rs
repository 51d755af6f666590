//! The command line as the user sees it: exit code, stdout, stderr. None of this needs a cluster.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::io::Write as _;
use std::process::{Command, Stdio};

const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: prod\ncontexts:\n\
- {name: prod, context: {cluster: c, user: u}}\n- {name: staging, context: {cluster: c, user: u}}\n\
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {token: t}}]\n";

/// Runs the program away from any user's files and shows everything it said.
fn said(args: &[&str], files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kubeconfig"), KUBECONFIG).unwrap();
    for (name, content) in files {
        std::fs::File::create(folder.path().join(name)).unwrap().write_all(content.as_bytes()).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("KUBECONFIG", folder.path().join("kubeconfig"))
        .env("HOME", folder.path())
        .env("COLUMNS", "100")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .replace(folder.path().to_str().unwrap(), "DIR")
            .replace(env!("CARGO_PKG_VERSION"), "VERSION")
    };
    format!(
        "exit: {}\n----- stdout -----\n{}----- stderr -----\n{}",
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

macro_rules! snapshot {
    ($name:ident, $args:expr) => {
        snapshot!($name, $args, &[]);
    };
    ($name:ident, $args:expr, $files:expr) => {
        #[test]
        fn $name() {
            insta::assert_snapshot!(said($args, $files));
        }
    };
}

snapshot!(help, &["--help"]);
snapshot!(help_ops, &["ops", "--help"]);
snapshot!(help_install, &["ops", "install", "--help"]);
snapshot!(help_run, &["run", "--help"]);
snapshot!(help_job, &["job", "--help"]);
snapshot!(job_of_a_bad_taint, &["job", "--tolerate", "a:Never", "--", "true"]);
snapshot!(job_as_root, &["job", "--user", "0", "--", "true"]);
snapshot!(help_exec, &["exec", "--help"]);
snapshot!(help_cp, &["cp", "--help"]);
snapshot!(a_usage_error_in_json, &["-o", "json", "run", "--timeot", "1s", "--", "true"]);
snapshot!(help_sync, &["sync", "--help"]);
snapshot!(version, &["--version"]);
snapshot!(cp_of_one_path, &["cp", "a"]);
snapshot!(cp_without_a_path_in_the_pod, &["cp", "kubeconfig", "web:"]);
snapshot!(cp_of_several_kinds, &["cp", "kubeconfig", "web:/a", "into"]);
snapshot!(cp_of_pods_without_labels, &["cp", ":/a", "b"]);
snapshot!(cp_of_labels_without_pods, &["cp", "-l", "app=web", "a", "b"]);
snapshot!(cp_at_no_rate, &["cp", "--bwlimit", "1.5M", "a", "b"]);
snapshot!(cp_without_the_end_of_a_set, &["cp", "--exclude", "[a", "a", "b"]);
snapshot!(cp_to_s3, &["cp", "a", "s3://"]);
snapshot!(cp_of_nothing, &["cp", "a", "b"]);
snapshot!(cp_of_no_match, &["cp", "*.none", "b"]);
snapshot!(cp_into_no_directory, &["cp", "kubeconfig", "f", "b"], &[("f", "f")]);
snapshot!(cp_planned, &["cp", "--dry-run", "f", "b"], &[("f", "f")]);
snapshot!(cp_to_a_pod_unreachable, &["cp", "kubeconfig", "web:/tmp"]);
snapshot!(nothing, &[]);
snapshot!(unknown_command, &["opps"]);
snapshot!(unknown_flag, &["run", "--tiemout", "3s", "--", "true"]);
snapshot!(run_without_command, &["run"]);
snapshot!(run_with_an_empty_command, &["run", "--", ""]);
snapshot!(bad_duration, &["run", "--timeout", "soon", "--", "true"]);
snapshot!(zero_duration, &["run", "--timeout", "0s", "--", "true"]);
snapshot!(bad_env, &["run", "--env", "NOVALUE", "--", "true"]);
snapshot!(credential_for_the_ops_pod, &["run", "--credential", "KEY", "--", "true"]);
snapshot!(exec_without_target, &["exec", "--", "true"]);
snapshot!(exec_of_a_wrong_kind, &["exec", "cm/web", "--", "true"]);
snapshot!(fan_out_with_stdin, &["exec", "-i", "a", "b", "--", "cat"]);
snapshot!(fan_out_with_a_terminal, &["exec", "-l", "app=web", "--all", "-t", "--", "sh"]);
snapshot!(fan_out_grouped_as_json, &["exec", "a", "b", "--group", "-o", "json", "--", "true"]);
snapshot!(fan_out_of_none_at_a_time, &["exec", "a", "b", "--parallel", "0", "--", "true"]);
snapshot!(fan_out_with_one_and_all_containers, &["exec", "a", "-c", "x", "--all-containers", "--", "true"]);
snapshot!(fan_out_without_values, &["run", "--fail-fast", "--", "true"]);
snapshot!(fan_out_with_a_staged_file, &["run", "--each", "a", "--file", "x=/tmp/x", "--", "true"]);
snapshot!(each_with_no_value, &["run", "--each", "-", "--backend", "local", "--", "true"]);
snapshot!(
    each_grouped,
    &[
        "run",
        "--backend",
        "local",
        "--parallel",
        "1",
        "--group",
        "--each",
        "1",
        "--each",
        "2",
        "--",
        "sh",
        "-c",
        "printf 'out {}'; echo err {} >&2; exit $(({} - 1))"
    ]
);
snapshot!(
    each_prefixed,
    &[
        "run",
        "--backend",
        "local",
        "--parallel",
        "1",
        "--each",
        "1",
        "--each",
        "two words",
        "--",
        "sh",
        "-c",
        "printf 'out %s\\nand more' '{}'; kill -9 $$"
    ]
);
snapshot!(
    each_fails_fast,
    &[
        "run",
        "--backend",
        "local",
        "--parallel",
        "1",
        "--fail-fast",
        "--each",
        "1",
        "--each",
        "2",
        "--each",
        "3",
        "--",
        "sh",
        "-c",
        "echo {}; [ {} != 2 ]"
    ]
);
snapshot!(unknown_context, &["--context", "prdo", "ops", "show"]);
snapshot!(unreachable, &["ops", "show"]);
snapshot!(unreachable_json, &["ops", "show", "-o", "json"]);
snapshot!(unreachable_run, &["run", "--", "true"]);
snapshot!(missing_kubeconfig, &["--kubeconfig", "none", "ops", "show"]);
snapshot!(missing_config, &["--config", "none.yaml", "ops", "show"]);
snapshot!(
    unknown_config_key,
    &["--config", "c.yaml", "ops", "show"],
    &[("c.yaml", "context: prod\nimage_miror: x\n")]
);
snapshot!(
    config_names_an_unknown_context,
    &["--config", "c.yaml", "ops", "show"],
    &[("c.yaml", "context: nowhere\n")]
);
snapshot!(bad_credential_name, &["ops", "install", "--credential", "not-a-name"]);
snapshot!(bad_credential_source, &["ops", "install", "--credential", "KEY=vault"]);
snapshot!(credential_not_found, &["ops", "install", "--credential", "KEY=env"]);
snapshot!(
    credential_too_short,
    &["--config", "c.yaml", "ops", "install", "--credential", "KEY=config"],
    &[("c.yaml", "credentials: {KEY: {value_base64: c2hvcnQ=}}\n")]
);
snapshot!(
    name_too_long,
    &[
        "ops",
        "install",
        "--cluster-access",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    ]
);
snapshot!(trusted_profile_of_no_kind, &["ops", "install", "--trusted-profile", "sideways"]);
snapshot!(trusted_profile_without_a_key, &["ops", "install", "--trusted-profile", "on"]);
snapshot!(provider_only_without_a_key, &["ops", "uninstall", "--provider-only"]);
snapshot!(login_on_this_machine, &["run", "--backend", "local", "--login", "ibm", "--", "true"]);
snapshot!(login_to_no_cloud, &["run", "--login", "aws", "--", "true"]);
snapshot!(
    bad_cluster,
    &["--config", "c.yaml", "ops", "show"],
    &[("c.yaml", "workspace: a\nibm:\n  cluster: 'crn:v1:short'\n")]
);
snapshot!(bad_login, &["--config", "c.yaml", "ops", "show"], &[("c.yaml", "login: {attempts: 99}\n")]);
snapshot!(access_all_and_more, &["ops", "install", "--cluster-access", "all", "x"]);
snapshot!(bad_image, &["ops", "install", "--image", "https://example.com/x"]);
snapshot!(rbac, &["ops", "rbac", "--cluster-access", "team-a"]);
snapshot!(
    manifests,
    &["ops", "install", "--dry-run", "-o", "yaml", "--image", "example/ops:1", "--cluster-access", "team-a"]
);
snapshot!(
    mirrored,
    &["--config", "c.yaml", "ops", "install", "--dry-run", "-o", "json"],
    &[("c.yaml", "image_mirror: mirror.corp:5000/hub\nimage_pull_secret: pull\n")]
);
snapshot!(local_run, &["run", "--backend", "local", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
snapshot!(local_not_found, &["run", "--backend", "local", "--", "no-such-program"]);
snapshot!(local_json, &["run", "--backend", "local", "-o", "json", "--", "true"]);

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = said(&["completions", shell], &[]);
        assert!(said.starts_with("exit: 0") && said.contains("postern"), "{shell}");
    }
}

#[test]
fn it_is_a_kubectl_plug_in() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("kubectl-postern");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_postern"), &link).unwrap();
    let output = Command::new(&link).args(["run", "--help"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("kubectl postern run"));
}

/// A configuration with providers.
const PROVIDERS: &[(&str, &str)] = &[(
    "c.yaml",
    "providers:\n  reports:\n    type: oauth2\n    issuer: https://auth.example.com/realms/prod\n    grant: jwt_bearer\n    \
api: {base_url: 'https://api.example.com/v1'}\n  aws: {type: aws, role_arn: 'arn:aws:iam::1:role/x', region: eu-central-1}\n  me:\n    type: oauth2\n    grant: device_code\n    \
client_id: cli\n    token_endpoint: https://auth.example.com/token\n    \
device_authorization_endpoint: https://auth.example.com/device\n",
)];

snapshot!(help_identity, &["identity", "--help"]);
snapshot!(help_identity_token, &["identity", "token", "--help"]);
snapshot!(help_identity_proxy, &["identity", "proxy", "--help"]);
snapshot!(identity_without_providers, &["identity", "token"]);
snapshot!(identity_which_provider, &["identity", "token", "--config", "c.yaml"], PROVIDERS);
snapshot!(identity_unknown_provider, &["identity", "token", "report", "--config", "c.yaml"], PROVIDERS);
snapshot!(identity_no_subject, &["identity", "token", "reports", "--config", "c.yaml"], PROVIDERS);
snapshot!(identity_no_person, &["identity", "token", "me", "--config", "c.yaml", "-o", "json"], PROVIDERS);
snapshot!(identity_status, &["identity", "status", "--config", "c.yaml"], PROVIDERS);
snapshot!(
    identity_proxy_without_api,
    &["identity", "proxy", "--provider", "x", "--config", "c.yaml"],
    PROVIDERS
);
snapshot!(
    identity_proxy_for_all,
    &["identity", "proxy", "--listen", "0.0.0.0:8080", "--config", "c.yaml"],
    PROVIDERS
);
snapshot!(
    identity_write_nowhere,
    &["identity", "write", "reports", "--to", "none/token", "--config", "c.yaml"],
    PROVIDERS
);
snapshot!(
    identity_write_open,
    &["identity", "write", "reports", "--to", "token", "--mode", "0666", "--config", "c.yaml"],
    PROVIDERS
);
snapshot!(
    identity_manifest,
    &[
        "identity",
        "manifest",
        "job",
        "digest",
        "--image",
        "app:1",
        "--provider",
        "reports",
        "--config",
        "c.yaml",
        "--",
        "app"
    ],
    PROVIDERS
);
snapshot!(
    identity_manifest_for_a_person,
    &["identity", "manifest", "job", "digest", "--image", "app:1", "--config", "c.yaml"],
    PROVIDERS
);
snapshot!(identity_trust_whom, &["identity", "trust", "azure", "--service-account", "runner"]);
snapshot!(
    config_of_a_provider,
    &["identity", "status", "--config", "c.yaml"],
    &[(
        "c.yaml",
        "providers:\n  x:\n    type: oauth2\n    issuer: https://a\n    grant: client_credentials\n    client_id: a\n"
    )]
);

/// A plug-in that waits for ever, or until the folder of the test is gone.
const HANGING: &str = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, \
user: u}}]\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\nusers: [{name: u, user: {exec: \
{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, args: ['-c', 'while [ -e hanging ]; \
do sleep 0.1; done']}}}]\n";

snapshot!(
    a_plug_in_that_prints_a_newline_too_many,
    &["run", "--kubeconfig", "newline", "--", "true"],
    &[
        ("newline", &HANGING.replace("while [ -e hanging ]; do sleep 0.1; done", "cat credential")),
        (
            "credential",
            r#"{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t\n"}}"#
        )
    ]
);

/// Rust's runtime would take it for /dev/null.
#[test]
#[cfg(target_os = "linux")]
fn a_standard_stream_that_is_closed_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "keep").unwrap();
    for (script, code, says) in [
        ("\"$0\" cp f - >&-", 1, "writing to stdout: Bad file descriptor"),
        ("\"$0\" cp - f <&-", 1, "reading stdin: Bad file descriptor"),
        ("\"$0\" completions bash >&-", 1, "Bad file descriptor"),
        ("\"$0\" run --backend local -- echo x >&-", 126, "Bad file descriptor"),
        ("\"$0\" run --backend local -i -- cat <&-", 126, "Bad file descriptor"),
        ("\"$0\" run --backend local -- true >&- <&-", 0, ""),
    ] {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, env!("CARGO_BIN_EXE_postern")]).current_dir(folder.path());
        let output = shell.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{script}: {said}");
        assert!(said.contains(says), "{script}: {said}");
    }
    assert_eq!(std::fs::read(folder.path().join("f")).unwrap(), b"keep");
}

#[test]
#[cfg(target_os = "linux")]
fn a_plug_in_that_takes_too_long_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    // What it execs keeps its number, and would outlive the test.
    let hanging = HANGING.replace("while [ -e hanging ]; do sleep 0.1; done", "echo $$ >pid; exec sleep 600");
    std::fs::write(folder.path().join("hanging"), hanging).unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_postern"));
    run.args(["run", "--kubeconfig", "hanging", "--timeout", "1s", "--", "true"]).current_dir(folder.path());
    assert_eq!(run.stdin(Stdio::null()).output().unwrap().status.code(), Some(137));
    let number = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    let there = std::path::PathBuf::from(format!("/proc/{}/cmdline", number.trim()));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::fs::read(&there).is_ok_and(|command| command.starts_with(b"sleep")) {
        assert!(std::time::Instant::now() < end, "the plug-in runs on");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

snapshot!(
    run_in_time_whatever_a_plug_in_does,
    &["run", "--kubeconfig", "hanging", "--timeout", "300ms", "--", "true"],
    &[("hanging", HANGING)]
);
snapshot!(
    exec_in_time_whatever_a_plug_in_does,
    &["exec", "--kubeconfig", "hanging", "--timeout", "300ms", "pod/x", "--", "true"],
    &[("hanging", HANGING)]
);
snapshot!(cp_at_less_than_no_rate, &["cp", "--bwlimit", "-1", "a", "b"]);
snapshot!(cp_with_no_jobs, &["cp", "--jobs", "0", "a", "b"]);
snapshot!(
    a_kubeconfig_without_contexts,
    &["run", "--kubeconfig", "empty", "--", "true"],
    &[("empty", "apiVersion: v1\nkind: Config\n")]
);

const WEB: (&str, &str) = (
    "web.yaml",
    "# The shop\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    spec:\n      \
     securityContext: {runAsUser: 1000, runAsGroup: 2000}\n      containers:\n      - name: web # one\n        image: \
     web:1\n        volumeMounts:\n        - {name: data, mountPath: /data}\n      volumes:\n      - name: data\n        \
     persistentVolumeClaim: {claimName: data}\n",
);
const NO_USER: (&str, &str) = (
    "pod.yaml",
    "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: web\n    image: web:1\n    \
     volumeMounts:\n    - {name: data, mountPath: /data}\n  volumes:\n  - name: data\n    nfs: {server: s, path: /p}\n",
);
const SERVICE: (&str, &str) =
    ("service.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {}\n");

snapshot!(help_volumes_patch, &["volumes", "patch", "--help"]);
snapshot!(volumes_patch, &["volumes", "patch", "-f", "web.yaml", "--by", "chown"], &[WEB]);
snapshot!(
    volumes_patch_dry_run,
    &["volumes", "patch", "-f", ".", "--dry-run", "-o", "json"],
    &[WEB, SERVICE]
);
snapshot!(volumes_patch_without_a_user, &["volumes", "patch", "-f", "pod.yaml", "--write"], &[NO_USER]);
snapshot!(volumes_patch_without_a_workload, &["volumes", "patch", "-f", "service.yaml"], &[SERVICE]);
snapshot!(volumes_patch_in_json, &["volumes", "patch", "-f", "web.yaml", "-o", "json"], &[WEB]);
snapshot!(volumes_init_container, &["volumes", "init-container", "-f", "web.yaml"], &[WEB]);
snapshot!(
    volumes_init_container_without_a_manifest,
    &["volumes", "init-container", "--owner", "1:2", "--mount", "data=/data", "--by", "chown", "-o", "json"]
);
snapshot!(volumes_chown_command, &["volumes", "chown-command", "1000:1000", "/data", "/it's"]);
snapshot!(volumes_chown_command_of_a_name, &["volumes", "chown-command", "www-data", "/data"]);

snapshot!(help_controller_install, &["controller", "install", "--help"]);
snapshot!(controller_manifests, &["controller", "manifests", "--parts", "volumes", "-o", "json"]);
snapshot!(controller_without_a_part_it_needs, &["controller", "manifests", "--parts", "restart-stuck"]);
snapshot!(controller_in_a_wrong_namespace, &["controller", "install", "-n", "Not.A.Name"]);
snapshot!(help_verify_images, &["verify", "images", "--help"]);
snapshot!(verify_volumes, &["verify", "volumes", "-f", "pod.yaml", "-f", "web.yaml"], &[NO_USER, WEB]);
snapshot!(verify_images_offline, &["verify", "images", "--offline", "-f", "web.yaml"], &[WEB]);
snapshot!(verify_no_manifest, &["verify", "volumes", "-f", "none.yaml"]);
