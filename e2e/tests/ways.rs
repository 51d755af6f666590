//! Ways in: through a proxy, and from a terminal.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use e2e::proxy::ConnectProxy;
use e2e::{Outcome, enabled, install, postern, with_stdin};
use std::process::Command;

#[test]
fn a_proxy_is_used_with_its_credentials_unless_no_proxy_says_otherwise() {
    if !enabled() {
        return;
    }
    install(&[]).ok();
    let proxy = ConnectProxy::start();
    let with = |variables: &[(&str, &str)]| {
        Outcome::of(postern().envs(variables.iter().copied()).args(["run", "--", "echo", "through"]))
    };
    let address = format!("http://us%40er:pa%3Ass@{}", proxy.address);
    assert_eq!(with(&[("HTTPS_PROXY", &address)]).ok().stdout, "through\n");
    let requests = proxy.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 1);
    assert!(
        requests[0].starts_with("CONNECT ") && requests[0].contains("Basic dXNAZXI6cGE6c3M="),
        "{requests:?}"
    );
    let host = e2e::server().rsplit_once(':').unwrap().0.to_owned();
    assert_eq!(with(&[("HTTPS_PROXY", &address), ("NO_PROXY", &host)]).ok().stdout, "through\n");
    assert_eq!(proxy.requests.lock().unwrap().len(), 1);
    with(&[("HTTPS_PROXY", "http://127.0.0.1:1")]).exits(127).says(&["cannot be reached"]);
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
    let seen = with_stdin(&mut command, b"hello\r").exits(5).stdout.replace('\r', "");
    for part in ["/dev/pts/", "33 99\n", "got:hello\n", "restored\n"] {
        assert!(seen.contains(part), "{part:?} is not in {seen:?}");
    }
}
