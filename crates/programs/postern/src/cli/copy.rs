//! `postern cp` and `postern sync`.

use super::rules::Rules;
use clap::{Args, ValueEnum};
use postern_exec::ephemeral::User;
use postern_wire::copy::{Compression, Delete, Owner};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(
    override_usage = "postern cp [OPTIONS] <SRC>... <DST>\n       postern cp --clean [OPTIONS] <PATH>",
    after_help = "Examples:\n  postern cp ./site web-0:/srv/               a directory into a directory\n  \
postern cp ./site/. web-0:/srv              its content into a directory\n  postern cp 'web-0:/var/log/*.log' logs/     \
every match, found in the pod\n  postern cp db/pg-0:/dump.sql - | gzip > dump.gz   one file to stdout\n  \
postern cp a-0:/data b-0:/data              from pod to pod\n  postern cp -l app=web ./tls.crt :/etc/tls/    to every \
pod with these labels\n  postern cp -l app=web :/tmp/heap ./heap-{pod}  from every pod\n  postern cp pg-0:/dump s3://backup/pg/           into a \
bucket\n\n\
A path is local, POD:PATH, NAMESPACE/POD:PATH, KIND/NAME:PATH, :PATH with -l, s3://BUCKET/KEY, or - for stdin and stdout. Local names \
with a colon begin with ./ or /. DST works as in cp -r: sources go into DST if it is a directory that exists; otherwise a \
single source gets DST's name. A directory with /. at its end means its content.\n\n\
Every file is verified by BLAKE3 at both ends and replaced atomically. To resume an interrupted copy, run the same command \
again; --clean removes its unfinished files instead."
)]
pub(crate) struct Cp {
    /// The sources, then the destination
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<OsString>,
    #[command(flatten)]
    pub(crate) how: How,
    /// Copy nothing; remove the unfinished files of interrupted copies at PATH and below
    #[arg(long)]
    pub(crate) clean: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern sync ./site web-0:/srv/site\n  postern sync --delete --exclude '*.tmp' ./site \
web-0:/srv/site\n  postern sync --checksum web-0:/data ./data\n\nDST becomes the same as SRC: a directory's content goes \
into DST, which is created if it is missing. Files of the same size and time are skipped; of large files only the changed \
blocks are sent."
)]
pub(crate) struct Sync {
    /// The source
    #[arg(value_name = "SRC")]
    pub(crate) source: OsString,
    /// The destination
    #[arg(value_name = "DST")]
    pub(crate) destination: OsString,
    #[command(flatten)]
    pub(crate) how: How,
    /// Remove entries from DST that SRC does not have, except excluded ones. An empty SRC is refused unless =all is added
    #[arg(long, value_enum, value_name = "all", num_args = 0..=1, require_equals = true, default_missing_value = "extra")]
    pub(crate) delete: Option<Removal>,
    /// Remove nothing if --delete would remove more than this number of entries, or this percentage of those in DST
    #[arg(long, value_name = "N|P%", value_parser = max_delete, requires = "delete")]
    pub(crate) max_delete: Option<Delete>,
    /// Compare files by content instead of size and time
    #[arg(long)]
    pub(crate) checksum: bool,
}

/// What `sync --delete` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Removal {
    /// What SRC does not have, unless SRC is empty
    #[value(hide = true)]
    Extra,
    /// What SRC does not have, even if that is everything
    All,
}

/// How files in a pod are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// The first of the following that works
    Auto,
    /// The agent in the image
    Agent,
    /// An agent that is injected through the container's shell, and removes itself
    Inject,
    /// The container's own tar, with its shell
    Tar,
    /// The container's own shell and small tools
    Shell,
    /// An agent in an ephemeral container, which stays in the pod's status
    Ephemeral,
}

