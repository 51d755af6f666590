//! Names, and the labels of what belongs to a Job.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;

/// The container of the command.
pub const CONTAINER: &str = "tool";

/// The volume and the directory with the agent's socket, and with the agent itself where the image has none.
pub(crate) const RUN_VOLUME: &str = "postern-run";
/// See [`RUN_VOLUME`].
pub(crate) const RUN_DIRECTORY: &str = "/run/postern";

/// The label by which the Job controller marks the pod.
pub(crate) const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";

/// The length of the random suffix.
const SUFFIX: usize = 8;
/// The longest name of a Job: the pod's label has it as a value.
const LONGEST: usize = 63;

/// A name that no other Job has: `postern-TOOL-SUFFIX`. A long name of a tool is cut, never the suffix.
pub fn new_name(program: &[u8]) -> String {
    name_with(program, &suffix())
}

fn name_with(program: &[u8], suffix: &str) -> String {
    let program = String::from_utf8_lossy(program);
    let tool = Path::new(&*program).file_name().map(|name| name.to_string_lossy().to_lowercase());
    let is_plain = |character: &char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let tool: String = tool
        .unwrap_or_default()
        .chars()
        .map(|character| if is_plain(&character) { character } else { '-' })
        .take(LONGEST - "postern--".len() - SUFFIX)
        .collect();
    match tool.trim_matches('-') {
        "" => format!("postern-{suffix}"),
        tool => format!("postern-{tool}-{suffix}"),
    }
}

/// Eight random characters: the standard library seeds its hashers from the system.
fn suffix() -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("{random:016x}")[..SUFFIX].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label_value_and_keeps_its_suffix() {
        for (program, name) in [
            (&b"dig"[..], "postern-dig-0123abcd"),
            (b"/usr/bin/Python3.12", "postern-python3-12-0123abcd"),
            (b"./-x-", "postern-x-0123abcd"),
            (b"", "postern-0123abcd"),
            (b"/", "postern-0123abcd"),
            ("ü".as_bytes(), "postern-0123abcd"),
        ] {
            assert_eq!(name_with(program, "0123abcd"), name);
        }
        let long = name_with(&[b'a'; 300], "0123abcd");
        assert!(long.len() == LONGEST && long.ends_with("-0123abcd"), "{long}");
        assert_ne!(new_name(b"a"), new_name(b"a"));
    }
}
