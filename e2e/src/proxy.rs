//! A TCP proxy between the program and the API server that fails on demand.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// How the connection fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both sides see it close.
    Cut,
    /// Nothing passes any more, and neither side is told.
    BlackHole,
}

/// A proxy on loopback whose connections fail once the server has sent so many bytes.
#[derive(Debug)]
pub struct Proxy {
    /// Its address as a server for a kubeconfig.
    pub server: String,
}

impl Proxy {
    /// Listens; runs until the test process ends.
    pub fn start(target: &str, fault: Fault, after: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("https://{}", listener.local_addr().unwrap());
        let (target, left) = (target.to_owned(), Arc::new(AtomicI64::new(after)));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(far) = TcpStream::connect(&target) else { return };
                let (client_copy, far_copy) = (client.try_clone().unwrap(), far.try_clone().unwrap());
                let (left, left_copy) = (left.clone(), left.clone());
                std::thread::spawn(move || pump(&client_copy, &far_copy, &left_copy, fault, false));
                std::thread::spawn(move || pump(&far, &client, &left, fault, true));
            }
        });
        Self { server }
    }
}

/// A proxy that cuts each connection once so many bytes have passed on it, both ways together, for as long as it may.
#[derive(Debug)]
pub struct Cutter {
    /// Its address as a server for a kubeconfig.
    pub server: String,
    cuts: Arc<AtomicI64>,
}

impl Cutter {
    /// Cuts at most `most` connections, the nth after `after(n)` bytes.
    pub fn start(target: &str, most: i64, after: fn(i64) -> i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("https://{}", listener.local_addr().unwrap());
        let (target, cuts) = (target.to_owned(), Arc::new(AtomicI64::new(0)));
        let made = Arc::clone(&cuts);
        std::thread::spawn(move || {
            for (number, client) in (0..).zip(listener.incoming()) {
                let Ok(client) = client else { return };
                let Ok(far) = TcpStream::connect(&target) else { return };
                for side in [&client, &far] {
                    side.set_nodelay(true).unwrap();
                }
                let left = Arc::new(AtomicI64::new(after(number)));
                for (from, to) in [(client.try_clone().unwrap(), far.try_clone().unwrap()), (far, client)] {
                    let (left, made) = (Arc::clone(&left), Arc::clone(&made));
                    std::thread::spawn(move || cut_after(&from, &to, &left, &made, most));
                }
            }
        });
        Self { server, cuts }
    }

    /// Connections cut so far.
    pub fn cuts(&self) -> i64 {
        self.cuts.load(Ordering::SeqCst)
    }
}

