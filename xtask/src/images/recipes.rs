//! What each image holds.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::archive::Files;
use crate::say::Progress;
use crate::testbed::{self, Programs};
use crate::{debian, dist, paths, sh};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const USER: &str = "65532:65532";
const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

const TOOLS: [&str; 13] = [
    "bash",
    "dash",
    "coreutils",
    "tar",
    "gzip",
    "curl",
    "findutils",
    "grep",
    "sed",
    "procps",
    "util-linux",
    "libc-bin",
    "base-files",
];
/// Dependencies of package scripts, which never run here.
const TOOLS_LEAVE_OUT: [&str; 6] =
    ["perl-base", "debconf", "mawk", "debianutils", "openssl", "ca-certificates"];

/// One image: its name on the command line and its reference in the cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) name: &'static str,
    pub(super) reference: &'static str,
    recipe: Recipe,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recipe {
    Pause,
    DebianTools,
    Busybox,
    ScratchStatic,
    Ops,
    OpsStatic,
    OpsIbm,
    Agent,
    Controller,
    Registry,
    Program,
}

pub(super) const ALL: [Image; 11] = [
    Image { name: "pause", reference: super::SANDBOX, recipe: Recipe::Pause },
    Image {
        name: "debian-tools",
        reference: "docker.io/library/debian-tools:12",
        recipe: Recipe::DebianTools,
    },
    Image { name: "busybox", reference: "docker.io/library/busybox:1.35", recipe: Recipe::Busybox },
    Image {
        name: "scratch-static",
        reference: "docker.io/library/scratch-static:1",
        recipe: Recipe::ScratchStatic,
    },
    Image { name: "postern-ops", reference: "ghcr.io/postern-dev/postern-ops:dev", recipe: Recipe::Ops },
    Image {
        name: "postern-ops-static",
        reference: "ghcr.io/postern-dev/postern-ops-static:dev",
        recipe: Recipe::OpsStatic,
    },
    Image {
        name: "postern-ops-ibm",
        reference: "ghcr.io/postern-dev/postern-ops-ibm:dev",
        recipe: Recipe::OpsIbm,
    },
    Image {
        name: "postern-agent",
        reference: "ghcr.io/postern-dev/postern-agent:dev",
        recipe: Recipe::Agent,
    },
    Image {
        name: "postern-controller",
        reference: "ghcr.io/postern-dev/postern-controller:dev",
        recipe: Recipe::Controller,
    },
    Image { name: "registry", reference: "docker.io/library/registry:3", recipe: Recipe::Registry },
    Image { name: "postern", reference: "ghcr.io/postern-dev/postern:dev", recipe: Recipe::Program },
];

/// What recipes draw on.
pub(super) struct Pantry<'a> {
    pub(super) programs: &'a Programs,
    pub(super) progress: Progress,
}

/// An image about to be made: what it is made of, as text that changes with it, and how.
pub(super) struct Plan {
    pub(super) inputs: String,
    pub(super) config: Value,
    layers: Vec<Box<dyn FnOnce() -> Result<Files>>>,
}

impl Plan {
    pub(super) fn layers(self) -> Result<Vec<Vec<u8>>> {
        self.layers.into_iter().map(|make| make()?.layer()).collect()
    }
}

impl Image {
    /// Whether the image holds the agent, which needs its crate.
    pub(super) fn has_agent(self) -> bool {
        matches!(self.recipe, Recipe::Ops | Recipe::OpsStatic | Recipe::OpsIbm | Recipe::Agent)
    }