#[derive(Debug, Args)]
pub(crate) struct How {
    /// Every running pod with these labels; write paths in them as :PATH
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// The namespace of pods without one in their path [default: the context's]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The container [default: the default-container annotation, else the first]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// How to reach files in a pod
    #[arg(long, value_enum, default_value_t = Via::Auto, value_name = "WAY")]
    pub(crate) via: Via,
    /// The image with the agent, for an ephemeral container [default: that of the ops pod]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// The container's `UID[:GID]`, if it cannot be detected
    #[arg(long, value_name = "UID[:GID]", value_parser = User::parse)]
    pub(crate) user: Option<User>,
    #[command(flatten)]
    pub(crate) rules: Rules,
    /// No effect, like -R and -a: directories are always copied recursively, with modes and times
    #[arg(short = 'r', short_aliases = ['R', 'a'], help_heading = "What")]
    pub(crate) recursive: bool,
    /// Copy the targets of symlinks
    #[arg(short = 'L', long, help_heading = "What")]
    pub(crate) dereference: bool,
    /// Skip files that are newer at the destination
    #[arg(short, long, help_heading = "What")]
    pub(crate) update: bool,
    /// Print what would be done, without doing it
    #[arg(long, help_heading = "What")]
    pub(crate) dry_run: bool,
    /// Set the source's mode and owner on replaced files, instead of keeping theirs
    #[arg(long, help_heading = "How it is written")]
    pub(crate) preserve: bool,
    /// The numeric owner of written files
    #[arg(long, value_name = "UID[:GID]", value_parser = owner, help_heading = "How it is written")]
    pub(crate) chown: Option<Owner>,
    /// Write into existing files instead of replacing them, such as mounted ones; readers may see partial content
    #[arg(long, help_heading = "How it is written")]
    pub(crate) inplace: bool,
    /// Create symlinks that point outside of the copied tree
    #[arg(long, help_heading = "How it is written")]
    pub(crate) unsafe_links: bool,
    /// With tar or shell, do not compare hashes; files are reported as not verified
    #[arg(long, help_heading = "How it is written")]
    pub(crate) no_verify: bool,
    /// Create devices and FIFOs, and keep setuid and setgid bits
    #[arg(long, help_heading = "How it is written")]
    pub(crate) specials: bool,
    /// auto, off, or a zstd level from 1 to 19
    #[arg(long, value_name = "HOW", value_parser = compression, default_value = "auto", help_heading = "How it travels")]
    pub(crate) compress: Compression,
    /// The highest rate in bytes per second, such as 10M
    #[arg(long, value_name = "RATE", value_parser = size, allow_hyphen_values = true, help_heading = "How it travels")]
    pub(crate) bwlimit: Option<u64>,
    /// The number of pods at a time
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..), help_heading = "How it travels")]
    pub(crate) jobs: u16,
    /// How often to reconnect without progress in between
    #[arg(long, value_name = "N", default_value = "5", help_heading = "How it travels")]
    pub(crate) retries: u32,
    /// The server for s3:// paths, if not AWS [default: from the environment or the profile]
    #[arg(long, value_name = "URL", help_heading = "S3")]
    pub(crate) s3_endpoint: Option<String>,
    /// The bucket's region [default: from the environment or the profile]
    #[arg(long, value_name = "REGION", help_heading = "S3")]
    pub(crate) s3_region: Option<String>,
    /// The provider of the config that issues the keys [default: the AWS SDK's credential chain]
    #[arg(long, value_name = "PROVIDER", help_heading = "S3")]
    pub(crate) s3_identity: Option<String>,
    /// Write the BLAKE3 hash of each verified file to this file, in the format of b3sum
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// The highest number of files, directories and links
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub(crate) max_entries: Option<u64>,
    /// The highest number of bytes of content, such as 100G
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Limits")]
    pub(crate) max_bytes: Option<u64>,
}

fn owner(text: &str) -> Result<Owner, String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let number = |text: &str| match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| format!("{text:?} is no number; names mean nothing in another image"))
            .and_then(|id| match id {
                Some(u32::MAX) => {
                    Err(format!("{text} is nobody's: chown(2) leaves the owner as it is by it"))
                }
                id => Ok(id),
            }),
    };
    let owner = Owner { user: number(user)?, group: group.map(number).transpose()?.flatten() };
    if owner == Owner::default() { Err("write it as UID, UID:GID or :GID".to_owned()) } else { Ok(owner) }
}

/// `N` entries, or `P%` of those that are there.
fn max_delete(text: &str) -> Result<Delete, String> {
    let most = match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().filter(|percent| *percent <= 100).map(Delete::Percent),
        None => text.parse().ok().map(Delete::AtMost),
    };
    most.ok_or_else(|| {
        "write a number of entries, such as 100, or a percentage up to 100, such as 10%".to_owned()
    })
}

fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "auto" => Ok(Compression::Auto),
        "off" => Ok(Compression::Off),
        level => match level.parse() {
            Ok(level @ 1..=19) => Ok(Compression::Level(level)),
            _ => Err("write auto, off, or a level from 1 to 19".to_owned()),
        },
    }
}

/// A count of bytes such as `10M`; K, M, G and T are powers of 1,024, as curl and rsync have them.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        Some((at, 't' | 'T')) => (&text[..at], 1_u64 << 40),
        _ => (text, 1),
    };
    let bytes =
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| {
        "write it as a number of bytes above 0, with K, M, G or T after it where that helps".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_on_removals_is_a_number_or_a_percentage() {
        assert_eq!(max_delete("0"), Ok(Delete::AtMost(0)));
        assert_eq!(max_delete("100%"), Ok(Delete::Percent(100)));
        for wrong in ["", "%", "-1", "101%", "1.5%", "ten"] {
            assert!(max_delete(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_owners_are_read_or_refused() {
        assert_eq!((size("512"), size("10M"), size("1t")), (Ok(512), Ok(10 << 20), Ok(1 << 40)));
        for wrong in ["", "0", "-1", "M", "1.5G", "99999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(owner("7"), Ok(Owner { user: Some(7), group: None }));
        assert_eq!(owner("7:8"), Ok(Owner { user: Some(7), group: Some(8) }));
        assert_eq!(owner(":8"), Ok(Owner { user: None, group: Some(8) }));
        assert!(owner("root").is_err() && owner(":").is_err());
    }
}
