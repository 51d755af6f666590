//! Registries in the cluster that ask for a password or for a token: the one of the distribution project, with images that
//! no node has.

use crate::{Outcome, get, kubectl, kubectl_command};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The host in names of images of the registry that asks for a password; the testbed's nodes know it.
pub const HOST: &str = "registry.test";
/// The same of the registry that asks for a token.
pub const TOKEN_HOST: &str = "token-registry.test";
const NAMESPACE: &str = "e2e-registry";

/// Users and their passwords, as bcrypt hashes.
const USERS: &str = "a1:$2a$04$ULCcFqBf5rGE0DXBaYdoQeM.01Qc3/NBjXvYfEyCpl1Ulqd1YfmTu\n\
    a2:$2a$04$e4RnmNYkO8JPYjOzZ79Waej5py0I0SNJ2mjMCCg/ejU/ZMKP.Y11i\n\
    b1:$2a$04$JV0.ZXTeh.VcYZPC8Jt/2Ouyo5x7rHEjI9RzcGitEzMF/ApmG6HRC\n\
    push:$2a$04$KbDDiIEh08DONgBtDtuNcuFZ/xbOc6lkkkoNNAMw9Pl.t1cLuybHG\n";

/// A user of the registry and its password.
pub const A1: (&str, &str) = ("a1", "pull-a-1");
/// Another one.
pub const A2: (&str, &str) = ("a2", "pull-a-2");
/// A third one.
pub const B1: (&str, &str) = ("b1", "pull-b-1");

/// A registry, and a way to it from here.
pub struct Registry {
    host: &'static str,
    /// Lives as long as this program, and so does what it forwards.
    _forward: Child,
    address: String,
    layer: (String, PathBuf, u64),
    next: AtomicU32,
}

/// The registry that asks for a password.
pub fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        Registry::start("registry", HOST, "10.96.0.50", &["serve", "/etc/registry/config.yml"])
    })
}

/// The registry that asks for a token, which it gives for a password. What is in `of-USER/…` only that user may pull.
pub fn token_registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    let args = ["serve-with-tokens", "/etc/registry/htpasswd"];
    REGISTRY.get_or_init(|| Registry::start("token-registry", TOKEN_HOST, "10.96.0.51", &args))
}

