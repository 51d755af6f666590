//! Names and places of one checkout's cluster, all derived from the checkout's path, so that two
//! checkouts have two clusters.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::paths;

pub(super) const SERVICE_CIDR: &str = "10.96.0.0/16";
pub(super) const API_SERVICE: &str = "10.96.0.1";
pub(super) const DNS_SERVICE: &str = "10.96.0.10";
/// The hosts of images in the tests' registries, and the addresses of their Services.
pub(super) const REGISTRIES: [(&str, &str); 2] =
    [("registry.test", "10.96.0.50"), ("token-registry.test", "10.96.0.51")];
pub(super) const NODE_CIDR: &str = "10.245.0.0/24";
pub(super) const POD_CIDR: &str = "10.244.0.0/16";
pub(super) const API_PORT: u16 = 6443;

/// The file with the number of nodes, if there is more than one.
const NODES: &str = "nodes";

/// One checkout's cluster. Each has its own network namespaces, so addresses may repeat.
pub(super) struct Cluster {
    pub(super) id: String,
    /// What people look at: kubeconfig, programs, keys, logs. Below target/.
    pub(super) dir: PathBuf,
    /// Sockets, pid files and mounts: short, because a socket's path may have 107 bytes.
    pub(super) run: PathBuf,
    pub(super) nodes: Vec<Node>,
}

/// One node: a network namespace with a kubelet and a container runtime.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) ip: String,
    pub(super) pod_cidr: String,
    pub(super) netns: String,
    pub(super) cgroup: String,
    /// Sockets and other things of the moment.
    pub(super) run: PathBuf,
    /// Files of size: images, volumes, container file systems. On the checkout's disk, by a short path.
    pub(super) data: PathBuf,
    /// Its configuration files.
    pub(super) etc: PathBuf,
}

impl Cluster {
    pub(super) fn of_checkout() -> Self {
        let root = paths::root();
        let id = paths::digest(root.as_os_str().as_encoded_bytes())[..8].to_owned();
        let dir = paths::target().join("testbed");
        let run = PathBuf::from(format!("/run/postern-{id}"));
        let node = |number: usize| Node {
            name: format!("node-{number}"),
            ip: format!("10.245.0.{number}"),
            pod_cidr: format!("10.244.{number}.0/24"),
            netns: format!("postern-{id}-{number}"),
            cgroup: format!("postern-{id}-{number}"),
            run: run.join(format!("n{number}")),
            data: run.join(format!("data/n{number}")),
            etc: dir.join(format!("etc/node-{number}")),
        };
        let count = fs::read_to_string(dir.join(NODES)).ok().and_then(|text| text.trim().parse().ok());
        let nodes = (1..=count.unwrap_or(1)).map(node).collect();
        Self { id, dir, run, nodes }
    }

    /// Remembers how many nodes the next cluster has; until it is taken down.
    pub(super) fn remember_nodes(&self, count: usize) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        Ok(fs::write(self.dir.join(NODES), count.to_string())?)
    }

    /// The node whose namespace holds the control plane.
    pub(super) fn first(&self) -> &Node {
        &self.nodes[0]
    }

    /// The nodes beside it.
    pub(super) fn others(&self) -> &[Node] {
        &self.nodes[1..]
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    pub(super) fn bin(&self, program: &str) -> PathBuf {
        self.dir.join("bin").join(program)
    }

    pub(super) fn pki(&self, file: &str) -> String {
        self.dir.join("pki").join(file).display().to_string()
    }

    pub(super) fn etc(&self, file: &str) -> PathBuf {
        self.dir.join("etc").join(file)
    }

    pub(super) fn log(&self, component: &str) -> PathBuf {
        self.dir.join("log").join(format!("{component}.log"))
    }

    pub(super) fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// What `data` paths point to, through a bind mount that makes them short.
    pub(super) fn disk(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.run.join("data")
    }
}

impl Node {
    pub(super) fn containerd_socket(&self) -> String {
        self.run.join("containerd.sock").display().to_string()
    }

    pub(super) fn netns_path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.netns)
    }
}
