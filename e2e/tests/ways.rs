//! Ways in: through a proxy, and from a terminal.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use e2e::proxy::{API_NAME, ConnectProxy, TlsFront, named_kubeconfig};
use e2e::{Outcome, enabled, install, postern, with_stdin};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

#[test]
fn a_proxy_is_used_with_its_credentials_unless_no_proxy_says_otherwise() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    let proxy = ConnectProxy::start();
    let address = format!("http://us%40er:pa%3Ass@{}", proxy.address);
    let (plain, own) = (named_kubeconfig(None), named_kubeconfig(Some(&address)));
    let by = |kubeconfig: &Path, variables: &[(&str, &str)]| {
        let mut command = postern();
        command.env("KUBECONFIG", kubeconfig).envs(variables.iter().copied());
        Outcome::of(command.args(["run", "--", "echo", "through"]))
    };
    let with = |variables: &[(&str, &str)]| by(plain.path(), variables);
    let asked = || proxy.requests.lock().unwrap().len();
    assert_eq!(with(&[("HTTPS_PROXY", &address)]).ok().stdout, "through\n");
    let requests = proxy.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 1);
    assert!(
        requests[0].starts_with("CONNECT ") && requests[0].contains("Basic dXNAZXI6cGE6c3M="),
        "{requests:?}"
    );
    // It is the server that NO_PROXY is about, and not the proxy's own address.
    let host = proxy.address.rsplit_once(':').unwrap().0;
    assert_eq!(with(&[("HTTPS_PROXY", &address), ("NO_PROXY", host)]).ok().stdout, "through\n");
    assert_eq!(asked(), 2);
    with(&[("HTTPS_PROXY", &address), ("NO_PROXY", API_NAME)]).exits(127).says(&["cannot be reached"]);
    assert_eq!(asked(), 2);
    // What the kubeconfig says holds whatever NO_PROXY says.
    assert_eq!(by(own.path(), &[("NO_PROXY", API_NAME)]).ok().stdout, "through\n");
    assert_eq!(asked(), 3);
    // `host:port` is an http:// proxy.
    assert_eq!(with(&[("HTTPS_PROXY", &proxy.address)]).ok().stdout, "through\n");
    assert_eq!(asked(), 4);
    with(&[("HTTPS_PROXY", "http://127.0.0.1:1")]).exits(127).says(&["cannot be reached"]);
    with(&[("HTTPS_PROXY", "gopher://127.0.0.1:1")])
        .exits(127)
        .says(&["none of http://, https:// and socks5://"]);
    // To loopback none leads, as with kubectl.
    let loopback =
        Outcome::of(postern().env("HTTPS_PROXY", "http://127.0.0.1:1").args(["run", "--", "echo", "direct"]));
    assert_eq!(loopback.ok().stdout, "direct\n");
}

#[test]
fn a_cluster_without_a_ca_in_the_kubeconfig_is_trusted_by_ssl_cert_file() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    let mut config = e2e::whole_kubeconfig();
    let ca = e2e::take_ca(&mut config);
    let kubeconfig = e2e::write_kubeconfig(&config);
    let with = |file: Option<&Path>, args: &[&str]| {
        let mut command = postern();
        command
            .env("KUBECONFIG", kubeconfig.path())
            .args(args)
            .envs(file.map(|file| ("SSL_CERT_FILE", file)));
        Outcome::of(&mut command)
    };
    let shown = with(Some(ca.path()), &["ops", "show", "-o", "json"]).ok().json();
    assert_eq!(shown["podState"], "present");
    assert_eq!(with(Some(ca.path()), &["run", "--", "echo", "trusted"]).ok().stdout, "trusted\n");
    let hint = "hint: check certificate-authority-data in the kubeconfig, or SSL_CERT_FILE";
    let refused = ["the TLS connection to https://", "was refused: ", "certificate", hint];
    with(None, &["ops", "show"]).exits(1).says(&refused);
    with(None, &["run", "--", "true"]).exits(127).says(&refused);
    with(Some(Path::new("/nonexistent")), &["ops", "show"]).exits(1).says(&["CA certificates", hint]);
}

#[test]
fn a_proxy_that_speaks_tls_is_trusted_by_ssl_cert_file_and_not_by_the_clusters_ca() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    let folder = tempfile::tempdir().unwrap();
    let cluster_ca = e2e::take_ca(&mut e2e::whole_kubeconfig());
    let proxy = ConnectProxy::start();
    let front = TlsFront::start(&proxy.address, folder.path(), cluster_ca.path());
    let address = format!("https://{}", front.address);
    let named = named_kubeconfig(None);
    let with = |file: &Path| {
        let mut command = postern();
        command
            .env("KUBECONFIG", named.path())
            .env("HTTPS_PROXY", &address)
            .env("SSL_CERT_FILE", file)
            .args(["run", "--", "echo", "through"]);
        Outcome::of(&mut command)
    };
    assert_eq!(with(&folder.path().join("proxy-ca.crt")).ok().stdout, "through\n");
    assert_eq!(proxy.requests.lock().unwrap().len(), 1);
    // Our client certificate is the cluster's business.
    assert!(!front.shown.load(Ordering::SeqCst));
    with(cluster_ca.path()).exits(127).says(&["certificate", "SSL_CERT_FILE"]);
    assert_eq!(proxy.requests.lock().unwrap().len(), 1);
}

#[test]
fn a_terminal_is_carried_through_and_restored() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    // script(1) gives the program a terminal of its own; `stty -g` shows that it is as it was.
    let program = postern().get_program().to_str().unwrap().to_owned();
    let line = format!(
        "stty rows 33 cols 99; before=$(stty -g); \
         {program} run -it -- sh -c 'tty; stty size; read x; echo \"got:$x\"; exit 5'; code=$?; \
         [ \"$(stty -g)\" = \"$before\" ] && echo restored; exit $code"
    );
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]).env("KUBECONFIG", e2e::kubeconfig());
    command.env("POSTERN_OPS_NAMESPACE", e2e::ops());
    let seen = with_stdin(&mut command, b"hello\r").exits(5).stdout.replace('\r', "");
    for part in ["/dev/pts/", "33 99\n", "got:hello\n", "restored\n"] {
        assert!(seen.contains(part), "{part:?} is not in {seen:?}");
    }
}
