//! `cargo xtask layout`: which functions `identity proxy` runs, so that they lie together in the program.
//!
//! A kernel maps sixteen pages for each that is touched: of a program of 13 MiB whose every part is used a little, a sidecar
//! that runs 1.4 MiB of it had 9 MiB resident. `first.ld` names what ran; a name that no longer fits is put where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{dist, paths, say, sh};

/// Functions of one name (a generic one for each of its types) are taken all when so many bytes they are, or when half of
/// them ran: hashes tell them apart only as long as compiler and dependencies are the same.
const FAMILY: u64 = 8 * 1024;

/// What glibc chooses by the processor, and what chooses.
const BY_PROCESSOR: &str = "    *libc.a:mem*-evex*.o(.text .text.*)\n    *libc.a:mem*-avx*.o(.text .text.*)\n    \
                            *libc.a:str*-evex*.o(.text .text.*)\n    *libc.a:str*-avx2*.o(.text .text.*)\n    \
                            *libm*.a:[es]_*.o(.text .text.*)\n    *crt1.o(.text)\n";

/// `cargo xtask layout`
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let Args {} = args;
    ensure!(
        sh::which(Path::new("qemu-x86_64")).is_some(),
        "qemu-x86_64 is missing: apt-get install qemu-user"
    );
    let program = dist::with_names()?;
    let ran = ran(&program)?;
    let text = script(&program, &ran)?;
    let to = paths::root().join(dist::FIRST);
    fs::write(&to, &text).with_context(|| to.display().to_string())?;
    say::note(format!("{} functions ran: {}", ran.len(), to.display()));
    Ok(ExitCode::SUCCESS)
}

/// The names of all functions that run in the life of a proxy.
fn ran(program: &Path) -> Result<BTreeSet<String>> {
    let home = paths::target().join("layout");
    fs::create_dir_all(&home)?;
    let path = |name: &str| home.join(name);
    let api = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", api.local_addr()?);
    std::thread::spawn(move || api.incoming().flatten().for_each(answer));
    // {"alg":"RS256"}, {"iss":"https://k8s","sub":"system:serviceaccount:a:b","exp":4102444800}
    let subject = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2s4cyIsInN1YiI6InN5c3RlbTpzZXJ2aWNlYWNjb3VudDphOmIiLCJleHAiOjQxMDI0NDQ4MDB9.c2ln";
    fs::write(path("subject"), subject)?;
    let provider = serde_json::json!({
        "type": "oauth2", "token_endpoint": format!("{address}/token"), "grant": "jwt_bearer",
        "subject_token": {"type": "file", "path": path("subject")}, "api": {"base_url": address},
    });
    fs::write(path("config.yaml"), serde_json::json!({"providers": {"reports": provider}}).to_string())?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut proxy = sh::command("qemu-x86_64", ["-d", "in_asm", "-D"]);
    proxy.arg(path("log")).arg(program).arg("--config").arg(path("config.yaml"));
    proxy.args(["identity", "proxy", "--listen", &port.to_string()]);
    let mut proxy = proxy.spawn().context("start qemu-x86_64")?;
    let asked = (0..4).try_for_each(|_| ask(&port.to_string()));
    sh::run(&mut sh::command("kill", ["-TERM", &proxy.id().to_string()]))?;
    proxy.wait()?;
    asked?;
    let log = fs::read(path("log")).context("read what qemu-x86_64 wrote")?;
    let log = String::from_utf8_lossy(&log);
    let names = log.lines().filter_map(|line| line.strip_prefix("IN: ")).map(|name| name.trim().to_owned());
    Ok(names.filter(|name| !name.is_empty()).collect())
}

/// A token, or anything.
fn answer(mut client: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok(count @ 1..) = client.read(&mut buffer) {
            let body = if buffer[..count].starts_with(b"POST") {
                "{\"access_token\":\"t\",\"token_type\":\"Bearer\",\"expires_in\":36000}"
            } else {
                "hello"
            };
            let length = body.len();
            let _ = write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    });
}

