//! The daemons of a cluster and their flags.

use super::layout::{API_PORT, Cluster, Node, SERVICE_CIDR};
use super::process::Daemon;
use super::state::State;
use super::{DEFAULT_ISSUER, configs};

fn daemon(cluster: &Cluster, node: &Node, name: &str, args: Vec<String>) -> Daemon {
    let netns = Some(node.netns_path());
    Daemon { name: name.to_owned(), netns, program: cluster.bin(name), args }
}

fn flags(pairs: &[(&str, String)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

/// Names of per-node daemons carry the node, once there is more than one.
pub(super) fn on(node: &Node, cluster: &Cluster, name: &str) -> String {
    if node.name == cluster.first().name { name.to_owned() } else { format!("{name}-{}", node.name) }
}

pub(super) fn etcd(cluster: &Cluster) -> Daemon {
    daemon(cluster, cluster.first(), "etcd", vec![cluster.etc("etcd.yaml").display().to_string()])
}

pub(super) fn apiserver(cluster: &Cluster, state: &State) -> Daemon {
    let node = cluster.first();
    let pki = |file| cluster.pki(file);
    let text = str::to_owned;
    let mut args = flags(&[
        ("advertise-address", node.ip.clone()),
        ("bind-address", text("0.0.0.0")),
        ("secure-port", API_PORT.to_string()),
        ("etcd-servers", text("http://127.0.0.1:2379")),
        ("client-ca-file", pki("ca.crt")),
        ("tls-cert-file", pki("apiserver.crt")),
        ("tls-private-key-file", pki("apiserver.key")),
        ("kubelet-certificate-authority", pki("ca.crt")),
        ("kubelet-client-certificate", pki("apiserver-kubelet.crt")),
        ("kubelet-client-key", pki("apiserver-kubelet.key")),
        ("kubelet-preferred-address-types", text("InternalIP")),
        ("service-cluster-ip-range", text(SERVICE_CIDR)),
        ("authorization-mode", text("Node,RBAC")),
        ("enable-admission-plugins", text("NodeRestriction")),
        ("anonymous-auth", text("true")),
        ("allow-privileged", text("true")),
        ("requestheader-client-ca-file", pki("front-proxy-ca.crt")),
        ("requestheader-allowed-names", text("front-proxy")),
        ("requestheader-extra-headers-prefix", text("X-Remote-Extra-")),
        ("requestheader-group-headers", text("X-Remote-Group")),
        ("requestheader-username-headers", text("X-Remote-User")),
        ("proxy-client-cert-file", pki("front-proxy.crt")),
        ("proxy-client-key-file", pki("front-proxy.key")),
        ("audit-policy-file", cluster.etc("audit-policy.yaml").display().to_string()),
        ("audit-log-path", cluster.audit_log().display().to_string()),
        ("audit-log-format", text("json")),
        ("audit-log-mode", text("blocking")), // a test reads the line right after its call
        ("audit-log-maxsize", text("500")),
        ("audit-log-maxbackup", text("1")),
        ("profiling", text("false")),
        ("service-account-key-file", pki("sa.pub")),
        ("service-account-signing-key-file", pki("sa.key")),
        ("service-account-issuer", state.issuer.clone()), // the first one signs
    ]);
    if state.issuer == DEFAULT_ISSUER {
        args.extend(flags(&[("api-audiences", text(DEFAULT_ISSUER))]));
    } else {
        // Tokens of running pods stay good over a change, and readers find the keys where they look.
        args.extend(flags(&[
            ("service-account-issuer", text(DEFAULT_ISSUER)),
            ("service-account-jwks-uri", format!("{}/openid/v1/jwks", state.issuer.trim_end_matches('/'))),
            ("api-audiences", format!("{DEFAULT_ISSUER},{}", state.issuer)),
        ]));
    }
    daemon(cluster, node, "kube-apiserver", args)
}

/// Brings the API to a port of the machine; the only part that lives outside the namespace.
pub(super) fn forward(cluster: &Cluster, state: &State) -> Daemon {
    let pair = format!("127.0.0.1:{}={}:{API_PORT}", state.port, cluster.first().ip);
    let netns = cluster.first().netns_path().display().to_string();
    let args = vec!["forward".to_owned(), netns, pair];
    Daemon { name: "forward".to_owned(), netns: None, program: cluster.bin("testctl"), args }
}

/// How a control-plane client reaches the API: to talk, and to check who talks to it.
fn client_flags(kubeconfig: &str) -> Vec<String> {
    ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
        .iter()
        .map(|flag| format!("--{flag}={kubeconfig}"))
        .collect()
}

pub(super) fn controller_manager(cluster: &Cluster) -> Daemon {
    let mut args = client_flags(&cluster.pki("kube-controller-manager.kubeconfig"));
    args.extend(flags(&[
        ("service-account-private-key-file", cluster.pki("sa.key")),
        ("root-ca-file", cluster.pki("ca.crt")),
        ("client-ca-file", cluster.pki("ca.crt")),
        ("cluster-signing-cert-file", cluster.pki("ca.crt")),
        ("cluster-signing-key-file", cluster.pki("ca.key")),
        ("use-service-account-credentials", "true".to_owned()),
        ("leader-elect", "false".to_owned()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("pvclaimbinder-sync-period", "2s".to_owned()),
    ]));
    daemon(cluster, cluster.first(), "kube-controller-manager", args)
}

pub(super) fn scheduler(cluster: &Cluster) -> Daemon {
    let mut args = client_flags(&cluster.pki("kube-scheduler.kubeconfig"));
    args.extend(flags(&[("leader-elect", "false".to_owned()), ("bind-address", "127.0.0.1".to_owned())]));
    daemon(cluster, cluster.first(), "kube-scheduler", args)
}

pub(super) fn coredns(cluster: &Cluster) -> Daemon {
    daemon(cluster, cluster.first(), "coredns", vec![cluster.etc("Corefile").display().to_string()])
}

pub(super) fn containerd(cluster: &Cluster, node: &Node) -> Daemon {
    Daemon {
        name: on(node, cluster, "containerd"),
        netns: Some(node.netns_path()),
        program: crate::sh::which("containerd".as_ref()).unwrap_or_else(|| "containerd".into()),
        args: vec![format!("--config={}", node.etc.join("containerd.toml").display())],
    }
}

pub(super) fn kubelet(cluster: &Cluster, node: &Node) -> Daemon {
    let args = flags(&[
        ("config", node.etc.join("kubelet.yaml").display().to_string()),
        ("kubeconfig", cluster.pki(&format!("kubelet-{}.kubeconfig", node.name))),
        ("root-dir", node.data.join("kubelet").display().to_string()),
        ("cert-dir", node.data.join("kubelet-pki").display().to_string()),
        ("hostname-override", node.name.clone()),
        ("node-ip", node.ip.clone()),
    ]);
    Daemon { name: on(node, cluster, "kubelet"), ..daemon(cluster, node, "kubelet", args) }
}

pub(super) fn proxy(cluster: &Cluster, node: &Node) -> Daemon {
    let args = flags(&[("config", node.etc.join("kube-proxy.yaml").display().to_string())]);
    Daemon { name: on(node, cluster, "kube-proxy"), ..daemon(cluster, node, "kube-proxy", args) }
}

pub(super) fn local_path(cluster: &Cluster, node: &Node) -> Daemon {
    let args = flags(&[
        ("kubeconfig", cluster.pki("local-path.kubeconfig")),
        ("node", node.name.clone()),
        ("directory", configs::volumes(node).display().to_string()),
    ]);
    Daemon { name: on(node, cluster, "local-path"), ..daemon(cluster, node, "local-path", args) }
}

/// All of them, in the order they are started.
pub(super) fn all(cluster: &Cluster, state: &State) -> Vec<Daemon> {
    let mut list = vec![etcd(cluster), apiserver(cluster, state), forward(cluster, state)];
    list.extend([controller_manager(cluster), scheduler(cluster), coredns(cluster)]);
    for node in &cluster.nodes {
        list.extend([containerd(cluster, node), kubelet(cluster, node), proxy(cluster, node)]);
        list.push(local_path(cluster, node));
    }
    list
}
