//! `postern identity` against what people use in its place: a program in Node that reads its cached token, and nginx that
//! adds a header.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};

use super::measure::{self, Streams, median};
use super::report::{Row, Wanted};
use crate::say::Progress;
use crate::sh;
use crate::subject::Subject;
use crate::test;

const API: u16 = 19_990;
const NGINX: u16 = 19_991;
const POSTERN: u16 = 19_992;
/// Connections that ask as fast as they are answered.
const CONNECTIONS: usize = 64;
/// Streams that stay open while requests pass.
const STREAMS: usize = 1_000;

/// A process that ends with the bench.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Servers share one core; who asks has the other.
fn on_core(core: &str, program: &str, args: &[&str]) -> Command {
    let mut command = sh::command("taskset", ["-c", core, program]);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

pub(super) fn bench(runs: usize, write: bool) -> Result<()> {
    let progress = Progress::begin();
    for program in ["nginx", "wrk", "node", "taskset"] {
        ensure!(
            sh::which(Path::new(program)).is_some(),
            "{program} is missing: apt-get install nginx-light wrk nodejs util-linux"
        );
    }
    let subject = Subject::ready()?;
    let home = tempfile_dir()?;
    let result = measure_all(runs, write, progress, &subject, &home);
    let _ = fs::remove_dir_all(&home);
    result
}

fn tempfile_dir() -> Result<std::path::PathBuf> {
    let path = crate::paths::target().join(format!("bench-identity-{}", std::process::id()));
    fs::create_dir_all(&path)?;
    Ok(path)
}

fn measure_all(runs: usize, write: bool, progress: Progress, subject: &Subject, home: &Path) -> Result<()> {
    let config = prepare(home)?;
    let postern = subject.postern.to_string_lossy().into_owned();
    let text = |name: &str| home.join(name).to_string_lossy().into_owned();
    let _api = Server(on_core("0", "nginx", &["-c", &text("api.conf")]).spawn()?);
    let _nginx = Server(on_core("1", "nginx", &["-c", &text("nginx.conf")]).spawn()?);
    await_port(API)?;
    await_port(NGINX)?;
    let mut rows = Vec::new();

    rows.extend(cached(runs, subject, home, &config)?);
    rows.push(Row::alone("cached read in a process: p99", "µs", cached_read()?, Wanted::AtMost(50.0)));
    progress.step("a cached token");

    let listen = format!("127.0.0.1:{POSTERN}");
    let args = ["--config", &config, "identity", "proxy", "--listen", &listen];
    let proxy = Server(on_core("1", &postern, &args).spawn()?);
    await_port(POSTERN)?;
    let idle = resident(&proxy)?;
    let (mut pairs, mut added) = (Vec::new(), Vec::new());
    for turn in 0..=runs {
        let pair = (load(NGINX, "2s")?.0, load(POSTERN, "2s")?.0);
        let late = p99(POSTERN)? - p99(NGINX)?;
        if turn > 0 {
            pairs.push(pair);
            added.push(late * 1e3);
        }
    }
    let ratio = median(pairs.iter().map(|(theirs, ours)| ours / theirs));
    let values = (median(pairs.iter().map(|pair| pair.0)), median(pairs.iter().map(|pair| pair.1)));
    rows.push(Row::against(
        "nginx",
        "requests a second, 64 connections",
        "/s",
        values,
        ratio,
        Wanted::AtLeast(0.7),
    ));
    rows.push(Row::alone("added to nginx's p99 at 1,000 a second", "ms", median(added), Wanted::AtMost(0.3)));
    progress.step("the proxy's rate");

    let name = "proxy's memory, 1 M requests, 1,000 streams";
    rows.push(Row::alone(name, "MiB", memory(&proxy)?, Wanted::AtMost(32.0)));
    rows.push(Row::alone("proxy's memory, just started", "MiB", idle, Wanted::AtMost(12.0)));
    progress.step("the proxy's memory");

    let method = format!(
        "How it is measured: a token of the cache as a process, by turns with a Node program that reads its own cached token
({runs} pairs). A cached read: a million by eight tasks at once on two threads. The proxy and nginx (which adds a static header) share one core; the API (nginx) and who asks (wrk) share
the other; by turns, 2 s each. The p99 is of 1,000 requests a second on one connection for 2 s each. Memory is what is
resident after a million requests, while {STREAMS} answers are still open.

The limit of the memory: hyper keeps four buffers of 8 KiB for each proxied stream, two at either side, and has no
setting for less. 1,000 streams thus take 32 MiB in addition to the 11 MiB of the program
([why hyper](decisions/0023-the-identity-proxy-uses-hyper.md))."
    );
    let command = format!("cargo xtask bench identity --runs {runs}");
    super::conclude(&super::versions(subject)?, "Identity", &command, &rows, &method, write, progress)
}

/// Configurations, a subject token and Node's cached token.
fn prepare(home: &Path) -> Result<String> {
    let here = home.display();
    let head = |name: &str| {
        format!(
            "worker_processes 1; daemon off; pid {here}/{name}.pid; error_log {here}/{name}.err;\n\
             events {{ worker_connections 4096; }}\nhttp {{ access_log off; keepalive_requests 1000000000;\n"
        )
    };
    let api = format!(
        "{}server {{ listen 127.0.0.1:{API};\nlocation / {{ return 200 \"hello, this is the api\\n\"; }}\n\
         location = /token {{ return 200 '{{\"access_token\":\"token-1\",\"token_type\":\"Bearer\",\"expires_in\":36000}}'; }} }} }}\n",
        head("api")
    );
    let nginx = format!(
        "{}upstream api {{ server 127.0.0.1:{API}; keepalive 128; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:{NGINX}; location /reports/ {{ proxy_pass http://api/v1/; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Authorization \"Bearer token-1\"; }} }} }}\n",
        head("nginx")
    );
    fs::write(home.join("api.conf"), api)?;
    fs::write(home.join("nginx.conf"), nginx)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    // {"alg":"RS256"} and claims; nobody looks at the signature.
    let claims =
        format!("{{\"iss\":\"https://k8s\",\"sub\":\"system:serviceaccount:a:b\",\"exp\":{}}}", now + 36_000);
    fs::write(home.join("subject"), format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", base64url(claims.as_bytes())))?;
    let path = home.join("config.yaml");
    fs::write(
        &path,
        format!(
            "providers:\n  reports:\n    type: oauth2\n    token_endpoint: http://127.0.0.1:{API}/token\n    grant: jwt_bearer\n    \
             cache: disk\n    subject_token: {{type: file, path: {here}/subject}}\n    \
             api: {{base_url: 'http://127.0.0.1:{API}/v1'}}\n  streams:\n    type: oauth2\n    \
             token_endpoint: http://127.0.0.1:{API}/token\n    grant: jwt_bearer\n    \
             subject_token: {{type: file, path: {here}/subject}}\n    api: {{base_url: 'http://127.0.0.1:{}'}}\n",
            API + 5
        ),
    )?;
    let later = (now + 36_000) * 1_000;
    fs::write(home.join("cached.json"), format!("{{\"accessToken\":\"token-1\",\"expiresAt\":{later}}}"))?;
    fs::write(
        home.join("cached.js"),
        format!(
            "const token = JSON.parse(require('fs').readFileSync('{here}/cached.json'));\n\
             if (token.expiresAt > Date.now()) console.log(token.accessToken); else process.exit(1);\n"
        ),
    )?;
    Ok(path.to_string_lossy().into_owned())
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

fn await_port(port: u16) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(Instant::now() < end, "nothing listens on port {port}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

/// A token that is on disk, as a process.
fn cached(runs: usize, subject: &Subject, home: &Path, config: &str) -> Result<Vec<Row>> {
    let cache = home.join("cache");
    let ours = || {
        let mut command = Command::new(&subject.postern);
        command.args(["--config", config, "identity", "token", "reports"]).env("XDG_CACHE_HOME", &cache);
        command
    };
    let script = home.join("cached.js");
    let theirs = || sh::command("node", [&script]);
    let streams = Streams { stdin: None, stdout: "token-1\n".len() as u64 };
    let mut pairs = Vec::new();
    for turn in 0..=runs.max(21) {
        let pair = (measure::run(&mut theirs(), streams)?, measure::run(&mut ours(), streams)?);
        if turn > 0 {
            pairs.push(pair);
        }
    }
    let ratio = median(pairs.iter().map(|(theirs, ours)| ours.wall / theirs.wall));
    let (node, own) = (
        median(pairs.iter().map(|pair| pair.0.wall * 1e3)),
        median(pairs.iter().map(|pair| pair.1.wall * 1e3)),
    );
    Ok(vec![
        Row::against(
            "Node",
            "cached token, as a process: wall",
            "ms",
            (node, own),
            ratio,
            Wanted::AtMost(0.1),
        ),
        Row::alone("cached token, as a process: wall", "ms", own, Wanted::AtMost(5.0)),
    ])
}

/// The 99th percentile of reads of a credential that a process holds, in microseconds.
fn cached_read() -> Result<f64> {
    let mut example =
        test::cargo(["run", "--quiet", "--release", "-p", "postern-identity", "--example", "cached_read"]);
    let said = sh::output(&mut example)?;
    let late: f64 = said.split_whitespace().nth(1).context("cached_read printed no percentile")?.parse()?;
    Ok(late / 1e3)
}

/// Requests a second, and how many there were.
fn load(port: u16, time: &str) -> Result<(f64, f64)> {
    let url = format!("http://127.0.0.1:{port}/reports/items");
    let connections = CONNECTIONS.to_string();
    let said = sh::output(&mut sh::command(
        "taskset",
        ["-c", "0", "wrk", "-t1", "-c", &connections, "-d", time, "--timeout", "10s", &url],
    ))?;
    if said.contains("Non-2xx") || said.contains("Socket errors") {
        bail!("not every request was answered:\n{said}");
    }
    let rate = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let count = said.lines().find_map(|line| line.trim().split_once(" requests in "));
    Ok((rate.context("wrk names no rate")?.trim().parse()?, count.context("wrk names no count")?.0.parse()?))
}

/// The 99th percentile at a thousand requests a second on one connection, in seconds.
fn p99(port: u16) -> Result<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let request = format!("GET /reports/items HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let (mut times, mut buffer) = (Vec::new(), [0; 4_096]);
    let begin = Instant::now();
    for turn in 0..2_000_u32 {
        let at = begin + Duration::from_millis(1) * turn;
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"api\n") {
            let count = stream.read(&mut buffer)?;
            ensure!(count > 0, "the connection was closed");
            answer.extend_from_slice(&buffer[..count]);
        }
        times.push(sent.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() * 99 / 100])
}

/// What is resident after a million requests, while many answers are open; MiB.
fn memory(proxy: &Server) -> Result<f64> {
    let listener = TcpListener::bind(("127.0.0.1", API + 5))?;
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 4_096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n",
            );
            held.push(stream);
        }
    });
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = TcpStream::connect(("127.0.0.1", POSTERN))?;
        write!(stream, "GET /streams/events HTTP/1.1\r\nHost: 127.0.0.1:{POSTERN}\r\n\r\n")?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 1_024]);
        while !answer.windows(5).any(|five| five == b"data:") {
            let count = stream.read(&mut buffer)?;
            ensure!(count > 0, "a stream was closed: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&buffer[..count]);
        }
        open.push(stream);
    }
    let mut sent = 0.0;
    while sent < 1e6 {
        sent += load(POSTERN, "10s")?.1;
    }
    let found = resident(proxy);
    drop(open);
    found
}

/// What a process has in memory, shared pages of its program included; MiB.
fn resident(process: &Server) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id()))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(resident.context("no VmRSS")?.trim().parse::<f64>()? / 1024.0)
}