/// Two requests on one connection.
fn ask(at: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    let mut stream = loop {
        match TcpStream::connect(at) {
            Ok(stream) => break stream,
            Err(error) => ensure!(Instant::now() < end, "the proxy does not listen: {error}"),
        }
        std::thread::park_timeout(Duration::from_millis(50));
    };
    for _ in 0..2 {
        write!(stream, "GET /reports/x HTTP/1.1\r\nHost: {at}\r\n\r\n")?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 1_024]);
        while !answer.ends_with(b"hello") {
            let count = stream.read(&mut buffer)?;
            ensure!(count > 0, "no answer: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..count]);
        }
    }
    Ok(())
}

/// A function's name without what tells it from others of its name, and the whole of it without what the optimizer adds.
fn names(name: &str) -> (&str, &str) {
    match name.rfind("17h") {
        // The compiler's older way to write names ends with a hash of sixteen digits.
        Some(at) if name.starts_with("_ZN") && name.len() >= at + 20 => (&name[..at + 3], &name[..at + 20]),
        _ => {
            let name = name.split('.').next().unwrap_or(name);
            (name, name)
        }
    }
}

fn script(program: &Path, ran: &BTreeSet<String>) -> Result<String> {
    let listed = sh::output(sh::command("nm", ["-S"]).arg(program))?;
    // Of each family: bytes, bytes that ran, and the members that ran.
    let mut families: BTreeMap<&str, (u64, u64, BTreeSet<&str>)> = BTreeMap::new();
    for line in listed.lines() {
        let [_, size, _, name] = line.splitn(4, ' ').collect::<Vec<_>>()[..] else { continue };
        let (all, own, members) = families.entry(names(name).0).or_default();
        let size = u64::from_str_radix(size, 16).unwrap_or(0);
        *all += size;
        if ran.contains(name) {
            *own += size;
            members.insert(names(name).1);
        }
    }
    let mut text = String::from(
        "/* Written by `cargo xtask layout`: what `identity proxy` runs lies together, and little else is resident. */\n\
         SECTIONS\n{\n  .text.first : {\n    *(.text.main)\n",
    );
    let mut add = |name: &str| writeln!(text, "    *(\".text.{name}*\" \".text.unlikely.{name}*\")");
    for (name, (all, own, members)) in &families {
        if members.is_empty() || !(name.starts_with("_ZN") || name.starts_with("_R")) {
            continue;
        }
        if own * 2 >= *all || *all < FAMILY {
            add(name)?;
        } else {
            for member in members {
                add(member)?;
            }
        }
    }
    for object in objects(ran)? {
        writeln!(text, "    *libc.a:{object}(.text .text.*)")?;
    }
    text.push_str(BY_PROCESSOR);
    text.push_str("  }\n}\nINSERT BEFORE .text;\n");
    Ok(text)
}

/// The parts of glibc that hold what ran.
fn objects(ran: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    let archive = PathBuf::from(sh::output(&mut sh::command("cc", ["-print-file-name=libc.a"]))?.trim());
    let listed = sh::output(sh::command("nm", ["-A"]).arg(&archive))?;
    let defined = listed.lines().filter_map(|line| {
        let (place, rest) = line.split_once(".o:")?;
        let object = place.rsplit(':').next()?;
        let [_, kind, name] = rest.splitn(3, ' ').collect::<Vec<_>>()[..] else { return None };
        ("tTwWi".contains(kind) && ran.contains(name)).then(|| format!("{object}.o"))
    });
    Ok(defined.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_a_name_without_its_hash() {
        let hashed = "_ZN4core3ptr4drop$LT$a..B$GT$17h0123456789abcdefE";
        let family = "_ZN4core3ptr4drop$LT$a..B$GT$17h";
        assert_eq!(names(hashed), (family, hashed));
        assert_eq!(names(&format!("{hashed}.llvm.12")), (family, hashed));
        assert_eq!(names("_RNvMNtCs_4core3str.123").0, "_RNvMNtCs_4core3str");
        assert_eq!(names("memcpy").0, "memcpy");
    }
}
