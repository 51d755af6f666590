//! `postern identity proxy`: messages of HTTP/1.1 as servers and clients write them, and what they may not do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::proxy::TlsFront;
use e2e::scene::{Running, Scene, proxy};
use e2e::{enabled, eventually};
use serde_json::json;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// An API that answers each path in its own way; it counts its connections, those that are open and all.
#[derive(Default)]
struct Api {
    open: AtomicUsize,
    all: AtomicUsize,
}

/// What is said to a request for a path, and whether the connection stays.
fn answer(path: &str) -> (&'static str, bool) {
    match path {
        "/length" => ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Case: Kept\r\n\r\nhello", true),
        "/chunks" => {
            let all = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: 1\r\n\r\n";
            (all, true)
        }
        "/interim" => (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            true,
        ),
        "/close" => ("HTTP/1.1 200 OK\r\n\r\nhello", false),
        "/old" => ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false),
        "/once" => ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false),
        "/empty" => ("HTTP/1.1 204 No Content\r\n\r\n", true),
        "/head" => ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true),
        "/short" => ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", false),
        "/cut" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", false),
        "/odd" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", true),
        "/two" => (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
            true,
        ),
        "/both" => ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", true),
        "/silent" => ("", false),
        "/token" => {
            let token = "HTTP/1.1 200 OK\r\nContent-Length: 45\r\nConnection: close\r\n\r\n{\"access_token\":\"streamed\",\"expires_in\":300}\n";
            (token, false)
        }
        "/events" => ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata\n\r\n", true),
        path => panic!("{path}"),
    }
}

fn serve(client: TcpStream) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut client = client;
    loop {
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let start = head.len();
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = head[start..].to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        assert!(path == "/token" || head.contains("authorization: Bearer streamed\r\n"), "{head}");
        if path == "/echo" {
            let _ = write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = client.write_all(&body);
            continue;
        }
        let (text, stays) = answer(path);
        let _ = client.write_all(text.as_bytes());
        if !stays {
            return;
        }
    }
}

/// The proxy with that API as `/live/`, reached by TLS or without.
fn begin(secured: bool) -> (Arc<Api>, Scene, Running, String) {
    let (listener, api) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(Api::default()));
    let plain = listener.local_addr().unwrap().to_string();
    let shared = api.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let api = shared.clone();
            std::thread::spawn(move || {
                api.open.fetch_add(1, Ordering::SeqCst);
                api.all.fetch_add(1, Ordering::SeqCst);
                serve(client);
                api.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let scene = Scene::new(&json!({}));
    let mut address = json!({"base_url": format!("http://{plain}")});
    if secured {
        let ca = scene.path("proxy-ca.crt");
        let front = TlsFront::start(&plain, scene.home.path(), &ca);
        address = json!({"base_url": format!("https://{}", front.address), "ca_file": ca});
    }
    scene.configure(&json!({"live": {
        "type": "oauth2", "token_endpoint": format!("http://{plain}/token"), "grant": "jwt_bearer",
        "subject_token": {"type": "file", "path": scene.path("token")}, "api": address,
    }}));
    let (process, at) = proxy(&scene, &[]);
    (api, scene, process, at)
}

fn connect(at: &str) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// All that comes after a request, until the connection ends. Header names are in lower case, and `Date` is left out.
fn all(at: &str, requests: &str) -> String {
    let mut stream = connect(at);
    stream.write_all(requests.as_bytes()).unwrap();
    let mut text = Vec::new();
    // One that breaks has ended too.
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("date: "));
    lines
        .map(|line| match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}", name.to_lowercase()),
            None => line.to_owned(),
        })
        .collect()
}

