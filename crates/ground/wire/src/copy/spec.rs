//! The client's request to an end of a copy.

use crate::decode::put_frame;
use crate::fields::{Fields, put_bytes, put_count};
use crate::{VERSION, WireError};

/// Kinds of the frames of this file.
mod kind {
    pub(super) const SEND: u8 = 128;
    pub(super) const RECEIVE: u8 = 129;
}

/// One `--exclude` or `--include`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether it includes what matches; otherwise it excludes it.
    pub include: bool,
    /// A pattern in gitignore's syntax.
    pub pattern: Vec<u8>,
}

/// Whether content is compressed in transit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Where it saves space, at a level that suits the link and the content.
    Auto,
    /// Never.
    Off,
    /// Always, at this zstd level.
    Level(u8),
}

/// Limits of a copy. Without them, a hostile end could fill the memory or disk of the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of entries.
    pub entries: u64,
    /// Maximum bytes of content, including holes.
    pub bytes: u64,
    /// Maximum number of components in a path.
    pub depth: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 20_000_000, bytes: u64::MAX, depth: 256 }
    }
}

/// The request to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendSpec {
    /// The root directory of the paths; `None` for the root of the serving process.
    pub root: Option<Vec<u8>>,
    /// Paths as typed, with wildcards where `glob` says so.
    pub sources: Vec<Vec<u8>>,
    /// Whether `*`, `?`, `[]` and `**` in the paths are wildcards.
    pub glob: bool,
    /// Sends the contents of a directory rather than the directory itself.
    pub contents: bool,
    /// Excluded paths, relative to the source.
    pub rules: Vec<Rule>,
    /// Sends the target of a symlink instead of the link.
    pub dereference: bool,
    /// How content is compressed.
    pub compression: Compression,
    /// Limits of the copy.
    pub limits: Limits,
}

/// When existing content counts as up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Size and time match, and then the hashes of both ends match: nothing is sent, and the content is
    /// verified.
    Verify,
    /// Size and time match.
    Times,
    /// Hashes match, whatever the times.
    Hash,
}

/// What a copy may delete at its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delete {
    /// Nothing.
    #[default]
    Nothing,
    /// Whatever the source does not have, unless the source is empty: an unmounted volume looks like that.
    Extra,
    /// Whatever the source does not have, even if that is everything.
    All,
    /// Whatever the source does not have, but nothing if that is more than this many files, directories and
    /// links.
    AtMost(u64),
    /// Whatever the source does not have, but nothing if that is more than this percentage of the
    /// destination's entries.
    Percent(u8),
}

impl Delete {
    /// Whether anything may be removed.
    pub fn is_requested(self) -> bool {
        self != Self::Nothing
    }

    /// Whether every entry that would be removed has to be counted.
    pub fn counts(self) -> bool {
        matches!(self, Self::AtMost(_) | Self::Percent(_))
    }
}

/// The owner of what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// Numeric user.
    pub user: Option<u32>,
    /// Numeric group.
    pub group: Option<u32>,
}

/// The request to the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveSpec {
    /// As [`SendSpec::root`].
    pub root: Option<Vec<u8>>,
    /// The destination as typed.
    pub target: Vec<u8>,
    /// The destination is a directory or becomes one. Otherwise this is decided as by `cp -r`.
    pub directory: bool,
    /// The target is the final path even if it is a directory: an earlier connection of the same copy created
    /// it.
    pub named: bool,
    /// Creates missing parent directories of the destination.
    pub parents: bool,
    /// When existing content counts as up to date.
    pub compare: Compare,
    /// Builds a changed file from blocks of the old one.
    pub delta: bool,
    /// Skips files that are newer at the destination.
    pub update: bool,
    /// What may be deleted because the source does not have it.
    pub delete: Delete,
    /// Reports what would be done, without doing it.
    pub dry_run: bool,
    /// Writes into an existing file if it cannot be replaced.
    pub inplace: bool,
    /// A replaced file gets the source's mode and owner instead of keeping its own.
    pub preserve: bool,
    /// Owner of everything written.
    pub owner: Owner,
    /// Creates symlinks that point outside the destination.
    pub unsafe_links: bool,
    /// Creates devices and FIFOs, and keeps setuid and setgid bits.
    pub specials: bool,
    /// Copies nothing. Removes partial files that interrupted copies left at or below the destination.
    pub clean: bool,
    /// Paths that `delete` keeps.
    pub rules: Vec<Rule>,
    /// Limits of the copy.
    pub limits: Limits,
}