fn cut_after(mut from: &TcpStream, mut to: &TcpStream, left: &AtomicI64, made: &AtomicI64, most: i64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let length = i64::try_from(count).unwrap();
        let before = left.fetch_sub(length, Ordering::SeqCst);
        if before > 0 && before <= length && made.fetch_add(1, Ordering::SeqCst) < most {
            break;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Copies one direction. Only what the server sends counts; both directions fail.
fn pump(mut from: &TcpStream, mut to: &TcpStream, left: &AtomicI64, fault: Fault, counts: bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let failed = if counts {
            left.fetch_sub(i64::try_from(count).unwrap(), Ordering::SeqCst) <= i64::try_from(count).unwrap()
        } else {
            left.load(Ordering::SeqCst) <= 0
        };
        if failed {
            left.store(i64::MIN / 2, Ordering::SeqCst);
            match fault {
                Fault::Cut => break,
                // Held open, and never read or written again.
                Fault::BlackHole => loop {
                    std::thread::park();
                },
            }
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A name of the API server that its certificate has and only the proxy knows the address of: no proxy of the environment is
/// asked for loopback, where the testbed's is.
pub const API_NAME: &str = "kubernetes.default.svc";

/// A kubeconfig that names the API server so.
pub fn named_kubeconfig(proxy_url: Option<&str>) -> tempfile::NamedTempFile {
    let mut config = crate::whole_kubeconfig();
    let cluster = &mut config["clusters"][0]["cluster"];
    cluster["server"] = format!("https://{API_NAME}:6443").into();
    if let Some(address) = proxy_url {
        cluster["proxy-url"] = address.into();
    }
    crate::write_kubeconfig(&config)
}

/// An HTTP proxy that knows CONNECT only (RFC 9110, section 9.3.6).
#[derive(Debug)]
pub struct ConnectProxy {
    /// Its address, for `HTTPS_PROXY`.
    pub address: String,
    /// The heads of the requests it got.
    pub requests: Arc<std::sync::Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Listens on loopback; runs until the test process ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(std::sync::Mutex::new(Vec::new()));
        let server = crate::server();
        let seen = requests.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(mut client) = client else { return };
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let named = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let target = if named.starts_with(API_NAME) { server.clone() } else { named };
                seen.lock().unwrap().push(head);
                let Ok(far) = TcpStream::connect(target) else { continue };
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
                let (client_copy, far_copy) = (client.try_clone().unwrap(), far.try_clone().unwrap());
                let never = Arc::new(AtomicI64::new(i64::MAX / 2));
                let never_too = never.clone();
                std::thread::spawn(move || pump(&client_copy, &far_copy, &never_too, Fault::Cut, false));
                std::thread::spawn(move || pump(&far, &client, &never, Fault::Cut, true));
            }
        });
        Self { address, requests }
    }
}

/// TLS in front of a [`ConnectProxy`], with a certificate of a CA that nobody knows.
#[derive(Debug)]
pub struct TlsFront {
    /// Its address, for `HTTPS_PROXY`.
    pub address: String,
    /// Whether a client showed a certificate of its own.
    pub shown: Arc<AtomicBool>,
}

impl TlsFront {
    /// Listens on loopback; runs until the test process ends. The CA is `proxy-ca.crt` in `folder`. Clients are asked
    /// for a certificate of `clients`, and served without.
    pub fn start(target: &str, folder: &Path, clients: &Path) -> Self {
        let path = |name: &str| folder.join(name).display().to_string();
        let make = |key: &str, crt: &str, subject: &str, more: &[&str]| {
            let mut openssl = Command::new("openssl");
            openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject]);
            openssl.args(["-keyout", &path(key), "-out", &path(crt)]).args(more);
            crate::Outcome::of(&mut openssl).ok();
        };
        make("proxy-ca.key", "proxy-ca.crt", "/CN=postern e2e proxy CA", &[]);
        let (ca, key) = (path("proxy-ca.crt"), path("proxy-ca.key"));
        let name =
            ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"];
        let of_ca = [["-CA", &ca, "-CAkey", &key].as_slice(), &name].concat();
        make("proxy.key", "proxy.crt", "/CN=postern e2e proxy", &of_ca);

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(clients).unwrap()).unwrap();
        let asks = WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build().unwrap();
        let chain = vec![CertificateDer::from_pem_file(path("proxy.crt")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(path("proxy.key")).unwrap();
        let config =
            ServerConfig::builder().with_client_cert_verifier(asks).with_single_cert(chain, key).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shown = Arc::new(AtomicBool::new(false));
        let (target, seen) = (target.to_owned(), shown.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let acceptor = TlsAcceptor::from(Arc::new(config));
                while let Ok((client, _)) = listener.accept().await {
                    let (acceptor, target, seen) = (acceptor.clone(), target.clone(), seen.clone());
                    tokio::spawn(async move {
                        // A client that does not trust us goes away here.
                        let Ok(mut client) = acceptor.accept(client).await else { return };
                        seen.fetch_or(client.get_ref().1.peer_certificates().is_some(), Ordering::SeqCst);
                        let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut far).await;
                    });
                }
            });
        });
        Self { address, shown }
    }
}
