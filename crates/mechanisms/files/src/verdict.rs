//! What every end decides and says alike, whatever it reads and writes by.

use crate::{inside, name};
use postern_wire::copy::{Compare, Delete, Entry, Fate, Kind, ReceiveSpec, Stamp};

/// What an earlier copy left is of another content.
pub const STALE: &str = "it has changed since a copy of it was begun and interrupted; remove what that left with \
                         `postern cp --clean DESTINATION` to copy it anew";

/// What an earlier copy left, and was gone on from, is of another content.
pub const ANOTHER: &str =
    "what an interrupted copy of it had left is of another content, and is removed; copy it again";

/// What stays of a file of this path that could not be written to its end.
pub fn kept(path: &[u8]) -> String {
    format!(
        "; what came of it stays beside its place as {}, to go on from, or for `postern cp --clean`",
        name::show(&name::partial(name::split(path).1))
    )
}

/// A source's file is not what it was when its content was begun.
pub const CHANGED: &str = "it changed while it was copied";

/// The destination asked for no more of a file; it says itself why.
pub const STOPPED: &str = "the destination takes no more of it";

/// The hashes of both ends are not the same.
pub const DIFFERS: &str = "what arrived is not what was sent: its hash differs";

/// A path that is not in place yet was told of again.
pub const TWICE: &str = "it came twice";

/// A directory that files inherited their group from at the source.
pub const UNGROUPED: &str = "without its setgid bit, which --specials keeps";

/// What `--update` leaves alone.
pub const NEWER: &str = "it is newer here";

/// More entries than [`postern_wire::copy::Limits::entries`] came to a destination.
pub fn many_entries(limit: u64) -> String {
    format!("more than {limit} entries came; raise the limit with --max-entries")
}

/// More bytes than [`postern_wire::copy::Limits::bytes`] came to a destination.
pub fn many_bytes(limit: u64) -> String {
    format!("more than {limit} bytes came; raise the limit with --max-bytes")
}

/// A source has more entries than [`postern_wire::copy::Limits::entries`].
pub fn many_found(limit: u64) -> String {
    format!("there are more than {limit} entries; raise the limit with --max-entries")
}

/// What a destination has besides what the source has, counted in files, directories and links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Surplus {
    /// Entries that would be removed.
    pub extra: u64,
    /// Those of them that are gone already, as something that came has their place.
    pub gone: u64,
    /// Entries that are there, with those.
    pub there: u64,
    /// Entries that the source has.
    pub source: u64,
}

/// Why none of the surplus is removed; nothing if it may be.
pub fn keeps_surplus(delete: Delete, surplus: Surplus) -> Option<String> {
    let Surplus { extra, gone, there, source } = surplus;
    let over = |limit: String| {
        let removed = match gone {
            0 => "none was removed".to_owned(),
            gone => format!("only {gone} were, as something that came has their place"),
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
             (is the source's volume mounted? --delete=all removes all the same)"
                .to_owned(),
        ),
        _ => None,
    }
}

/// Whether both were changed at the same moment. File systems and tools that keep whole seconds are believed.
pub fn same_time(one: Stamp, other: Stamp) -> bool {
    one.seconds == other.seconds && (one.nanos == other.nanos || one.nanos == 0 || other.nanos == 0)
}

/// Whether a file was changed later than another.
pub fn is_newer(one: Stamp, other: Stamp) -> bool {
    (one.seconds, one.nanos) > (other.seconds, other.nanos)
}

/// Whether a file of `size` bytes that is there, and was changed at `own`, is left as it is, without a look at its content;
/// `coming` is the size of what would replace it.
pub fn left_alone(
    spec: &ReceiveSpec,
    entry: &Entry,
    coming: u64,
    size: u64,
    own: Stamp,
) -> Option<(Fate, String)> {
    let equal = size == coming && same_time(own, entry.stamp);
    if equal && entry.settled {
        return Some((Fate::Same, String::new()));
    }
    if equal && spec.compare == Compare::Times {
        return Some((Fate::Unchanged, String::new()));
    }
    if equal && coming == 0 {
        return Some((Fate::Same, String::new()));
    }
    (spec.update && is_newer(own, entry.stamp)).then(|| (Fate::Skipped, NEWER.to_owned()))
}

/// Why a link or special file is not made; `own` is its path below what the user named.
pub fn refused(spec: &ReceiveSpec, kind: &Kind, own: &[u8]) -> Option<String> {
    match kind {
        Kind::Symlink(target) if target.len() > name::PATH_MAX => Some("a symlink to no path".to_owned()),
        Kind::Symlink(target) if !spec.unsafe_links && !inside::stays(own, target) => Some(format!(
            "a symlink to {}, which is absolute or may lead out of what is copied; --unsafe-links makes it all the same",
            name::show(target)
        )),
        Kind::HardLink(to) if to.is_empty() || name::check(to, spec.limits.depth).is_err() => {
            Some("a hard link out of what is copied".to_owned())
        }
        Kind::Fifo | Kind::Device { .. } if !spec.specials => {
            Some("a device or fifo; --specials makes it all the same".to_owned())
        }
        _ => None,
    }
}

/// Why nothing can be put there: `missing` is the directory, which the symlink `link` leads to, if one does.
pub fn no_directory(missing: &str, link: Option<&str>) -> String {
    match link {
        Some(link) => format!(
            "{link} is a symlink that leads into {missing}, and there is no such directory; make it first"
        ),
        None => format!("there is no directory {missing} to copy into; make it first"),
    }
}

/// Why two sources of one name, or without any, are not copied at once.
pub fn twice_told(called: &[u8]) -> String {
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
    fn too_much_is_never_removed() {
        let refused = |delete, (extra, there, source)| {
            keeps_surplus(delete, Surplus { extra, gone: 0, there, source }).is_some()
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
