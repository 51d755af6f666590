//! A provider that does as it is told, a home with a configuration and a subject token, and `postern identity` in it.

use crate::provider::{Provider, Trust, unsigned};
use crate::{Outcome, kubectl, postern};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// A provider, and a home with a configuration and a subject token.
pub struct Scene {
    /// The provider.
    pub provider: Provider,
    /// Where everything lies.
    pub home: tempfile::TempDir,
}

impl Scene {
    /// A provider named `reports`, with these settings besides.
    pub fn new(more: &Value) -> Self {
        let (provider, home) = (Provider::start(), tempfile::tempdir().unwrap());
        let scene = Self { provider, home };
        let mut entry = json!({
            "type": "oauth2", "token_endpoint": format!("{}/token", scene.provider.address),
            "client_id": "runner", "grant": "jwt_bearer",
            "subject_token": {"type": "kubernetes_sa", "path": scene.path("token")},
            "api": {"base_url": format!("{}/v1", scene.provider.address)},
        });
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scene.configure(&json!({"reports": entry}));
        scene.rotate("first");
        scene
    }

    /// A file of the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a configuration of these providers.
    pub fn configure(&self, providers: &Value) {
        std::fs::write(self.path("config.yaml"), json!({"providers": providers}).to_string()).unwrap();
    }

    /// Replaces the token as the kubelet does: whole.
    pub fn rotate(&self, jti: &str) {
        self.replace(&unsigned(jti, 3_600));
    }

    /// The same, and from here on the provider takes only this token and the one before it.
    pub fn rotate_strictly(&self, jti: &str) {
        let token = unsigned(jti, 3_600);
        self.provider.take_only(&token); // first: it may be read and sent as soon as it is there
        self.replace(&token);
    }

    fn replace(&self, token: &str) {
        std::fs::write(self.path("new"), token).unwrap();
        std::fs::rename(self.path("new"), self.path("token")).unwrap();
    }

    /// `postern identity ARGS`, not yet started.
    pub fn postern(&self, args: &[&str]) -> Command {
        let mut command = postern();
        command
            .env("POSTERN_CONFIG", self.path("config.yaml"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("TMPDIR", self.home.path())
            .arg("identity")
            .args(args);
        command
    }

    /// The same, run to its end.
    pub fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.postern(args))
    }

    /// `postern identity token`.
    pub fn token(&self) -> Outcome {
        self.run(&["token"])
    }
}

/// Sends SIGTERM.
pub fn terminate(process: &Child) {
    Command::new("kill").arg(process.id().to_string()).status().unwrap();
}

/// A process that ends with its test, however that ends.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Ends it as a kubelet does.
    pub fn stop(mut self) {
        terminate(&self.0);
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

/// A proxy of the scene's provider, and where it listens.
pub fn proxy(scene: &Scene, more: &[&str]) -> (Running, String) {
    let (process, address, _) = proxy_with_log(scene, more);
    (process, address)
}

/// The same, and what it says.
pub fn proxy_with_log(scene: &Scene, more: &[&str]) -> (Running, String, Arc<Mutex<String>>) {
    let mut args = vec!["proxy", "--listen", "127.0.0.1:0"];
    args.extend_from_slice(more);
    let mut process = scene.postern(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address =
        line.trim().strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}")).to_owned();
    let log = Arc::new(Mutex::new(line));
    let kept = log.clone();
    std::thread::spawn(move || {
        for line in said.lines().map_while(Result::ok) {
            kept.lock().unwrap().push_str(&format!("{line}\n"));
        }
    });
    (Running(process), address, log)
}

/// One raw request; status and what follows the head.
pub fn ask(address: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// One GET.
pub fn fetch(address: &str, path: &str) -> (u16, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"))
}

/// What the cluster says of its issuer.
pub fn trust(audience: &str) -> Trust {
    let raw = |path: &str| serde_json::from_str(&kubectl(&["get", "--raw", path]).ok().stdout).unwrap();
    let discovery: Value = raw("/.well-known/openid-configuration");
    Trust {
        issuer: discovery["issuer"].as_str().unwrap().to_owned(),
        keys: raw("/openid/v1/jwks"),
        audience: audience.to_owned(),
    }
}