/// The client's first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyRequest {
    /// Act as the source.
    Send(SendSpec),
    /// Act as the destination.
    Receive(ReceiveSpec),
}

impl CopyRequest {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Send(spec) => put_frame(out, kind::SEND, |out| put_send(out, spec)),
            Self::Receive(spec) => put_frame(out, kind::RECEIVE, |out| put_receive(out, spec)),
        }
    }

    /// Decodes a frame from its kind and payload.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, WireError> {
        match kind {
            kind::SEND => get_send(Fields::new("send", payload)).map(Self::Send),
            kind::RECEIVE => get_receive(Fields::new("receive", payload)).map(Self::Receive),
            other => Err(WireError::UnknownKind(other)),
        }
    }
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    put_bytes(out, bytes.unwrap_or_default());
}

fn put_rules(out: &mut Vec<u8>, rules: &[Rule]) {
    put_count(out, rules.len());
    for Rule { include, pattern } in rules {
        out.push(u8::from(*include));
        put_bytes(out, pattern);
    }
}

fn put_limits(out: &mut Vec<u8>, limits: Limits) {
    let Limits { entries, bytes, depth } = limits;
    out.extend_from_slice(&entries.to_be_bytes());
    out.extend_from_slice(&bytes.to_be_bytes());
    out.extend_from_slice(&depth.to_be_bytes());
}

fn put_send(out: &mut Vec<u8>, spec: &SendSpec) {
    let SendSpec { root, sources, glob, contents, rules, dereference, compression, limits } = spec;
    out.extend_from_slice(&VERSION.to_be_bytes());
    put_optional(out, root.as_deref());
    put_count(out, sources.len());
    sources.iter().for_each(|source| put_bytes(out, source));
    for flag in [glob, contents, dereference] {
        out.push(u8::from(*flag));
    }
    put_rules(out, rules);
    out.extend_from_slice(&match compression {
        Compression::Auto => [0, 0],
        Compression::Off => [1, 0],
        Compression::Level(level) => [2, *level],
    });
    put_limits(out, *limits);
}

fn put_receive(out: &mut Vec<u8>, spec: &ReceiveSpec) {
    let ReceiveSpec {
        root,
        target,
        directory,
        named,
        parents,
        compare,
        delta,
        update,
        delete,
        dry_run,
        inplace,
        preserve,
        owner: Owner { user, group },
        unsafe_links,
        specials,
        clean,
        rules,
        limits,
    } = spec;
    out.extend_from_slice(&VERSION.to_be_bytes());
    put_optional(out, root.as_deref());
    put_bytes(out, target);
    out.push(match compare {
        Compare::Verify => 0,
        Compare::Times => 1,
        Compare::Hash => 2,
    });
    for flag in
        [directory, named, parents, delta, update, dry_run, inplace, preserve, unsafe_links, specials, clean]
    {
        out.push(u8::from(*flag));
    }
    let (tag, most) = match delete {
        Delete::Nothing => (0, 0),
        Delete::Extra => (1, 0),
        Delete::All => (2, 0),
        Delete::AtMost(most) => (3, *most),
        Delete::Percent(most) => (4, (*most).into()),
    };
    out.push(tag);
    out.extend_from_slice(&most.to_be_bytes());
    for id in [user, group] {
        out.push(u8::from(id.is_some()));
        out.extend_from_slice(&id.unwrap_or_default().to_be_bytes());
    }
    put_rules(out, rules);
    put_limits(out, *limits);
}

fn version(fields: &mut Fields<'_>) -> Result<(), WireError> {
    match fields.u16()? {
        VERSION => Ok(()),
        other => Err(WireError::Version(other)),
    }
}

/// A path as typed by the user: any bytes, but not empty and without NUL.
fn path(fields: &mut Fields<'_>) -> Result<Vec<u8>, WireError> {
    let path = fields.bytes()?;
    if path.is_empty() || path.contains(&0) { Err(fields.invalid("path")) } else { Ok(path) }
}

fn optional_path(fields: &mut Fields<'_>) -> Result<Option<Vec<u8>>, WireError> {
    match fields.flag("root")? {
        true => path(fields).map(Some),
        false => fields.bytes().map(|_| None),
    }
}

