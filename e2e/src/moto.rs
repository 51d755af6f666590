//! moto, which answers as AWS does in shape, though it checks next to nothing: <https://docs.getmoto.org>.

use crate::scene::Running;
use crate::servers::{self, free_port};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// One, until it is dropped.
pub struct Moto {
    /// Its address.
    pub address: String,
    /// A Python that has the AWS SDK.
    pub python: PathBuf,
    _server: Running,
}

impl Moto {
    /// One that answers; `None` where there is none to start.
    pub fn start() -> Option<Self> {
        let bin = servers::installed("moto")?.join("bin");
        let port = free_port();
        let mut command = Command::new(bin.join("moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Running(command.spawn().unwrap());
        crate::eventually("moto answers", Duration::from_secs(60), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(Self {
            address: format!("http://127.0.0.1:{port}"),
            python: bin.join("python"),
            _server: server,
        })
    }
}
