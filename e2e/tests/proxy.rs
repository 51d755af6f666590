//! `postern identity proxy`: what passes and what does not, and its long run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use e2e::enabled;
use e2e::provider::Behaviour;
use e2e::scene::{Scene, ask, fetch, proxy, proxy_with_log};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn the_proxy_adds_the_token_and_takes_nothing_from_the_client() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let (process, at) = proxy(&scene, &[]);
    let request = format!(
        "GET /reports/items?a=1 HTTP/1.1\r\nHost: {at}\r\nAuthorization: Bearer mine\r\nauthorization: Basic x\r\n\
         Connection: close\r\n\r\n"
    );
    let (status, body) = ask(&at, &request);
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, body["path"].as_str(), body["query"].as_str()),
        (200, Some("/v1/items"), Some("a=1"))
    );
    assert!(body["authorization"].as_str().unwrap().starts_with("Bearer access-1-"));
    // Absolute form, as with http_proxy, for the API's host and for no other.
    let api = scene.provider.address.trim_start_matches("http://");
    let absolute =
        |target: &str| ask(&at, &format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).0;
    assert_eq!(absolute(&format!("http://{api}/v1/items")), 200);
    assert_eq!(absolute("http://169.254.169.254/latest/meta-data/"), 403);
    for (request, want) in [
        (format!("GET /other/ HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"), 404),
        (
            "GET /reports/items HTTP/1.1\r\nHost: rebound.example.com\r\nConnection: close\r\n\r\n"
                .to_owned(),
            403,
        ),
        (format!("GET /reports/../x HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n"), 400),
        (format!("CONNECT {api} HTTP/1.1\r\nHost: {api}\r\n\r\n"), 405),
        (format!("GET /reports/ HTTP/1.1\r\nHost: {at}\r\nHost: b\r\nConnection: close\r\n\r\n"), 400),
        (
            format!("GET /reports/ HTTP/1.1\r\nHost: {at}\r\nX: a\r\n folded\r\nConnection: close\r\n\r\n"),
            400,
        ),
        (
            format!(
                "POST /reports/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd"
            ),
            400,
        ),
    ] {
        assert_eq!(ask(&at, &request).0, want, "{request}");
    }
    let asked = scene.provider.api().0;
    assert_eq!(asked, 2, "nothing else reached the API");
    // Two lengths: only the one that RFC 9112 section 6.3 prefers goes on, and nothing of it is left for a next request.
    let both = format!(
        "POST /reports/ HTTP/1.1\r\nHost: {at}\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n0\r\n\r\nGET /reports/smuggled HTTP/1.1\r\nHost: {at}\r\n\r\n"
    );
    let (_, body) = ask(&at, &both);
    assert!(!body.contains("smuggled") && scene.provider.api().0 <= 3, "{body}");
    assert_eq!(fetch(&at, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(fetch(&at, "/readyz").0, 200);
    let (_, page) = fetch(&at, "/metrics");
    assert!(page.contains("postern_identity_requests_total{provider=\"reports\",code=\"2xx\"} "), "{page}");
    assert!(!page.contains("access-"), "{page}");
    process.stop();
}

#[test]
fn a_401_renews_once_and_is_then_the_clients() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let (process, at) = proxy(&scene, &[]);
    let (_, body) = fetch(&at, "/reports/x");
    let first: Value = serde_json::from_str(&body).unwrap();
    scene.provider.refuse(first["token"].as_str().unwrap());
    let request = format!(
        "POST /reports/x HTTP/1.1\r\nHost: {at}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nabcd"
    );
    let (status, body) = ask(&at, &request);
    let second: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, second["length"].as_u64()), (200, Some(4)));
    assert_ne!(first["token"], second["token"]);
    scene.provider.refuse(second["token"].as_str().unwrap());
    for _ in 0..5 {
        assert_eq!(fetch(&at, "/reports/x").0, 401);
    }
    assert_eq!(
        scene.provider.asked().len(),
        2,
        "an API that refuses everything is no reason to ask for ever"
    );
    process.stop();
}

