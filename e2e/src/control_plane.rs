//! An API server and etcd of a test's own, which it may stop as it likes; no nodes. Their programs and keys are the
//! testbed's.

use crate::{Outcome, kubeconfig_by_way_of, kubectl_command, root, with_stdin};
use serde_json::{Value, json};
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A control plane that ends with the test.
pub struct ControlPlane {
    folder: tempfile::TempDir,
    kubeconfig: tempfile::NamedTempFile,
    port: u16,
    etcd_port: u16,
    etcd: Child,
    api_server: Child,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        end(&mut self.api_server);
        end(&mut self.etcd);
    }
}

/// Kills a process, if it lives.
pub fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program(name: &str) -> Command {
    Command::new(root().join("target/testbed/bin").join(name))
}

/// Starts a program with its output in a file.
fn start(command: &mut Command, log: &Path) -> Child {
    let file = File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap()
}

impl ControlPlane {
    /// Starts it and waits until it answers.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, etcd_port) = (free_port(), free_port());
        let (client, peer) =
            (format!("http://127.0.0.1:{etcd_port}"), format!("http://127.0.0.1:{}", free_port()));
        let config = json!({
            "name": "e2e", "data-dir": folder.path().join("etcd"), "log-level": "warn", "unsafe-no-fsync": true,
            "listen-client-urls": client, "advertise-client-urls": client, "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer, "initial-cluster": format!("e2e={peer}"),
        });
        let path = folder.path().join("etcd.yaml");
        std::fs::write(&path, config.to_string()).unwrap();
        let etcd = start(program("etcd").arg(path), &folder.path().join("etcd.log"));
        let kubeconfig = kubeconfig_by_way_of(&format!("https://127.0.0.1:{port}"));
        let api_server = api_server(folder.path(), port, etcd_port);
        let plane = Self { folder, kubeconfig, port, etcd_port, etcd, api_server };
        plane.wait();
        plane
    }

    /// Its kubeconfig, of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        self.kubeconfig.path()
    }

    /// A file for the log of a program.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Starts a program of the test with its output in [`Self::log`].
    pub fn spawn(&self, command: &mut Command, name: &str) -> Child {
        start(command, &self.log(name))
    }

    /// Kills the API server without a word.
    pub fn kill_api_server(&mut self) {
        end(&mut self.api_server);
    }

    /// Starts it again and waits until it answers.
    pub fn start_api_server(&mut self) {
        self.api_server = api_server(self.folder.path(), self.port, self.etcd_port);
        self.wait();
    }

    fn wait(&self) {
        crate::eventually("the API server answers", Duration::from_secs(90), || {
            self.kubectl(&["get", "--raw", "/readyz"]).code == 0
        });
    }

    /// kubectl.
    pub fn kubectl(&self, args: &[&str]) -> Outcome {
        Outcome::of(kubectl_command(args).env("KUBECONFIG", self.kubeconfig()))
    }

    /// `kubectl apply`.
    pub fn apply(&self, list: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": list});
        let mut command = kubectl_command(&["apply", "-f", "-"]);
        with_stdin(command.env("KUBECONFIG", self.kubeconfig()), list.to_string().as_bytes()).ok();
    }

    /// The items of a list.
    pub fn list(&self, args: &[&str]) -> Vec<Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend_from_slice(args);
        self.kubectl(&all).ok().json()["items"].as_array().unwrap().clone()
    }
}

fn api_server(folder: &Path, port: u16, etcd_port: u16) -> Child {
    let pki = |name: &str| root().join("target/testbed/pki").join(name).display().to_string();
    let flags = [
        ("etcd-servers", format!("http://127.0.0.1:{etcd_port}")),
        ("bind-address", "127.0.0.1".to_owned()),
        ("advertise-address", "127.0.0.1".to_owned()),
        ("endpoint-reconciler-type", "none".to_owned()),
        ("secure-port", port.to_string()),
        ("client-ca-file", pki("ca.crt")),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
        ("authorization-mode", "RBAC".to_owned()),
        ("service-cluster-ip-range", "10.97.0.0/16".to_owned()),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
    ];
    let args = flags.map(|(name, value)| format!("--{name}={value}"));
    start(program("kube-apiserver").args(args), &folder.join("kube-apiserver.log"))
}