fn rules(fields: &mut Fields<'_>) -> Result<Vec<Rule>, WireError> {
    fields.list(|fields| Ok(Rule { include: fields.flag("rule")?, pattern: fields.bytes()? }))
}

fn limits(fields: &mut Fields<'_>) -> Result<Limits, WireError> {
    Ok(Limits { entries: fields.u64()?, bytes: fields.u64()?, depth: fields.u16()? })
}

fn get_send(mut fields: Fields<'_>) -> Result<SendSpec, WireError> {
    version(&mut fields)?;
    let spec = SendSpec {
        root: optional_path(&mut fields)?,
        sources: fields.list(path)?,
        glob: fields.flag("glob")?,
        contents: fields.flag("contents")?,
        dereference: fields.flag("dereference")?,
        rules: rules(&mut fields)?,
        compression: match (fields.u8()?, fields.u8()?) {
            (0, 0) => Compression::Auto,
            (1, 0) => Compression::Off,
            (2, level @ 1..=19) => Compression::Level(level),
            _ => return Err(fields.invalid("compression")),
        },
        limits: limits(&mut fields)?,
    };
    if spec.sources.is_empty() {
        return Err(fields.invalid("sources"));
    }
    fields.end()?;
    Ok(spec)
}

fn get_receive(mut fields: Fields<'_>) -> Result<ReceiveSpec, WireError> {
    version(&mut fields)?;
    let fields = &mut fields;
    let id = |fields: &mut Fields<'_>| {
        let given = fields.flag("owner")?;
        let id = fields.u32()?;
        Ok(given.then_some(id))
    };
    let spec = ReceiveSpec {
        root: optional_path(fields)?,
        target: path(fields)?,
        compare: match fields.u8()? {
            0 => Compare::Verify,
            1 => Compare::Times,
            2 => Compare::Hash,
            _ => return Err(fields.invalid("comparison")),
        },
        directory: fields.flag("directory")?,
        named: fields.flag("named")?,
        parents: fields.flag("parents")?,
        delta: fields.flag("delta")?,
        update: fields.flag("update")?,
        dry_run: fields.flag("dry run")?,
        inplace: fields.flag("inplace")?,
        preserve: fields.flag("preserve")?,
        unsafe_links: fields.flag("unsafe links")?,
        specials: fields.flag("specials")?,
        clean: fields.flag("clean")?,
        delete: match (fields.u8()?, fields.u64()?) {
            (0, 0) => Delete::Nothing,
            (1, 0) => Delete::Extra,
            (2, 0) => Delete::All,
            (3, most) => Delete::AtMost(most),
            (4, most @ 0..=100) => Delete::Percent(most.to_le_bytes()[0]),
            _ => return Err(fields.invalid("delete")),
        },
        owner: Owner { user: id(fields)?, group: id(fields)? },
        rules: rules(fields)?,
        limits: limits(fields)?,
    };
    if fields.is_empty() { Ok(spec) } else { Err(fields.invalid("end")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decoder;

    fn round_trip(ask: &CopyRequest) {
        let mut bytes = Vec::new();
        ask.encode(&mut bytes);
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        let (kind, payload) = decoder.next_frame().unwrap().unwrap();
        assert_eq!(&CopyRequest::decode(kind, payload).unwrap(), ask);
        for end in 0..payload.len() {
            assert!(CopyRequest::decode(kind, &payload[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn requests_round_trip() {
        let rules = vec![Rule { include: false, pattern: b"*.o".to_vec() }];
        round_trip(&CopyRequest::Send(SendSpec {
            root: Some(b"/proc/7/root".to_vec()),
            sources: vec![b"/a b".to_vec(), vec![0xff, b'*']],
            glob: true,
            contents: false,
            rules: rules.clone(),
            dereference: true,
            compression: Compression::Level(19),
            limits: Limits::default(),
        }));
        round_trip(&CopyRequest::Receive(ReceiveSpec {
            root: None,
            target: b"/data".to_vec(),
            directory: true,
            named: false,
            parents: false,
            compare: Compare::Hash,
            delta: true,
            update: false,
            delete: Delete::Percent(40),
            dry_run: false,
            inplace: true,
            preserve: false,
            owner: Owner { user: Some(7), group: None },
            unsafe_links: true,
            specials: false,
            clean: true,
            rules,
            limits: Limits { entries: 1, bytes: 2, depth: 3 },
        }));
    }
}