#[test]
fn proof_1_thousands_of_requests_pass_while_subject_and_access_tokens_rotate() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    scene.provider.behave(Behaviour::Issue(json!(1)));
    scene.rotate_strictly("rotation-0");
    let (process, at) = proxy(&scene, &[]);
    let (mut rotations, mut sent) = (0, 0);
    // Until enough has happened; each request is checked by the API against the token's end.
    while rotations < 4 || scene.provider.ended() < 12 || sent < 3_000 {
        if scene.provider.ended() >= rotations * 3 {
            rotations += 1;
            scene.rotate_strictly(&format!("rotation-{rotations}"));
        }
        let (status, body) = fetch(&at, "/reports/x");
        assert_eq!(status, 200, "request {sent}: {body}");
        sent += 1;
    }
    assert_eq!(scene.provider.api().1, 0);
    process.stop();
}

#[test]
fn a_provider_that_is_down_is_survived_while_the_token_holds() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    scene.provider.behave(Behaviour::Issue(json!(10)));
    let (process, at) = proxy(&scene, &[]);
    assert_eq!(fetch(&at, "/reports/x").0, 200);
    scene.provider.behave(Behaviour::Raw(503, String::new(), String::new()));
    e2e::eventually("it tries to renew", Duration::from_secs(15), || scene.provider.asked().len() > 1);
    assert_eq!(fetch(&at, "/reports/x").0, 200);
    e2e::eventually("the token ends", Duration::from_secs(10), || fetch(&at, "/reports/x").0 == 503);
    assert_eq!(scene.provider.api().1, 0, "no token was used after its end");
    scene.provider.behave(Behaviour::Issue(json!(300)));
    e2e::eventually("it recovers", Duration::from_secs(10), || fetch(&at, "/reports/x").0 == 200);
    process.stop();
}