impl Registry {
    /// `service` is the address of the Service.
    fn start(name: &str, host: &'static str, service: &str, args: &[&str]) -> Self {
        let labels = json!({"app": name});
        let config = "version: 0.1\nstorage: {inmemory: {}}\nhttp: {addr: ':5000'}\nlog: {level: warn}\nauth:\n  htpasswd: \
                      {realm: registry.test, path: /etc/registry/htpasswd}\n";
        let container = json!({
            "name": "registry", "image": "docker.io/library/registry:3", "args": args,
            "volumeMounts": [{"name": "config", "mountPath": "/etc/registry"}], "ports": [{"containerPort": 5000}],
            "readinessProbe": {"tcpSocket": {"port": 5000}, "periodSeconds": 1},
        });
        crate::pods::apply(&[
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
            json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "registry", "namespace": NAMESPACE},
                "data": {"config.yml": config, "htpasswd": USERS},
            }),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
                "spec": {
                    "containers": [container], "volumes": [{"name": "config", "configMap": {"name": "registry"}}],
                    "terminationGracePeriodSeconds": 0,
                },
            }),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {"selector": labels, "clusterIP": service, "ports": [{"port": 5000}]},
            }),
        ]);
        let pod = format!("pod/{name}");
        crate::pods::wait(NAMESPACE, &pod, "condition=Ready");
        // It ends with this program: nobody drops what is static, but the pipe closes.
        let kubectl = kubectl_command(&["port-forward", "-n", NAMESPACE, &pod, ":5000"]);
        let mut command = Command::new("sh");
        command
            .args(["-c", "\"$@\" & read -r _; kill $!", "sh"])
            .arg(kubectl.get_program())
            .args(kubectl.get_args());
        command.envs(kubectl.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut forward =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (mut line, mut output) = (String::new(), BufReader::new(forward.stdout.take().unwrap()));
        output.read_line(&mut line).unwrap();
        // It prints each connection, and ends when nobody reads that.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let address = line.split(' ').find(|word| word.starts_with("127.")).unwrap().to_owned();
        Self { host, _forward: forward, address, layer: layer(), next: AtomicU32::new(0) }
    }

    /// Pushes an image that no node has; returns its name. Its program is `/app`, which needs no shell.
    pub fn push(&self, repository: &str) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{}-{number}", std::process::id());
        let (digest, path, size) = &self.layer;
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
            "config": {"Entrypoint": ["/app"], "User": "65532:65532", "Labels": {"fresh": format!("{repository}:{tag}")}},
            "rootfs": {"type": "layers", "diff_ids": [digest]},
        });
        let folder = tempfile::tempdir().unwrap();
        let config_path = folder.path().join("config");
        std::fs::write(&config_path, config.to_string()).unwrap();
        let config_digest = sha256(&config_path);
        self.blob(repository, digest, path);
        self.blob(repository, &config_digest, &config_path);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest,
                "size": config.to_string().len(),
            },
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}],
        });
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.address);
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
        self.curl(repository, &["-X", "PUT", "-H", kind, "--data-binary", &manifest.to_string(), &url]);
        format!("{}/{repository}:{tag}", self.host)
    }

    /// The name of an image by which it is reached from here.
    pub fn here(&self, image: &str) -> String {
        image.replace(self.host, &self.address)
    }

    fn blob(&self, repository: &str, digest: &str, path: &std::path::Path) {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let head = self.curl(repository, &["-X", "POST", "-D", "-", "-o", "/dev/null", &url]);
        let location = head
            .lines()
            .find_map(|line| {
                line.to_lowercase().starts_with("location:").then(|| line[9..].trim().to_owned())
            })
            .unwrap();
        // The registry names itself as it was named to it.
        let location = match location.starts_with('/') {
            true => format!("http://{}{location}", self.address),
            false => location,
        };
        let separator = if location.contains('?') { '&' } else { '?' };
        let kind = "Content-Type: application/octet-stream";
        let data = format!("@{}", path.display());
        let url = format!("{location}{separator}digest={digest}");
        self.curl(repository, &["-X", "PUT", "-H", kind, "--data-binary", &data, &url]);
    }

    /// As the user that may push.
    fn curl(&self, repository: &str, args: &[&str]) -> String {
        let login = ["-u", "push:push"].map(str::to_owned);
        if self.host == HOST {
            return curl(&login, args);
        }
        let scope = format!("repository:{repository}:pull,push");
        let url = format!("http://{}/auth/token?service=registry.test&scope={scope}", self.address);
        let answer: Value = serde_json::from_str(&curl(&login, &[&url])).unwrap();
        curl(&["-H".to_owned(), format!("Authorization: Bearer {}", answer["token"].as_str().unwrap())], args)
    }
}

fn curl(login: &[String], args: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail-with-body", "--noproxy", "*"]).args(login).args(args);
    Outcome::of(&mut command).ok().stdout
}

fn sha256(path: &std::path::Path) -> String {
    let sum = Outcome::of(Command::new("sha256sum").arg(path)).ok().stdout;
    format!("sha256:{}", sum.split(' ').next().unwrap())
}

/// The layer of the image that stands for images without a shell: its digest, file and size.
fn layer() -> (String, PathBuf, u64) {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let folder = std::env::temp_dir().join(format!("postern-e2e-layer-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let archive = root.join("target/images/scratch-static.tar");
    Outcome::of(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&folder)).ok();
    let text = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&text).unwrap();
    let path = folder.join(manifest[0]["Layers"][0].as_str().unwrap());
    let size = path.metadata().unwrap().len();
    (sha256(&path), path, size)
}

/// The data of a pull Secret for the registry that asks for a password, as `kubectl create secret docker-registry` makes
/// it.
pub fn docker_config(login: (&str, &str)) -> String {
    docker_config_of(HOST, login)
}

/// The same for any registry.
pub fn docker_config_of(host: &str, (user, password): (&str, &str)) -> String {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    json!({"auths": {host: {"username": user, "password": password, "auth": auth}}}).to_string()
}

/// A pull Secret.
pub fn pull_secret(namespace: &str, name: &str, login: (&str, &str)) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": namespace}, "stringData": {".dockerconfigjson": docker_config(login)},
    })
}

/// The names in `imagePullSecrets` of a `ServiceAccount`, in order.
pub fn named_by(namespace: &str, account: &str) -> Vec<String> {
    let found = get(&["-n", namespace, &format!("serviceaccount/{account}")]);
    let list = found["imagePullSecrets"].as_array().into_iter().flatten();
    list.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

/// The copies of pull Secrets in a namespace.
pub fn copies(namespace: &str) -> Vec<Value> {
    let list = kubectl(&[
        "get",
        "secrets",
        "-n",
        namespace,
        "-l",
        "postern.dev/pull-secret-copy=true",
        "-o",
        "json",
    ]);
    list.ok().json()["items"].as_array().unwrap().clone()
}
