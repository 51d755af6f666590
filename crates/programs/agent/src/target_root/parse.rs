//! Pure functions that parse files of `/proc/PID`.

/// Whether a `/proc/PID/cgroup` belongs to the container with this id. Runtimes name a container's cgroup by
/// its id, alone or between a prefix and `.scope`.
pub(super) fn names_container(cgroup: &str, id: &str) -> bool {
    components(cgroup).any(|component| {
        component.split_once(id).is_some_and(|(before, after)| {
            let apart = |byte: Option<u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
            // CRI-O's monitor of a container also has its id, but is a process of the node.
            apart(before.bytes().last()) && apart(after.bytes().next()) && !before.ends_with("conmon-")
        })
    })
}

/// Whether it contains any container id: 64 hexadecimal digits in every runtime of Kubernetes.
pub(super) fn shows_an_id(cgroup: &str) -> bool {
    components(cgroup).any(|component| {
        let words = component.split(|character: char| !character.is_ascii_alphanumeric());
        words.into_iter().any(|word| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

/// The components of every path. A line is `HIERARCHY:CONTROLLERS:PATH`, and a path may contain colons.
fn components(cgroup: &str) -> impl Iterator<Item = &str> {
    cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).flat_map(|path| path.split('/'))
}

/// The start time of a process from `/proc/PID/stat`: field 22, in clock ticks since boot. The second field
/// is the program's name in parentheses, which may contain anything.
pub(super) fn started(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The identity of a process for the kernel's checks, from `/proc/PID/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The real, effective and saved UID.
    pub uids: [u32; 3],
    /// The same for the GID.
    pub gids: [u32; 3],
    /// The permitted capabilities, one bit each.
    pub capabilities: u64,
}

impl Identity {
    pub(super) fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let three = |name| {
            let mut numbers = field(name)?.split_ascii_whitespace().map_while(|number| number.parse().ok());
            Some([numbers.next()?, numbers.next()?, numbers.next()?])
        };
        let capabilities = u64::from_str_radix(field("CapPrm")?.trim(), 16).ok()?;
        Some(Self { uids: three("Uid")?, gids: three("Gid")?, capabilities })
    }

    /// Why this process may not access that one, in the order of the kernel's checks.
    pub(super) fn denial_reason(&self, that: &Self) -> String {
        let (uid, gid) = (self.uids[1], self.gids[1]);
        if that.uids != [uid; 3] || that.gids != [gid; 3] {
            let its = format!("{}:{}", that.uids[1], that.gids[1]);
            return format!(
                "the container runs as UID:GID {its} and this agent as {uid}:{gid}, which must be the same"
            );
        }
        let more = that.capabilities & !self.capabilities;
        if more != 0 {
            return format!("the container has capabilities that this agent lacks (mask {more:#x})");
        }
        "its process is not dumpable, or a security module (AppArmor, SELinux) denies access".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "147e0b15c89e875b723990b51f6b8f50c510b489b8e38c20fb34cc4554d9adc6";

    #[test]
    fn every_runtime_names_the_cgroup_by_the_id() {
        let pod = "kubepods-besteffort-pod8c4085fb_601c_4e13_8499_233fa9783320.slice";
        let seen = [
            // cgroup v1, containerd with the cgroupfs driver, as on the testbed.
            format!(
                "4:memory:/kubepods/besteffort/pod8c4085fb/{ID}\n0::/kubepods/besteffort/pod8c4085fb/{ID}\n"
            ),
            // cgroup v2 from a neighbouring private cgroup namespace.
            format!("0::/../{ID}\n"),
            format!("0::/../../{pod}/cri-containerd-{ID}.scope\n"),
            // With nested cgroups.
            format!("0::/../crio-{ID}.scope/container/init.scope\n"),
            format!("1:name=systemd:/system.slice/containerd.service/{pod}:cri-containerd:{ID}\n"),
            format!("12:pids:/kubepods.slice/{pod}/docker-{ID}.scope\n"),
        ];
        for text in seen {
            assert!(names_container(&text, ID) && shows_an_id(&text), "{text}");
        }
    }

    #[test]
    fn similar_cgroups_do_not_match() {
        let longer = format!("0::/../{ID}0\n0::/../a{ID}\n");
        assert!(!names_container(&longer, ID) && !shows_an_id(&longer));
        assert!(!names_container(&format!("0::/../crio-conmon-{ID}.scope\n"), ID));
        // A controller's name is not a path.
        assert!(!names_container(&format!("1:{ID}:/\n"), ID));
        for text in ["0::/\n", "", "0::/user.slice/user-0.slice/session-1.scope\n"] {
            assert!(!names_container(text, ID) && !shows_an_id(text), "{text}");
        }
    }

    #[test]
    fn the_start_time_is_parsed_after_any_name() {
        let rest = "S 0 14 14 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 7 0 5213377 1266667520 512 1844";
        assert_eq!(started(&format!("14 (app) {rest}\n")), Some(5_213_377));
        assert_eq!(started(&format!("14 (a) b (c) {rest}\n")), Some(5_213_377));
        assert_eq!(started("14 (app) S 0\n"), None);
        assert_eq!(started(""), None);
    }

    fn status(uid: &str, gid: &str, capabilities: &str) -> Identity {
        Identity::parse(&format!(
            "Name:\tapp\nUid:\t{uid}\nGid:\t{gid}\nGroups:\t0\nCapInh:\t0000000000000000\nCapPrm:\t{capabilities}\n"
        ))
        .unwrap()
    }

    #[test]
    fn the_reason_follows_the_order_of_the_kernel() {
        let none = "0000000000000000";
        let (app, root) = ("65532\t65532\t65532\t65532", "0\t0\t0\t0");
        let target = status(app, root, none);
        assert_eq!(target, Identity { uids: [65_532; 3], gids: [0; 3], capabilities: 0 });
        let words = status(app, app, none).denial_reason(&target);
        assert!(words.contains("65532:0 and this agent as 65532:65532"), "{words}");
        let words = status(root, root, none).denial_reason(&status(root, root, "00000000a80425fb"));
        assert!(words.contains("capabilities") && words.contains("0xa80425fb"), "{words}");
        // A process that may still change back is not the same.
        assert!(target.denial_reason(&status("0\t65532\t65532\t65532", root, none)).contains("UID:GID"));
        assert!(target.denial_reason(&target).contains("not dumpable"));
        assert_eq!(Identity::parse("Uid:\t1\n"), None);
    }
}
