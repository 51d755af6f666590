//! `postern identity proxy`.

use super::{keeper, provider};
use crate::cli::identity::Proxy as Args;
use crate::commands::Context;
use crate::failure::Failure;
use crate::printer::{self, Printer};
use crate::signals;
use postern_config::providers::ProviderType;
use postern_identity::atomic_file;
use postern_identity::exchange::Browser;
use postern_identity::keeper::SystemClock;
use postern_identity::proxy::{Endpoint, Metrics, Proxy, Routes, RoutesError, random_secret};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use zeroize::Zeroizing;

/// A unix socket that is removed at the end, unless another process has replaced it.
struct Socket {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl Socket {
    fn inode(path: &Path) -> Option<(u64, u64)> {
        std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Self { path, inode } = self;
        if Self::inode(path) == *inode {
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(in crate::commands) async fn run(
    context: &Context,
    args: Args,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let Args { listen, socket_mode, probe_listen, providers, aws_token_file, grace } = args;
    let mut keepers = Vec::new();
    for name in chosen(context, &providers)? {
        let (name, provider) = provider(context, Some(name))?;
        keepers.push(keeper(context, name, provider, Browser::Leave));
    }
    let routes = Routes::new(&keepers).map_err(|error| routes_failure(&error))?;
    let (mut endpoints, mut sockets) = (Vec::new(), Vec::new());
    for address in &listen {
        match address.strip_prefix("unix:") {
            Some(path) => {
                let path = PathBuf::from(path);
                endpoints.push(Endpoint::Unix(unix(&path, socket_mode)?));
                sockets.push(Socket { inode: Socket::inode(&path), path });
            }
            None => endpoints.push(Endpoint::Tcp(loopback(address).await?)),
        }
    }
    if let Some(address) = probe_listen {
        endpoints.push(Endpoint::Watch(bind(&address.to_string(), address).await?));
    }
    let aws_secret = aws_token_file.as_deref().map(write_secret).transpose()?;
    let stop = signals::stop()?;
    more_descriptors();
    for endpoint in &endpoints {
        printer.note(&format!("listening on {}", place(endpoint)));
    }
    for route in routes.all() {
        printer.note(&format!("/{}/ leads to {}", route.name(), route.address()));
    }
    let proxy = Proxy {
        routes,
        keepers,
        aws_secret,
        listener: printer::listener(),
        log_requests: context.global.verbose > 0,
        metrics: Metrics::default(),
        clock: SystemClock::new(),
    };
    Arc::new(proxy).serve(endpoints, stop, grace).await;
    drop(sockets);
    Ok(0)
}

fn chosen<'a>(context: &'a Context, named: &'a [String]) -> Result<Vec<&'a str>, Failure> {
    if !named.is_empty() {
        return Ok(named.iter().map(String::as_str).collect());
    }
    let all = &context.config.providers;
    let found: Vec<_> = all
        .iter()
        .filter(|(_, provider)| provider.api.is_some() || provider.r#type == ProviderType::Aws)
        .map(|(name, _)| name.as_str())
        .collect();
    if found.is_empty() {
        return Err(Failure::usage(
            "the config names no provider with an `api`, and none of type aws",
            Some("add api: {base_url: https://…} to a provider".to_owned()),
        ));
    }
    Ok(found)
}

fn routes_failure(error: &RoutesError) -> Failure {
    let mut failure = Failure::denied(error, None);
    (failure.code, failure.kind) = (postern_exec::exit::USAGE, "config");
    failure
}

/// Refuses addresses other than loopback, because every client can use the tokens.
async fn loopback(address: &str) -> Result<TcpListener, Failure> {
    let parsed: SocketAddr = match address.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse(),
        None => address.parse(),
    }
    .map_err(|_| {
        Failure::usage(
            format!("--listen {address}: this is no address"),
            Some("write it as 127.0.0.1:8080, [::1]:8080 or unix:/run/postern.sock".to_owned()),
        )
    })?;
    if !parsed.ip().is_loopback() {
        return Err(Failure::usage(
            format!("--listen {address}: whoever reaches this address could use the tokens"),
            Some(
                "listen on 127.0.0.1, [::1] or a unix socket; for probes there is --probe-listen".to_owned(),
            ),
        ));
    }
    bind(address, parsed).await
}

async fn bind(shown: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let mut failure =
            Failure::denied(&error, Some("choose another address, or end what listens there".to_owned()));
        failure.message = format!("listening on {shown}: {}", failure.message);
        failure
    })
}

fn unix(path: &Path, mode: u32) -> Result<UnixListener, Failure> {
    let failed = |error: io::Error| {
        let mut failure = Failure::denied(&error, Some("check the directory and its owner".to_owned()));
        failure.message = format!("listening on {}: {}", path.display(), failure.message);
        failure
    };
    // One that nobody listens on was left by somebody who was killed.
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(failed(io::Error::other("there is something else at this path")));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(failed(io::Error::from(io::ErrorKind::AddrInUse)));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    // Closed to others before it has its mode: nobody can slip in between.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

/// Writes the secret of the AWS endpoint without a newline, because SDKs send the file's exact content.
fn write_secret(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: io::Error| {
        let mut failure = Failure::denied(&error, Some("check the directory and its owner".to_owned()));
        failure.message = format!("--aws-token-file {}: {}", path.display(), failure.message);
        failure
    };
    let secret = random_secret().ok_or_else(|| failed(io::Error::other("there is no randomness")))?;
    atomic_file::replace(path, 0o600, |file| file.write_all(secret.as_bytes())).map_err(failed)?;
    Ok(secret)
}

fn place(endpoint: &Endpoint) -> String {
    let tcp =
        |listener: &TcpListener| listener.local_addr().map(|at| format!("http://{at}")).unwrap_or_default();
    match endpoint {
        Endpoint::Tcp(listener) => tcp(listener),
        Endpoint::Watch(listener) => format!("{} (probes and metrics only)", tcp(listener)),
        Endpoint::Unix(listener) => {
            let address = listener.local_addr().ok();
            let path = address.as_ref().and_then(|address| address.as_pathname());
            path.map(|path| format!("unix:{}", path.display())).unwrap_or_default()
        }
    }
}

/// Raises the limit of open files, because each open request needs two.
fn more_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
