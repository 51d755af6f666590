//! File attributes as metadata of an object.

use aws_sdk_s3::primitives::DateTime;
use postern_wire::copy::Stamp;
use std::collections::HashMap;

const PERMISSIONS: &str = "file-permissions";
const OWNER: &str = "file-owner";
const GROUP: &str = "file-group";
const TIME: &str = "file-mtime";

/// BLAKE3 of the content; used only by postern.
const HASH: &str = "blake3";

/// The modification time in rclone's format, in seconds with a fraction.
const SECONDS: &str = "mtime";

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const TYPE: u32 = 0o170_000;

/// The type that an object represents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    File,
    Directory,
    Symlink,
}

/// The metadata of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Posix {
    pub(crate) kind: Type,
    pub(crate) stamp: Stamp,
    /// BLAKE3 of the content, if it was known when the upload began.
    pub(crate) hash: Option<[u8; 32]>,
    /// Whether mode and owner are stored, rather than defaults.
    pub(crate) kept: bool,
}

impl Posix {
    pub(crate) fn read(metadata: Option<&HashMap<String, String>>, modified: Option<&DateTime>) -> Self {
        let get = |name: &str| metadata.and_then(|all| all.get(name)).map(|value| value.trim());
        let number = |name: &str| get(name).and_then(|text| text.parse().ok());
        let permissions = get(PERMISSIONS).and_then(|text| u32::from_str_radix(text, 8).ok());
        let kind = match permissions.map(|mode| mode & TYPE) {
            Some(SYMLINK) => Type::Symlink,
            Some(DIRECTORY) => Type::Directory,
            _ => Type::File,
        };
        let written = modified.map_or((0, 0), |time| (time.secs(), time.subsec_nanos()));
        let (seconds, nanos) =
            get(TIME).and_then(nanoseconds).or_else(|| get(SECONDS).and_then(fraction)).unwrap_or(written);
        let stamp = Stamp {
            mode: permissions.map_or(0o644, |mode| mode & 0o7777),
            user: number(OWNER).unwrap_or(0),
            group: number(GROUP).unwrap_or(0),
            seconds,
            nanos,
        };
        let hash = get(HASH).and_then(|text| blake3::Hash::from_hex(text).ok()).map(Into::into);
        Self { kind, stamp, hash, kept: permissions.is_some() }
    }

    pub(crate) fn write(&self) -> HashMap<String, String> {
        let Self { kind, stamp: Stamp { mode, user, group, seconds, nanos }, hash, kept: _ } = self;
        let kind = match kind {
            Type::File => REGULAR,
            Type::Directory => DIRECTORY,
            Type::Symlink => SYMLINK,
        };
        let time = i128::from(*seconds) * 1_000_000_000 + i128::from(*nanos);
        let mut all = HashMap::from([
            (PERMISSIONS.to_owned(), format!("{:07o}", kind | mode)),
            (OWNER.to_owned(), user.to_string()),
            (GROUP.to_owned(), group.to_string()),
            (TIME.to_owned(), format!("{time}ns")),
        ]);
        if let Some(hash) = hash {
            all.insert(HASH.to_owned(), blake3::Hash::from_bytes(*hash).to_string());
        }
        all
    }
}

fn nanoseconds(text: &str) -> Option<(i64, u32)> {
    let all: i128 = text.strip_suffix("ns").unwrap_or(text).parse().ok()?;
    let (seconds, nanos) = (all.div_euclid(1_000_000_000), all.rem_euclid(1_000_000_000));
    Some((i64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?))
}

fn fraction(text: &str) -> Option<(i64, u32)> {
    let (seconds, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = rest.chars().chain("000000000".chars()).take(9).collect();
    Some((seconds.parse().ok().filter(|seconds| *seconds >= 0)?, digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_round_trips() {
        for seconds in [0, 1_595_002_920, -1] {
            let stamp = Stamp { mode: 0o4755, user: 7, group: 8, seconds, nanos: 123_456_789 };
            let posix = Posix { kind: Type::Symlink, stamp, hash: Some([7; 32]), kept: true };
            assert_eq!(Posix::read(Some(&posix.write()), None), posix);
        }
    }

    #[test]
    fn metadata_of_other_tools_is_read_and_malformed_is_ignored() {
        let read = |pairs: &[(&str, &str)]| {
            let all = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Posix::read(Some(&all), Some(&DateTime::from_secs(9)))
        };
        let fsx = read(&[
            ("file-permissions", "0100664"),
            ("file-mtime", "1595002920000000000ns"),
            ("file-owner", "500"),
        ]);
        assert_eq!((fsx.kind, fsx.stamp.mode, fsx.stamp.user), (Type::File, 0o664, 500));
        assert_eq!((fsx.stamp.seconds, fsx.stamp.nanos), (1_595_002_920, 0));
        let rclone = read(&[("mtime", "1354040105.5")]);
        assert_eq!(
            (rclone.stamp.seconds, rclone.stamp.nanos, rclone.kept),
            (1_354_040_105, 500_000_000, false)
        );
        let wrong =
            read(&[("file-permissions", "rw"), ("file-mtime", "x"), ("mtime", "-1.5"), ("blake3", "00")]);
        assert_eq!((wrong.stamp.mode, wrong.stamp.seconds, wrong.hash), (0o644, 9, None));
    }
}
