//! The init container that gives volumes to a user.

use crate::command::chown_command;
use crate::owner::Owner;
use postern_kube::k8s_openapi::api::core::v1::{
    Capabilities, Container, ResourceRequirements, SeccompProfile, SecurityContext, VolumeMount,
};
use postern_kube::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// The name of the init container. A second one, for another owner, is `postern-own-2`.
pub const NAME: &str = "postern-own";

/// The path of the agent in its image.
const AGENT: &str = "/usr/local/bin/postern-agent";

/// A volume, where the workload mounts it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// The name of the pod's volume.
    pub volume: String,
    /// Where it is mounted.
    pub path: String,
    /// The part of the volume that is mounted.
    pub sub_path: Option<String>,
}

/// What changes the owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Program {
    /// `postern-agent own`, from an image that has the agent. It needs no shell.
    #[default]
    Agent,
    /// `chown -R`, from an image that has a shell, such as the workload's own.
    Shell,
}

/// An init container that gives mounts to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitContainer {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// What changes the owner.
    pub program: Program,
    /// The new owner.
    pub owner: Owner,
    /// The mounts.
    pub mounts: Vec<Mount>,
    /// Whether files keep their set-user-ID and set-group-ID bits; by the agent only.
    pub keep_setuid: bool,
    /// Whether files with several hard links are changed. `chown -R` always does.
    pub allow_hard_links: bool,
}

/// The init container that changes the owner by `chown -R`, from an image that has a shell.
///
/// `uid` and `gid` must be those of the main container; [`plan()`](crate::plan()) reads them there. It runs as root, so
/// a namespace that enforces the Pod Security Standard `restricted` refuses it.
pub fn root_chown_init_container(name: &str, image: &str, uid: u32, gid: u32, mounts: &[Mount]) -> Container {
    let container = InitContainer {
        name: name.to_owned(),
        image: image.to_owned(),
        program: Program::Shell,
        owner: Owner { uid, gid },
        mounts: mounts.to_vec(),
        keep_setuid: false,
        allow_hard_links: true,
    };
    container.build()
}

impl InitContainer {
    /// The container, as it stands in a pod.
    ///
    /// It is root with only the capabilities that it needs, which the Pod Security Standard `baseline` permits.
    pub fn build(&self) -> Container {
        let Self { name, image, program: _, owner: _, mounts, keep_setuid: _, allow_hard_links: _ } = self;
        let mounts = mounts.iter().map(|Mount { volume, path, sub_path }| VolumeMount {
            name: volume.clone(),
            mount_path: path.clone(),
            sub_path: sub_path.clone(),
            ..VolumeMount::default()
        });
        Container {
            name: name.clone(),
            image: Some(image.clone()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(self.command().iter().map(|word| literal(word)).collect()),
            volume_mounts: Some(mounts.collect()),
            security_context: Some(self.security_context()),
            resources: Some(resources()),
            // So that `kubectl describe` shows why it failed.
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            ..Container::default()
        }
    }

    fn command(&self) -> Vec<String> {
        let paths: Vec<&str> = self.mounts.iter().map(|mount| mount.path.as_str()).collect();
        let Owner { uid, gid } = self.owner;
        if self.program == Program::Shell {
            return ["sh", "-ec", &chown_command(uid, gid, &paths)].map(str::to_owned).to_vec();
        }
        let flags = [("--keep-setuid", self.keep_setuid), ("--allow-hard-links", self.allow_hard_links)];
        let flags = flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.to_owned());
        let mut command = vec![AGENT.to_owned(), "own".to_owned()];
        command.extend(flags);
        command.extend([self.owner.to_string(), "--".to_owned()]);
        command.extend(paths.into_iter().map(str::to_owned));
        command
    }

    fn security_context(&self) -> SecurityContext {
        // CHOWN changes owners; DAC_OVERRIDE enters directories of other users; FOWNER and FSETID put set-user-ID bits
        // back. DAC_READ_SEARCH would be enough to enter, but `baseline` does not permit it.
        let mut add = vec!["CHOWN", "DAC_OVERRIDE", "FOWNER"];
        if self.keep_setuid {
            add.push("FSETID");
        }
        SecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            privileged: Some(false),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                add: Some(add.into_iter().map(str::to_owned).collect()),
                drop: Some(vec!["ALL".to_owned()]),
            }),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..SecurityContext::default()
        }
    }
}

/// Enough for a tree of millions of files; a quota of the namespace may ask for requests and limits.
fn resources() -> ResourceRequirements {
    let quantities = |pairs: [(&str, &str); 2]| {
        let pairs = pairs.map(|(name, quantity)| (name.to_owned(), Quantity(quantity.to_owned())));
        BTreeMap::from(pairs)
    };
    ResourceRequirements {
        requests: Some(quantities([("cpu", "10m"), ("memory", "16Mi")])),
        limits: Some(quantities([("cpu", "1"), ("memory", "128Mi")])),
        claims: None,
    }
}

/// The word with `$` doubled: the kubelet expands `$(NAME)` in commands.
fn literal(word: &str) -> String {
    word.replace('$', "$$")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(volume: &str, path: &str) -> Mount {
        Mount { volume: volume.to_owned(), path: path.to_owned(), sub_path: None }
    }

    #[test]
    fn the_agent_gets_each_path_as_a_word() {
        let mut container = InitContainer {
            name: NAME.to_owned(),
            image: "agent:1".to_owned(),
            program: Program::Agent,
            owner: Owner { uid: 1000, gid: 2000 },
            mounts: vec![mount("data", "/data"), mount("logs", "/lo gs/$(HOME)")],
            keep_setuid: false,
            allow_hard_links: false,
        };
        let built = container.build();
        let want = [AGENT, "own", "1000:2000", "--", "/data", "/lo gs/$$(HOME)"];
        assert_eq!(built.command.unwrap(), want);
        let context = built.security_context.unwrap();
        assert_eq!(context.capabilities.unwrap().add.unwrap(), ["CHOWN", "DAC_OVERRIDE", "FOWNER"]);
        assert_eq!((context.run_as_user, context.run_as_non_root), (Some(0), Some(false)));
        (container.keep_setuid, container.allow_hard_links) = (true, true);
        let built = container.build();
        assert_eq!(built.command.unwrap()[2..4], ["--keep-setuid", "--allow-hard-links"]);
        let capabilities = built.security_context.unwrap().capabilities.unwrap();
        assert!(capabilities.add.unwrap().contains(&"FSETID".to_owned()));
    }

    #[test]
    fn the_shell_gets_the_same_command_as_a_template_renderer() {
        let built = root_chown_init_container("own", "web:1", 1, 2, &[mount("data", "/it's $x")]);
        let command = built.command.unwrap();
        assert_eq!(command[..2], ["sh", "-ec"]);
        assert_eq!(command[2], chown_command(1, 2, &["/it's $x"]).replace('$', "$$"));
        assert_eq!(built.volume_mounts.unwrap()[0].mount_path, "/it's $x");
    }
}
