//! Decisions and messages that all ends of a copy share.

use crate::{link_target, name};
use postern_wire::copy::{Delete, Kind, ReceiveSpec, Stamp};

/// The partial file of an earlier copy has other content.
pub const STALE: &str = "it has changed since an interrupted copy of it; remove the unfinished file with \
                         `postern cp --clean DESTINATION` to copy it again";

/// The partial file of an earlier copy was resumed and turned out to have other content.
pub const RESUMED_DIFFERS: &str =
    "the unfinished file of an interrupted copy had other content and was removed; copy it again";

/// The partial file that remains of a file that could not be written completely.
pub fn kept(path: &[u8]) -> String {
    format!(
        "; the unfinished file {} is kept so that the copy can resume; `postern cp --clean` removes it",
        name::show(&name::partial(name::split(path).1))
    )
}

/// The source's file changed since its content was begun.
pub const CHANGED: &str = "it changed while it was copied";

/// The destination stopped a file; it reports the reason itself.
pub const STOPPED: &str = "the destination stopped receiving it";

/// The hashes of the two ends differ.
pub const DIFFERS: &str = "what arrived is not what was sent: its hash differs";

/// A path was announced again before it was in place.
pub const DUPLICATE: &str = "it was sent twice";

/// A directory with a setgid bit at the source.
pub const SETGID_DROPPED: &str = "without its setgid bit, which --specials keeps";

/// An existing directory cannot be replaced.
pub const DIRECTORY: &str = "a directory exists at this path";

/// Why `--update` skips a file.
pub const NEWER: &str = "it is newer at the destination";

/// The destination received more entries than [`postern_wire::copy::Limits::entries`].
pub fn many_entries(limit: u64) -> String {
    format!("received more than {limit} entries; raise the limit with --max-entries")
}

/// The destination received more bytes than [`postern_wire::copy::Limits::bytes`].
pub fn many_bytes(limit: u64) -> String {
    format!("received more than {limit} bytes; raise the limit with --max-bytes")
}

/// The source has more entries than [`postern_wire::copy::Limits::entries`].
pub fn many_found(limit: u64) -> String {
    format!("there are more than {limit} entries; raise the limit with --max-entries")
}

/// Entries of a destination that the source does not have: files, directories and links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Surplus {
    /// Entries that would be removed.
    pub extra: u64,
    /// How many of them are already gone because a received entry replaced them.
    pub gone: u64,
    /// Entries at the destination, including those.
    pub there: u64,
    /// Entries of the source.
    pub source: u64,
}

/// Why none of the surplus may be removed; `None` if it may be.
pub fn refuses_deletion(delete: Delete, surplus: Surplus) -> Option<String> {
    let Surplus { extra, gone, there, source } = surplus;
    let over = |limit: String| {
        let removed = match gone {
            0 => "none was removed".to_owned(),
            gone => format!("only {gone} were removed, because received entries replaced them"),
        };
        format!(
            "--delete would remove {extra} of the {there} files, directories and links at the destination, and \
             --max-delete allows {limit}; {removed}"
        )
    };
    match delete {
        Delete::AtMost(most) if extra > most => Some(over(most.to_string())),
        Delete::Percent(most) if u128::from(extra) * 100 > u128::from(there) * u128::from(most) => {
            Some(over(format!("{most}%")))
        }
        Delete::Extra if source == 0 && extra > 0 => Some(
            "the source is empty, and --delete would remove everything at the destination; nothing was removed \
             (is the source's volume mounted? --delete=all removes it anyway)"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Whether both have the same modification time. Accepts file systems and tools with whole seconds.
pub fn same_time(one: Stamp, other: Stamp) -> bool {
    one.seconds == other.seconds && (one.nanos == other.nanos || one.nanos == 0 || other.nanos == 0)
}

/// Whether a file was modified later than another.
pub fn is_newer(one: Stamp, other: Stamp) -> bool {
    (one.seconds, one.nanos) > (other.seconds, other.nanos)
}

/// Why a link or special file is not created; `own` is its path relative to the target.
pub fn refused(spec: &ReceiveSpec, kind: &Kind, own: &[u8]) -> Option<String> {
    match kind {
        Kind::Symlink(target) if target.len() > name::PATH_MAX => {
            Some("a symlink with an invalid target".to_owned())
        }
        Kind::Symlink(target) if !spec.unsafe_links && !link_target::stays_inside(own, target) => {
            Some(format!(
                "a symlink to {}, which is absolute or may point outside what is copied; --unsafe-links allows it",
                name::show(target)
            ))
        }
        Kind::HardLink(to) if to.is_empty() || name::check(to, spec.limits.depth).is_err() => {
            Some("a hard link to a file outside what is copied".to_owned())
        }
        Kind::Fifo | Kind::Device { .. } if !spec.specials => {
            Some("a device or FIFO; --specials allows it".to_owned())
        }
        _ => None,
    }
}

/// Why two sources with the same name, or without a name, cannot be copied together.
pub fn duplicate_source(called: &[u8]) -> String {
    match called {
        b"" => {
            "the contents of several directories are not copied at once: copy one after the other".to_owned()
        }
        called => format!(
            "two of the sources are called {}: the second would replace the first",
            name::show(called)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletion_limits_are_enforced() {
        let refused = |delete, (extra, there, source)| {
            refuses_deletion(delete, Surplus { extra, gone: 0, there, source }).is_some()
        };
        for (delete, counts, expected) in [
            (Delete::Extra, (50, 50, 0), true),
            (Delete::Extra, (0, 0, 0), false),
            (Delete::Extra, (50, 50, 1), false),
            (Delete::All, (50, 50, 0), false),
            (Delete::AtMost(10), (10, 50, 0), false),
            (Delete::AtMost(10), (11, 50, 40), true),
            (Delete::AtMost(0), (1, 50, 40), true),
            (Delete::Percent(50), (25, 50, 0), false),
            (Delete::Percent(50), (26, 50, 40), true),
            (Delete::Percent(0), (1, 50, 40), true),
            (Delete::Percent(100), (50, 50, 0), false),
        ] {
            assert_eq!(refused(delete, counts), expected, "{delete:?} {counts:?}");
        }
    }
}