/// An API that streams: `/ws` echoes after an upgrade, `/events` sends one event and never ends, everything else counts
/// what it is sent.
fn streaming_api(address: &std::net::TcpListener) {
    for client in address.incoming().flatten() {
        std::thread::spawn(move || {
            let mut reader = BufReader::new(client.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while !head.ends_with("\r\n\r\n") {
                let start = head.len();
                if reader.read_line(&mut head).unwrap() == 0 {
                    return;
                }
                if let Some(value) = head[start..].to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut client = client;
            if head.starts_with("POST /token ") {
                let body = r#"{"access_token":"streamed","expires_in":300}"#;
                let _ = write!(
                    client,
                    "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            } else if head.starts_with("GET /ws ") {
                let _ = write!(client, "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
                let authorized = head.contains("authorization: Bearer streamed\r\n");
                let _ = write!(client, "{authorized};");
                let _ = std::io::copy(&mut reader, &mut client);
            } else if head.starts_with("GET /events ") {
                let _ =
                    write!(client, "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n");
                // Never ends: who waits for the end gets nothing.
                std::thread::park_timeout(Duration::from_secs(60));
            } else {
                let read = std::io::copy(&mut reader.take(length), &mut std::io::sink()).unwrap();
                let body = format!("read {read}");
                let _ = write!(
                    client,
                    "HTTP/1.1 200 X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        });
    }
}

#[test]
fn streams_pass_as_they_come_and_pages_of_others_do_not() {
    if !enabled() {
        return;
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || streaming_api(&listener));
    let scene = Scene::new(&json!({}));
    scene.configure(&json!({"live": {
        "type": "oauth2", "token_endpoint": format!("{api}/token"), "grant": "jwt_bearer",
        "subject_token": {"type": "file", "path": scene.path("token")}, "api": {"base_url": api},
    }}));
    let socket = format!("unix:{}", scene.path("socket").display());
    let (process, at) = proxy(&scene, &["--listen", &socket]);
    let open = |request: &str| {
        let mut stream = TcpStream::connect(&at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let until = |stream: &mut TcpStream, end: &str| {
        let (mut all, mut buffer) = (String::new(), [0; 1_024]);
        while !all.contains(end) {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{all}");
            all.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        all
    };
    // An event that is sent is seen, though the answer never ends.
    let mut events = open(&format!("GET /live/events HTTP/1.1\r\nHost: {at}\r\n\r\n"));
    until(&mut events, "first");
    // A protocol that is changed carries our token to the API, and then whatever both say.
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let mut socket = open(&format!("GET /live/ws HTTP/1.1\r\nHost: {at}\r\n{upgrade}\r\n"));
    assert!(until(&mut socket, "true;").starts_with("HTTP/1.1 101 "));
    socket.write_all(b"there and back").unwrap();
    until(&mut socket, "there and back");
    // Not for a page of somebody else's.
    let foreign =
        open(&format!("GET /live/ws HTTP/1.1\r\nHost: {at}\r\n{upgrade}Origin: https://evil\r\n\r\n"));
    until(&mut { foreign }, "403 Forbidden");
    // An upload is passed on while it comes, in little memory.
    let size = 200_000_000_u64;
    let mut upload = open(&format!(
        "PUT /live/x HTTP/1.1\r\nHost: {at}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    ));
    std::io::copy(&mut std::io::repeat(0).take(size), &mut upload).unwrap();
    until(&mut upload, &format!("read {size}"));
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    assert!(peak.unwrap() < 64_000, "{peak:?} kB");
    assert!(scene.path("socket").exists());
    // Streams that are open do not keep it from ending.
    drop((events, socket));
    let path = scene.path("socket");
    process.stop();
    assert!(!path.exists());
}

/// What a client may have of its own to hide.
const CANARY: &str = "canary-8Kd/2+w7-proxy";

#[test]
fn proof_5_no_token_is_in_the_proxys_log_its_metrics_or_where_others_look() {
    if !enabled() {
        return;
    }
    let scene = Scene::new(&json!({}));
    let subject = std::fs::read_to_string(scene.path("token")).unwrap();
    let secret_at = scene.path("aws-token");
    let (process, at, log) =
        proxy_with_log(&scene, &["-vv", "--aws-token-file", secret_at.to_str().unwrap()]);
    // Whatever a client may put a secret into, and every way to fail.
    let request = |target: &str, more: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{more}\r\n")
    };
    let mut pages = String::new();
    for (target, more) in [
        (format!("/reports/items?key={CANARY}"), format!("Authorization: Bearer {CANARY}\r\n")),
        (format!("/reports/items?key={CANARY}"), format!("Cookie: s={CANARY}\r\nX-Api-Key: {CANARY}\r\n")),
        (format!("http://user:{CANARY}@evil.example.com/"), String::new()),
        (format!("/{CANARY}?{CANARY}"), String::new()),
        (format!("/aws-credentials/reports?{CANARY}"), format!("Authorization: {CANARY}\r\n")),
        ("/metrics".to_owned(), String::new()),
    ] {
        let (_, body) = ask(&at, &request(&target, &more));
        // What the API answers is the client's; what we answer is not to hold what was asked with.
        if !target.starts_with("/reports/") {
            pages.push_str(&body);
        }
    }
    let (_, body) = fetch(&at, "/reports/x");
    let access = serde_json::from_str::<Value>(&body).unwrap()["token"].as_str().unwrap().to_owned();
    scene.provider.refuse(&access);
    // What a provider says of a failure may hold what it was sent.
    let echo = json!({"error": "invalid_grant", "error_description": format!("no: {subject}")}).to_string();
    scene.provider.behave(Behaviour::Raw(400, "Content-Type: application/json\r\n".to_owned(), echo));
    assert_eq!(fetch(&at, "/reports/x").0, 401);
    // One that never had a token tells why.
    let (other, there, told) = proxy_with_log(&scene, &["-vv"]);
    for path in ["/readyz", "/reports/x"] {
        let (status, page) = fetch(&there, path);
        assert!(status >= 500 && page.contains("invalid_grant"), "{status} {page}");
        pages.push_str(&page);
    }
    other.stop();
    pages.push_str(&told.lock().unwrap());
    pages.push_str(&fetch(&at, "/metrics").1);
    let of_process = |name: &str| {
        let bytes = std::fs::read(format!("/proc/{}/{name}", process.0.id())).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let limits = of_process("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "a core dump would hold them: {core}");
    let (argv, environment) = (of_process("cmdline"), of_process("environ"));
    let secret = std::fs::read_to_string(&secret_at).unwrap();
    process.stop();
    let log = log.lock().unwrap().clone();
    assert!(log.contains("/reports/items 200") && log.contains("/reports/x 401"), "{log}");
    for (place, text) in
        [("the log", &log), ("a page", &pages), ("argv", &argv), ("the environment", &environment)]
    {
        for (what, word) in [
            ("the access token", access.as_str()),
            ("the subject token", subject.as_str()),
            ("its signature", subject.rsplit('.').next().unwrap()),
            ("the endpoint's secret", secret.as_str()),
            ("what the client sent", CANARY),
        ] {
            // A path is told, as any server's log does.
            let told = text.replace(&format!("GET /{CANARY} 404"), "");
            assert!(!told.contains(word), "{place} holds {what}: {text}");
        }
    }
}
