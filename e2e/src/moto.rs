//! moto, which answers as AWS does in shape, though it checks next to nothing: <https://docs.getmoto.org>.

use crate::scene::Running;
use crate::servers;
use std::net::{TcpListener, TcpStream};
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

/// A port of loopback that nobody listens at.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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