fn until(stream: &mut TcpStream, end: &str) -> String {
    let (mut all, mut buffer) = (String::new(), [0; 1_024]);
    while !all.ends_with(end) {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{all}");
        all.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    all
}

#[test]
fn answers_of_every_shape_arrive_whole_and_one_connection_carries_many() {
    if !enabled() {
        return;
    }
    shapes(false);
    shapes(true);
}

fn shapes(secured: bool) {
    let (api, _scene, process, at) = begin(secured);
    let get = |path: &str| format!("GET /live{path} HTTP/1.1\r\nHost: {at}\r\nTE: trailers\r\n\r\n");
    let last = |path: &str| {
        format!("GET /live{path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nTE: trailers\r\n\r\n")
    };
    let chunked =
        "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for (path, want) in [
        ("/length", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-case: Kept\r\nconnection: close\r\n\r\nhello"),
        ("/interim", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"),
        ("/close", chunked),
        ("/old", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"),
        ("/empty", "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"),
        (
            "/chunks",
            "HTTP/1.1 200 OK\r\ntrailer: X-T\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nhel\r\n2\r\nlo\r\n0\r\nx-t: 1\r\n\r\n",
        ),
    ] {
        assert_eq!(all(&at, &last(path)), want, "{path}");
    }
    let head = format!("HEAD /live/head HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    assert!(all(&at, &head).ends_with("content-length: 5\r\nconnection: close\r\n\r\n"));
    // Sent all at once, answered in order, a long upload among them.
    let upload = "a".repeat(100_000);
    let echo = |body: &str| {
        format!("POST /live/echo HTTP/1.1\r\nHost: {at}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let requests = [get("/length"), echo("one"), get("/chunks"), echo(""), echo(&upload), last("/length")];
    let found = all(&at, &requests.concat());
    let mut rest = found.as_str();
    for part in
        ["\r\n\r\nhello", "\r\n\r\none", "x-t: 1\r\n\r\n", "length: 0\r\n\r\n", upload.as_str(), "hello"]
    {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:.20} in {rest:.2000}"));
        rest = &rest[at + part.len()..];
    }
    assert_eq!(rest, "");
    // What the server closes is not used again, and what it keeps is.
    let (before, idle) = (api.all.load(Ordering::SeqCst), api.open.load(Ordering::SeqCst));
    for _ in 0..20 {
        for path in ["/length", "/once"] {
            let found = all(&at, &last(path));
            assert!(found.ends_with("hello"), "{path}: {found}");
        }
    }
    let made = api.all.load(Ordering::SeqCst) - before;
    assert!((19 - idle..=21).contains(&made), "{made} connections, {idle} were kept from before");
    process.stop();
}

#[test]
fn what_is_broken_or_ambiguous_is_never_passed_for_whole() {
    if !enabled() {
        return;
    }
    let (_api, _scene, process, at) = begin(false);
    let get = |path: &str| format!("GET /live{path} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    // The connection ends before the body does, as the API's did.
    assert!(all(&at, &get("/short")).ends_with("content-length: 50\r\n\r\nhello"));
    assert!(all(&at, &get("/cut")).ends_with("\r\n\r\n5\r\nhello\r\n"));
    let odd = all(&at, &get("/odd"));
    assert!(!odd.contains("hello"), "{odd}");
    for path in ["/both", "/silent"] {
        let mut stream = connect(&at);
        stream.write_all(get(path).as_bytes()).unwrap();
        let found = until(&mut stream, "}\n");
        assert!(
            found.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && found.contains("did not answer"),
            "{found}"
        );
        // The client's own connection is none the worse.
        stream.write_all(get("/length").as_bytes()).unwrap();
        until(&mut stream, "hello");
    }
    // An answer that nobody asked for is nobody's.
    let last = format!("GET /live/length HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    let found = all(&at, &[get("/two"), last].concat());
    assert!(!found.contains("forged") && found.matches("hello").count() == 2, "{found}");
    process.stop();
}

#[test]
fn open_streams_take_little_and_go_with_their_clients() {
    if !enabled() {
        return;
    }
    let (api, _scene, process, at) = begin(false);
    let anonymous = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().to_owned();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    };
    let open = || {
        let mut stream = connect(&at);
        write!(stream, "GET /live/events HTTP/1.1\r\nHost: {at}\r\n\r\n").unwrap();
        until(&mut stream, "data\n\r\n");
        stream
    };
    let first = open();
    let before = anonymous();
    let streams: Vec<_> = (0..300).map(|_| open()).collect();
    let each = anonymous().saturating_sub(before) * 1024 / 300;
    // Four buffers of 8 KiB; one that had grown would be 4 KiB more.
    assert!(each < 36_000, "{each} bytes for a stream");
    drop((first, streams));
    eventually("the API's connections are closed", Duration::from_secs(10), || {
        api.open.load(Ordering::SeqCst) == 0
    });
    process.stop();
}

#[test]
fn a_client_that_leaves_takes_what_was_begun_for_it_along() {
    if !enabled() {
        return;
    }
    // It takes connections, and says nothing: neither to a request nor to the beginning of TLS.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let tokens = TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("http://{}/token", tokens.local_addr().unwrap());
    std::thread::spawn(move || tokens.incoming().flatten().for_each(serve));
    let scene = Scene::new(&json!({}));
    let provider = |scheme: &str| {
        json!({
            "type": "oauth2", "token_endpoint": issuer, "grant": "jwt_bearer",
            "subject_token": {"type": "file", "path": scene.path("token")},
            "api": {"base_url": format!("{scheme}://{address}")},
        })
    };
    scene.configure(&json!({"plain": provider("http"), "secured": provider("https")}));
    let (process, at) = proxy(&scene, &[]);
    for name in ["plain", "secured"] {
        let mut client = connect(&at);
        write!(client, "GET /{name}/x HTTP/1.1\r\nHost: {at}\r\n\r\n").unwrap();
        let (mut api, _) = silent.accept().unwrap();
        api.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(api.read(&mut [0; 4_096]).unwrap() > 0, "{name}");
        drop(client);
        let mut rest = Vec::new();
        assert!(api.read_to_end(&mut rest).is_ok(), "{name}: its connection stays");
    }
    process.stop();
}
