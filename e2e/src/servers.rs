//! Real servers that tests start, as `cargo xtask providers` gets them.

use std::path::PathBuf;

/// The folder of one. Where its registry could not be reached, a test goes without and says so.
pub fn installed(name: &str) -> Option<PathBuf> {
    let dir = crate::root().join("target/testbed/providers").join(name);
    if dir.exists() {
        return Some(dir);
    }
    eprintln!("skipped: {name} is not there (`cargo xtask providers get`)");
    None
}

/// A port of loopback that nobody listens at.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Keycloak and Dex on the testbed's node, which trust its issuer.
pub struct Servers {
    /// Who vouches for them.
    pub ca: PathBuf,
}

impl Servers {
    /// Where Keycloak's realm for the tests is.
    pub const KEYCLOAK: &str = "https://10.245.0.1:9443/realms/e2e";
    /// Where Dex is.
    pub const DEX: &str = "https://10.245.0.1:9444/dex";

    /// Both, started unless they run; `None` where there is one that could not be had. They go with the cluster.
    pub fn up() -> Option<Self> {
        for name in ["keycloak", "dex"] {
            installed(name)?;
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = std::process::Command::new(cargo);
        command
            .args(["xtask", "providers", "up"])
            .current_dir(crate::root())
            .stdin(std::process::Stdio::null());
        crate::Outcome::of(&mut command).ok();
        Some(Self { ca: crate::root().join("target/testbed/providers/run/ca.crt") })
    }
}
