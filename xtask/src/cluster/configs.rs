//! Configuration files of the daemons, and the objects every cluster begins with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::layout::{API_PORT, Cluster, DNS_SERVICE, Node, POD_CIDR, REGISTRIES};
use crate::images::SANDBOX;

/// Where a node's provisioned volumes lie.
pub(super) fn volumes(node: &Node) -> PathBuf {
    node.data.join("volumes")
}

pub(super) fn write_all(cluster: &Cluster) -> Result<()> {
    fs::create_dir_all(cluster.etc(""))?;
    put(&cluster.etc("etcd.yaml"), &etcd(cluster))?;
    put(&cluster.etc("audit-policy.yaml"), &audit_policy())?;
    put(&cluster.etc("objects.yaml"), &objects(cluster))?;
    fs::write(cluster.etc("Corefile"), corefile(cluster))?;
    for node in &cluster.nodes {
        let cni = node.etc.join("cni");
        fs::create_dir_all(&cni)?;
        fs::write(node.etc.join("containerd.toml"), containerd(node))?;
        for (host, service) in REGISTRIES {
            let folder = node.etc.join("certs.d").join(host);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("hosts.toml"), registry_hosts(service))?;
        }
        put(&cni.join("10-postern.conflist"), &network(cluster, node))?;
        fs::write(node.etc.join("resolv.conf"), "")?; // pods that ask for the node's DNS get none
        put(&node.etc.join("kubelet.yaml"), &kubelet(cluster, node))?;
        put(&node.etc.join("kube-proxy.yaml"), &proxy(cluster, node))?;
    }
    Ok(())
}

/// JSON is YAML, and needs no templates.
fn put(path: &Path, value: &Value) -> Result<()> {
    Ok(fs::write(path, format!("{value:#}\n"))?)
}

fn etcd(cluster: &Cluster) -> Value {
    json!({
        "name": "postern", "data-dir": cluster.first().data.join("etcd"),
        "listen-client-urls": "http://127.0.0.1:2379", "advertise-client-urls": "http://127.0.0.1:2379",
        "listen-peer-urls": "http://127.0.0.1:2380", "initial-advertise-peer-urls": "http://127.0.0.1:2380",
        "initial-cluster": "postern=http://127.0.0.1:2380",
        "unsafe-no-fsync": true, // its data does not outlive the machine's boot anyway
        "log-level": "warn",
    })
}

/// Who did what, for everything but the background noise. Never bodies: they hold secrets.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*"]},
            {"level": "None", "userGroups": ["system:nodes"],
             "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
            {"level": "Metadata"},
        ],
    })
}

/// How the node reaches a registry that tests run: by the Service that they create at this address.
fn registry_hosts(service: &str) -> String {
    let address = format!("http://{service}:5000");
    format!("server = \"{address}\"\n\n[host.\"{address}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
}

fn containerd(node: &Node) -> String {
    let (run, data, etc) = (node.run.display(), node.data.display(), node.etc.display());
    let socket = node.containerd_socket();
    format!(
        r#"version = 2
root = "{data}/containerd"
state = "{run}/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{data}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX}"
  stream_server_address = "127.0.0.1"
  disable_apparmor = true
  restrict_oom_score_adj = true         # works without CAP_SYS_RESOURCE
  netns_mounts_under_state_dir = true   # so that the cluster's mounts all lie in one place
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{etc}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{etc}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{run}/runc"
"#
    )
}

/// Point-to-point links, so that all traffic is routed and kube-proxy's rules see it; a bridge would
/// pass replies between two pods of a node by them.
fn network(cluster: &Cluster, node: &Node) -> Value {
    json!({
        "cniVersion": "0.4.0", "name": format!("postern-{}", cluster.id),
        "plugins": [
            {"type": "ptp", "ipMasq": false, "ipam": {
                "type": "host-local", "dataDir": node.data.join("cni"),
                "ranges": [[{"subnet": node.pod_cidr}]], "routes": [{"dst": "0.0.0.0/0"}],
            }},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet(cluster: &Cluster, node: &Node) -> Value {
    let socket = format!("unix://{}", node.containerd_socket());
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": "0.0.0.0", "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": cluster.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": cluster.pki(&format!("kubelet-server-{}.crt", node.name)),
        "tlsPrivateKeyFile": cluster.pki(&format!("kubelet-server-{}.key", node.name)),
        "containerRuntimeEndpoint": socket, "imageServiceEndpoint": socket,
        "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", node.cgroup), "failCgroupV1": false,
        "failSwapOn": false, "memorySwap": {"swapBehavior": "NoSwap"},
        "clusterDomain": "cluster.local", "clusterDNS": [DNS_SERVICE],
        "resolvConf": node.etc.join("resolv.conf"),
        "podLogsDir": node.data.join("podlogs"), "volumePluginDir": node.data.join("volume-plugins"),
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%",
        },
        "syncFrequency": "2s", "nodeStatusUpdateFrequency": "5s", "makeIPTablesUtilChains": false,
        "registryPullQPS": 0, "eventRecordQPS": 0,
        // Tests that run side by side need more than the 110 of the default; the pods' network has 254 addresses.
        "maxPods": 240,
    })
}

fn proxy(cluster: &Cluster, node: &Node) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": cluster.pki("kube-proxy.kubeconfig")},
        "mode": "iptables", "clusterCIDR": POD_CIDR, "hostnameOverride": node.name,
        "healthzBindAddress": "127.0.0.1:10256", "metricsBindAddress": "127.0.0.1:10249",
        "iptables": {"localhostNodePorts": false, "minSyncPeriod": "100ms", "syncPeriod": "30s"},
        // Connection tracking is the machine's own business.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

/// Two zones, because a template answers before the cluster's names are looked up.
fn corefile(cluster: &Cluster) -> String {
    let ip = &cluster.first().ip;
    let kubeconfig = cluster.pki("coredns.kubeconfig");
    format!(
        "cluster.local in-addr.arpa ip6.arpa {{
    bind {ip}
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        endpoint https://127.0.0.1:{API_PORT}
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5
}}

. {{
    bind {ip}
    errors
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"
    )
}

/// A role and its binding to one user.
fn role(user: &str, rules: &Value) -> [Value; 2] {
    let name = user.replace("system:", "testbed:");
    let group = "rbac.authorization.k8s.io";
    [
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name}, "rules": rules,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }),
    ]
}

fn objects(cluster: &Cluster) -> Value {
    let group = "rbac.authorization.k8s.io";
    let readers = ["system:unauthenticated", "system:authenticated"];
    let mut items = vec![
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "testbed:issuer-discovery"},
            "roleRef": {
                "apiGroup": group, "kind": "ClusterRole", "name": "system:service-account-issuer-discovery",
            },
            "subjects": readers.map(|name| json!({"apiGroup": group, "kind": "Group", "name": name})),
        }),
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {
                "name": "local-path",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "postern.dev/local-path", "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
            "spec": {"clusterIP": DNS_SERVICE, "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "kube-dns-testbed", "namespace": "kube-system", "labels": {
                "kubernetes.io/service-name": "kube-dns",
                "endpointslice.kubernetes.io/managed-by": "testbed.postern.dev",
            }},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [cluster.first().ip], "conditions": {"ready": true}}],
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
            ],
        }),
    ];
    items.extend(role(
        "system:coredns",
        &json!([
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"],
             "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ]),
    ));
    items.extend(role(
        "system:local-path",
        &json!([
            {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": [""], "resources": ["persistentvolumes"],
             "verbs": ["get", "list", "watch", "create", "delete"]},
            {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": ["get"]},
        ]),
    ));
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