    pub(super) fn plan(self, pantry: &Pantry) -> Result<Plan> {
        let program = |name: &str| pantry.programs.path(name);
        match self.recipe {
            Recipe::Pause => single(
                &[program("pause")],
                json!({"Entrypoint": ["/pause"], "User": "65535:65535", "WorkingDir": "/"}),
                |from| {
                    let mut files = Files::default();
                    files.file("pause", &from[0], 0o755);
                    Ok(files)
                },
            ),
            Recipe::ScratchStatic => single(
                &[program("app")],
                json!({"Entrypoint": ["/app"], "User": USER, "WorkingDir": "/"}),
                |from| {
                    let mut files = Files::default();
                    files.directory("tmp", 0o1777).file("app", &from[0], 0o755);
                    Ok(files)
                },
            ),
            Recipe::Busybox => {
                let root = debian::rootfs(pantry.progress, &["busybox-static"], &["libc6"])?;
                let config = json!({"Cmd": ["sh"], "Env": [PATH], "WorkingDir": "/"});
                single(&[root], config, |from| busybox(&from[0]))
            }
            Recipe::DebianTools => {
                let root = debian::rootfs(pantry.progress, &TOOLS, &TOOLS_LEAVE_OUT)?;
                single(&[root], json!({"Cmd": ["bash"], "Env": [PATH], "WorkingDir": "/"}), |from| {
                    tools(&from[0])
                })
            }
            Recipe::Ops => ops(pantry),
            // The ops image with a stand-in for IBM Cloud and for its command.
            Recipe::OpsIbm => {
                let mut plan = ops(pantry)?;
                plan.add(vec![dist::cloud()?], |from| {
                    let mut files = Files::default();
                    files
                        .file("usr/local/bin/cloud", &from[0], 0o755)
                        .link("usr/local/bin/ibmcloud", "cloud");
                    Ok(files)
                })?;
                Ok(plan)
            }
            // The program alone, for sidecars.
            Recipe::Program => {
                let config = json!({"Entrypoint": ["/postern"], "User": USER, "WorkingDir": "/"});
                single(&[dist::postern()?], config, |from| {
                    let mut files = Files::default();
                    files.directory("tmp", 0o1777).file("postern", &from[0], 0o755);
                    Ok(files)
                })
            }
            // The agent alone, for init containers. They say themselves which user they need.
            Recipe::Agent => {
                let config = json!({"Entrypoint": ["/usr/local/bin/postern-agent"], "User": USER});
                single(&[dist::agent()?], config, |from| {
                    let mut files = Files::default();
                    files.directory("usr", 0o755).directory("usr/local", 0o755);
                    files.directory("usr/local/bin", 0o755);
                    files.file("usr/local/bin/postern-agent", &from[0], 0o755);
                    Ok(files)
                })
            }
            Recipe::Controller => {
                let config = json!({"Entrypoint": ["/postern-controller"], "User": USER, "WorkingDir": "/"});
                single(&[dist::controller()?], config, |from| {
                    let mut files = Files::default();
                    files.file("postern-controller", &from[0], 0o755);
                    Ok(files)
                })
            }
            // The registry of the distribution project.
            Recipe::Registry => {
                let config = json!({"Entrypoint": ["/registry"], "User": USER, "WorkingDir": "/"});
                let from = testbed::registry(pantry.progress)?;
                single(&[from], config, |from| {
                    let mut files = Files::default();
                    files.directory("tmp", 0o1777).file("registry", &from[0], 0o755);
                    Ok(files)
                })
            }
            Recipe::OpsStatic => {
                single(&[program("kubectl"), dist::agent()?, program("app")], ops_config(false), |from| {
                    let mut files = Files::default();
                    files.directory("tmp", 0o1777).directory("usr", 0o755).directory("usr/local", 0o755);
                    files.directory("usr/local/bin", 0o755).directory("etc", 0o755);
                    files.file("usr/local/bin/kubectl", &from[0], 0o755);
                    files.file("usr/local/bin/postern-agent", &from[1], 0o755);
                    files.file("usr/local/bin/app", &from[2], 0o755);
                    home(&mut files);
                    Ok(files)
                })
            }
        }
    }
}

/// The tools, kubectl and the agent.
fn ops(pantry: &Pantry) -> Result<Plan> {
    let root = debian::rootfs(pantry.progress, &TOOLS, &TOOLS_LEAVE_OUT)?;
    let mut plan = single(&[root], ops_config(true), |from| tools(&from[0]))?;
    plan.add(vec![pantry.programs.path("kubectl"), dist::agent()?], |from| {
        let mut files = Files::default();
        files.directory("usr/local/bin", 0o755);
        files.file("usr/local/bin/kubectl", &from[0], 0o755);
        files.file("usr/local/bin/postern-agent", &from[1], 0o755);
        home(&mut files);
        Ok(files)
    })?;
    Ok(plan)
}

fn ops_config(tools: bool) -> Value {
    let path = if tools { PATH } else { "PATH=/usr/local/bin" };
    json!({
        "Entrypoint": ["/usr/local/bin/postern-agent", "serve"], "User": USER, "WorkingDir": "/home/ops",
        "Env": [path, "HOME=/home/ops"],
    })
}

fn home(files: &mut Files) {
    files.directory("home", 0o755).directory("home/ops", 0o775).owned("home/ops", 65532, 0);
    files.text("etc/passwd", &format!("{PASSWD}ops:x:65532:65532:ops:/home/ops:/bin/sh\n"));
    files.text("etc/group", &format!("{GROUP}ops:x:65532:\n"));
}

fn single(
    from: &[PathBuf],
    config: Value,
    make: impl FnOnce(&[PathBuf]) -> Result<Files> + 'static,
) -> Result<Plan> {
    let inputs = format!("{config} {} {}", include_str!("recipes.rs"), include_str!("archive.rs"));
    let mut plan = Plan { inputs, config, layers: Vec::new() };
    plan.add(from.to_vec(), make)?;
    Ok(plan)
}

impl Plan {
    fn add(
        &mut self,
        from: Vec<PathBuf>,
        make: impl FnOnce(&[PathBuf]) -> Result<Files> + 'static,
    ) -> Result<()> {
        for path in &from {
            self.inputs.push('\n');
            self.inputs.push_str(&paths::fingerprint(path)?);
        }
        self.layers.push(Box::new(move || make(&from)));
        Ok(())
    }
}

fn tools(root: &std::path::Path) -> Result<Files> {
    let mut files = Files::default();
    files.tree(root)?;
    files.directory("tmp", 0o1777).directory("root", 0o700).directory("etc", 0o755);
    files.text("etc/passwd", PASSWD).text("etc/group", GROUP).text("etc/nsswitch.conf", "hosts: files dns\n");
    if !files.has("usr/bin/sh") {
        files.link("usr/bin/sh", "dash");
    }
    Ok(files)
}

/// The static program, and a link for every applet it names.
fn busybox(root: &std::path::Path) -> Result<Files> {
    let program = root.join("usr/bin/busybox");
    let applets =
        sh::output(&mut sh::command(&program, ["--list"])).context("ask busybox for its applets")?;
    let mut files = Files::default();
    files.directory("bin", 0o755).directory("tmp", 0o1777).directory("root", 0o700).directory("etc", 0o755);
    files.file("bin/busybox", &program, 0o755);
    files.text("etc/passwd", PASSWD).text("etc/group", GROUP);
    for applet in applets.lines().map(str::trim).filter(|a| !a.is_empty() && *a != "busybox") {
        files.link(&format!("bin/{applet}"), "busybox");
    }
    Ok(files)
}
