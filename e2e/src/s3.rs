//! versitygw: S3 over a directory, in which a test can look.

use crate::scene::Running;
use crate::servers::{self, free_port};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// One with a bucket, until it is dropped.
pub struct S3 {
    /// Its port on loopback.
    pub port: u16,
    folder: tempfile::TempDir,
    _server: Running,
}

impl S3 {
    /// Its one bucket.
    pub const BUCKET: &str = "first-bucket";
    /// Its one user.
    pub const ACCESS_KEY: &str = "e2e-user";
    /// That one's key.
    pub const SECRET_KEY: &str = "e2e-secret-Zq7/hJ2+w9";

    /// One that answers; `None` where there is none to start.
    pub fn start() -> Option<Self> {
        let program = servers::installed("versitygw")?.join("versitygw");
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(folder.path().join("data").join(Self::BUCKET)).unwrap();
        let mut command = Command::new(program);
        command
            .args(["--port", &format!("127.0.0.1:{port}"), "--quiet", "posix"])
            .arg(folder.path().join("data"));
        command.env("ROOT_ACCESS_KEY", Self::ACCESS_KEY).env("ROOT_SECRET_KEY", Self::SECRET_KEY);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Running(command.spawn().unwrap());
        crate::eventually("versitygw answers", Duration::from_secs(30), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(Self { port, folder, _server: server })
    }

    /// Where an object's content lies.
    pub fn object(&self, key: &str) -> PathBuf {
        self.folder.path().join("data").join(Self::BUCKET).join(key)
    }

    /// How many uploads are unfinished.
    pub fn unfinished(&self) -> usize {
        let count = |path: &Path| std::fs::read_dir(path).map_or(0, |entries| entries.flatten().count());
        let uploads = self.object(".sgwtmp/multipart");
        let objects =
            std::fs::read_dir(uploads).map(|all| all.flatten().map(|entry| entry.path()).collect::<Vec<_>>());
        objects.unwrap_or_default().iter().map(|object| count(object)).sum()
    }

    /// The program with this server and its user, reached at a port.
    pub fn postern(&self, port: u16) -> Command {
        let mut command = crate::postern();
        command
            .env("AWS_ENDPOINT_URL_S3", format!("http://127.0.0.1:{port}"))
            .env("AWS_ACCESS_KEY_ID", Self::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", Self::SECRET_KEY)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("XDG_STATE_HOME", self.folder.path().join("state"));
        command
    }
}
