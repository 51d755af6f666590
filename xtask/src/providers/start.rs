//! Keycloak and Dex on the cluster's node, behind TLS of a CA of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{links, sources};
use crate::cluster::Beside;
use crate::say::{self, Progress};
use crate::sh;

const KEYCLOAK: u16 = 9443;
/// Without TLS, for its own administration command.
const ADMIN: u16 = 9080;
const DEX: u16 = 9444;
/// Of a server that lives as long as a test cluster.
const PASSWORD: &str = "admin";
const JAVA: &str = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xms96m -Xmx256m";
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts them, or waits until those that run answer.
pub(super) fn up() -> Result<()> {
    let progress = Progress::begin();
    let node = Beside::first_node();
    let dir = links().join("run");
    fs::create_dir_all(&dir)?;
    certificates(&dir, node.address())?;
    let server = |path: &str| dir.join(path).display().to_string();
    let (certificate, key) = (server("server.crt"), server("server.key"));

    if !node.runs("keycloak").0 {
        keycloak(&node, &dir, &certificate, &key)?;
    }
    let dex = [
        format!("-issuer=https://{}:{DEX}/dex", node.address()),
        format!("-cert={certificate}"),
        format!("-key={key}"),
        format!("-upstream-ca={}", node.ca()),
    ];
    node.ensure("dex", &links().join("dex/dex"), &dex, &[])?;
    let issuers = [
        ("dex", format!("https://{}:{DEX}/dex", node.address())),
        ("keycloak", format!("https://{}:{KEYCLOAK}/realms/demo", node.address())),
    ];
    for (name, issuer) in issuers {
        await_issuer(&node, name, &issuer, &server("ca.crt"))?;
        progress.step(format!("{name} answers: {issuer}"));
    }
    say::result(format!("their certificates' authority: {}", server("ca.crt")));
    Ok(())
}

pub(super) fn down() {
    let node = Beside::first_node();
    for name in ["keycloak", "dex"] {
        node.stop(name);
    }
}

/// A CA and a certificate for the node's address.
fn certificates(dir: &Path, address: &str) -> Result<()> {
    if dir.join("server.crt").exists() {
        return Ok(());
    }
    let extensions = format!(
        "[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
         [server]\nsubjectAltName=IP:{address}\nbasicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n\
         extendedKeyUsage=serverAuth\n[req]\ndistinguished_name=name\n[name]\n"
    );
    fs::write(dir.join("openssl.conf"), extensions)?;
    let new = |name: &str, common: &str, more: &[&str]| {
        let mut command = sh::command("openssl", ["req", "-config", "openssl.conf", "-newkey", "ec"]);
        command.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", &format!("/CN={common}")]);
        command.args(["-keyout", &format!("{name}.key")]).args(more).current_dir(dir);
        sh::run(&mut command)
    };
    new(
        "ca",
        "providers of the test cluster",
        &["-x509", "-days", "30", "-extensions", "ca", "-out", "ca.crt"],
    )?;
    new("server", "providers", &["-out", "server.csr"])?;
    let mut sign =
        sh::command("openssl", ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key"]);
    sign.args(["-CAcreateserial", "-days", "30", "-extfile", "openssl.conf", "-extensions", "server"]);
    sh::run(sign.args(["-out", "server.crt"]).current_dir(dir))
}

/// A copy of its own, as it writes below its home; the realms of the tests and of the book are imported.
fn keycloak(node: &Beside, dir: &Path, certificate: &str, key: &str) -> Result<()> {
    let home = dir.join("keycloak");
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    let copied: PathBuf = fs::canonicalize(links().join("keycloak"))?;
    // Links spare 190 MB, where the cache is on the same disk.
    let copy = |how: &str| sh::run(sh::command("cp", [how]).arg(&copied).arg(&home));
    copy("-al").or_else(|_| {
        let _ = fs::remove_dir_all(&home); // half a copy
        copy("-a")
    })?;
    let import = home.join("data/import");
    fs::create_dir_all(&import)?;
    for realm in ["demo.json", "e2e.json"] {
        fs::copy(sources("keycloak").join(realm), import.join(realm)).with_context(|| realm.to_owned())?;
    }
    let address = node.address();
    let args = [
        "start".to_owned(),
        "--optimized".to_owned(),
        "--import-realm".to_owned(),
        "--cache=local".to_owned(),
        format!("--hostname=https://{address}:{KEYCLOAK}"),
        format!("--http-host={address}"),
        format!("--https-port={KEYCLOAK}"),
        format!("--https-certificate-file={certificate}"),
        format!("--https-certificate-key-file={key}"),
        "--http-enabled=true".to_owned(),
        format!("--http-port={ADMIN}"),
        format!("--truststore-paths={}", node.ca()),
    ];
    let env = [
        ("JAVA_OPTS", JAVA),
        ("KC_BOOTSTRAP_ADMIN_USERNAME", "admin"),
        ("KC_BOOTSTRAP_ADMIN_PASSWORD", PASSWORD),
    ];
    node.ensure("keycloak", &home.join("bin/kc.sh"), &args, &env)?;
    // Its administration command, as who administers it has it: on the node, and logged in.
    let own = home.join("bin/kcadm.sh");
    let login = format!(
        "--no-config --server http://{address}:{ADMIN} --realm master --user admin --password {PASSWORD}"
    );
    let enter = node.command(&own.display().to_string());
    let enter = [enter.get_program().to_owned()].into_iter().chain(enter.get_args().map(ToOwned::to_owned));
    let enter: Vec<String> = enter.map(|word| word.to_string_lossy().into_owned()).collect();
    let script = format!("#!/bin/sh\nexec {} \"$@\" {login}\n", enter.join(" "));
    let path = node.bin("kcadm.sh");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn await_issuer(node: &Beside, name: &str, issuer: &str, ca: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let document = format!("{issuer}/.well-known/openid-configuration");
    loop {
        let mut ask = node.command("curl");
        ask.args(["--silent", "--fail", "--max-time", "5", "--cacert", ca, &document]);
        if sh::run(&mut ask).is_ok() {
            return Ok(());
        }
        let (runs, log) = node.runs(name);
        ensure!(runs, "{name} ended; see {}", log.display());
        ensure!(Instant::now() < end, "{name} does not answer at {document}; see {}", log.display());
        std::thread::sleep(Duration::from_millis(250));
    }
}
