//! Encoding and decoding of [`super::frames`].

use super::frames::{Entry, EntryResult, Fate, FromDestination, FromSource, Kind, Known, Stamp, Want};
use crate::WireError;
use crate::decode::put_frame;
use crate::fields::{Fields, put_bytes, put_count};

mod kind {
    pub(super) const BEGIN: u8 = 144;
    pub(super) const ENTRY: u8 = 145;
    pub(super) const FAULT: u8 = 146;
    pub(super) const DIRECTORY_END: u8 = 147;
    pub(super) const END: u8 = 148;
    pub(super) const FROM: u8 = 149;
    pub(super) const DATA: u8 = 150;
    pub(super) const COMPRESSED: u8 = 151;
    pub(super) const HOLE: u8 = 152;
    pub(super) const REUSE: u8 = 153;
    pub(super) const FILE_END: u8 = 154;
    pub(super) const FILE_FAULT: u8 = 155;
    pub(super) const SOURCE_FATAL: u8 = 156;
    pub(super) const SOURCE_HEARTBEAT: u8 = 157;
    pub(super) const CUT: u8 = 158;
    pub(super) const PING: u8 = 159;

    pub(super) const TARGET: u8 = 176;
    pub(super) const WANT: u8 = 177;
    pub(super) const CHUNKS: u8 = 178;
    pub(super) const ENTRY_RESULT: u8 = 179;
    pub(super) const DELETED: u8 = 180;
    pub(super) const FINISHED: u8 = 181;
    pub(super) const DESTINATION_FATAL: u8 = 182;
    pub(super) const DESTINATION_HEARTBEAT: u8 = 183;
    pub(super) const NOT_DELETED: u8 = 184;
    pub(super) const HASHING: u8 = 185;
    pub(super) const BLOCKS: u8 = 186;
    pub(super) const PONG: u8 = 187;
    pub(super) const STOP: u8 = 188;
}

impl FromSource<'_> {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begin(count) => put_frame(out, kind::BEGIN, |out| out.extend(count.to_be_bytes())),
            Self::Entry(entry) => put_frame(out, kind::ENTRY, |out| put_entry(out, entry)),
            Self::Fault { path, message } => put_frame(out, kind::FAULT, |out| {
                put_bytes(out, path);
                put_bytes(out, message.as_bytes());
            }),
            Self::DirectoryEnd(path) => put_frame(out, kind::DIRECTORY_END, |out| put_bytes(out, path)),
            Self::End => put_frame(out, kind::END, |_| ()),
            Self::From { id, offset } => put_frame(out, kind::FROM, |out| {
                out.extend(id.to_be_bytes());
                out.extend(offset.to_be_bytes());
            }),
            Self::Data(bytes) => put_frame(out, kind::DATA, |out| out.extend_from_slice(bytes)),
            Self::Compressed { length, bytes } => put_frame(out, kind::COMPRESSED, |out| {
                out.extend(length.to_be_bytes());
                out.extend_from_slice(bytes);
            }),
            Self::Hole(length) => put_frame(out, kind::HOLE, |out| out.extend(length.to_be_bytes())),
            Self::Reuse { offset, length } => put_frame(out, kind::REUSE, |out| {
                out.extend(offset.to_be_bytes());
                out.extend(length.to_be_bytes());
            }),
            Self::Cut(id) => put_frame(out, kind::CUT, |out| out.extend(id.to_be_bytes())),
            Self::FileEnd { id, hash } => put_frame(out, kind::FILE_END, |out| {
                out.extend(id.to_be_bytes());
                out.extend(hash);
            }),
            Self::FileFault { id, message } => put_frame(out, kind::FILE_FAULT, |out| {
                out.extend(id.to_be_bytes());
                put_bytes(out, message.as_bytes());
            }),
            Self::Fatal(message) => {
                put_frame(out, kind::SOURCE_FATAL, |out| put_bytes(out, message.as_bytes()));
            }
            Self::Heartbeat => put_frame(out, kind::SOURCE_HEARTBEAT, |_| ()),
            Self::Ping => put_frame(out, kind::PING, |_| ()),
        }
    }
}

impl<'a> FromSource<'a> {
    /// Decodes a frame from its kind and payload.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new("source", payload);
        let frame = match kind {
            kind::DATA => return Ok(Self::Data(payload)),
            kind::COMPRESSED => return Ok(Self::Compressed { length: fields.u32()?, bytes: fields.rest() }),
            kind::BEGIN => Self::Begin(fields.u32()?),
            kind::ENTRY => Self::Entry(Box::new(get_entry(&mut fields)?)),
            kind::FAULT => Self::Fault { path: fields.slice()?, message: fields.text("message")? },
            kind::DIRECTORY_END => Self::DirectoryEnd(fields.slice()?),
            kind::END => Self::End,
            kind::FROM => Self::From { id: fields.u32()?, offset: fields.u64()? },
            kind::HOLE => Self::Hole(fields.u64()?),
            kind::REUSE => Self::Reuse { offset: fields.u64()?, length: fields.u64()? },
            kind::CUT => Self::Cut(fields.u32()?),
            kind::FILE_END => Self::FileEnd { id: fields.u32()?, hash: fields.hash()? },
            kind::FILE_FAULT => Self::FileFault { id: fields.u32()?, message: fields.text("message")? },
            kind::SOURCE_FATAL => Self::Fatal(fields.text("message")?),
            kind::SOURCE_HEARTBEAT => Self::Heartbeat,
            kind::PING => Self::Ping,
            other => return Err(WireError::UnknownKind(other)),
        };
        fields.end().map(|()| frame)
    }
}

impl FromDestination<'_> {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Target { directory, name } => put_frame(out, kind::TARGET, |out| {
                put_bytes(out, directory);
                out.push(u8::from(name.is_some()));
                put_bytes(out, name.unwrap_or_default());
            }),
            Self::Want(Want { id, have, hash, partial, known }) => put_frame(out, kind::WANT, |out| {
                out.extend(id.to_be_bytes());
                out.extend(have.to_be_bytes());
                out.extend(hash);
                out.extend([u8::from(*partial), *known as u8]);
            }),
            Self::Hashing(id) => put_frame(out, kind::HASHING, |out| out.extend(id.to_be_bytes())),
            Self::Blocks(hashes) => put_frame(out, kind::BLOCKS, |out| out.extend_from_slice(hashes)),
            Self::Chunks(records) => put_frame(out, kind::CHUNKS, |out| out.extend_from_slice(records)),
            Self::EntryResult(EntryResult { id, fate, hash, note }) => {
                put_frame(out, kind::ENTRY_RESULT, |out| {
                    out.extend(id.to_be_bytes());
                    out.push(*fate as u8);
                    out.extend(hash);
                    put_bytes(out, note.as_bytes());
                });
            }
            Self::Deleted(path) => put_frame(out, kind::DELETED, |out| put_bytes(out, path)),
            Self::NotDeleted { path, message } => put_frame(out, kind::NOT_DELETED, |out| {
                put_bytes(out, path);
                put_bytes(out, message.as_bytes());
            }),
            Self::Finished => put_frame(out, kind::FINISHED, |_| ()),
            Self::Fatal(message) => {
                put_frame(out, kind::DESTINATION_FATAL, |out| put_bytes(out, message.as_bytes()));
            }
            Self::Heartbeat => put_frame(out, kind::DESTINATION_HEARTBEAT, |_| ()),
            Self::Pong => put_frame(out, kind::PONG, |_| ()),
            Self::Stop(id) => put_frame(out, kind::STOP, |out| out.extend(id.to_be_bytes())),
        }
    }
}

impl<'a> FromDestination<'a> {
    /// Decodes a frame from its kind and payload.
    pub fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, WireError> {
        let mut fields = Fields::new("destination", payload);
        let frame = match kind {
            kind::CHUNKS => return Ok(Self::Chunks(payload)),
            kind::BLOCKS => return Ok(Self::Blocks(payload)),
            kind::TARGET => {
                let (directory, named, name) = (fields.slice()?, fields.flag("name")?, fields.slice()?);
                Self::Target { directory, name: named.then_some(name) }
            }
            kind::HASHING => Self::Hashing(fields.u32()?),
            kind::WANT => Self::Want(Want {
                id: fields.u32()?,
                have: fields.u64()?,
                hash: fields.hash()?,
                partial: fields.flag("partial")?,
                known: known(fields.u8()?).ok_or_else(|| fields.invalid("known"))?,
            }),
            kind::ENTRY_RESULT => Self::EntryResult(EntryResult {
                id: fields.u32()?,
                fate: fate(fields.u8()?).ok_or_else(|| fields.invalid("fate"))?,
                hash: fields.hash()?,
                note: fields.text("note")?,
            }),
            kind::DELETED => Self::Deleted(fields.slice()?),
            kind::NOT_DELETED => Self::NotDeleted { path: fields.slice()?, message: fields.text("message")? },
            kind::FINISHED => Self::Finished,
            kind::DESTINATION_FATAL => Self::Fatal(fields.text("message")?),
            kind::DESTINATION_HEARTBEAT => Self::Heartbeat,
            kind::PONG => Self::Pong,
            kind::STOP => Self::Stop(fields.u32()?),
            other => return Err(WireError::UnknownKind(other)),
        };
        fields.end().map(|()| frame)
    }
}

fn known(code: u8) -> Option<Known> {
    [Known::Nothing, Known::Blocks, Known::Chunks, Known::Prefix].get(usize::from(code)).copied()
}

fn fate(code: u8) -> Option<Fate> {
    const FATES: [Fate; 8] = [
        Fate::Written,
        Fate::Same,
        Fate::Unchanged,
        Fate::Made,
        Fate::Skipped,
        Fate::Refused,
        Fate::Failed,
        Fate::Planned,
    ];
    FATES.get(usize::from(code)).copied()
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let Entry { id, path, kind, stamp, xattrs, settled } = entry;
    let Stamp { mode, user, group, seconds, nanos } = stamp;
    out.extend(id.to_be_bytes());
    put_bytes(out, path);
    for number in [mode, user, group, nanos] {
        out.extend(number.to_be_bytes());
    }
    out.extend(seconds.to_be_bytes());
    out.push(u8::from(*settled));
    put_count(out, xattrs.len());
    for (name, value) in xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
    match kind {
        Kind::File(size) => {
            out.push(0);
            out.extend(size.to_be_bytes());
        }
        Kind::Directory => out.push(1),
        Kind::Symlink(target) => {
            out.push(2);
            put_bytes(out, target);
        }
        Kind::HardLink(to) => {
            out.push(3);
            put_bytes(out, to);
        }
        Kind::Fifo => out.push(4),
        Kind::Device { block, major, minor } => {
            out.extend([5, u8::from(*block)]);
            out.extend(major.to_be_bytes());
            out.extend(minor.to_be_bytes());
        }
    }
}

fn get_entry(fields: &mut Fields<'_>) -> Result<Entry, WireError> {
    let (id, path) = (fields.u32()?, fields.bytes()?);
    let (mode, user, group, nanos) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
    let stamp = Stamp { mode, user, group, seconds: fields.i64()?, nanos };
    if mode > 0o7777 || nanos >= 1_000_000_000 {
        return Err(fields.invalid("mode or time"));
    }
    let settled = fields.flag("settled")?;
    let xattrs = fields.list(|fields| Ok((fields.bytes()?, fields.bytes()?)))?;
    let kind = match fields.u8()? {
        0 => Kind::File(fields.u64()?),
        1 => Kind::Directory,
        2 => Kind::Symlink(fields.bytes()?),
        3 => Kind::HardLink(fields.bytes()?),
        4 => Kind::Fifo,
        5 => Kind::Device { block: fields.flag("device")?, major: fields.u32()?, minor: fields.u32()? },
        _ => return Err(fields.invalid("kind")),
    };
    Ok(Entry { id, path, kind, stamp, xattrs, settled })
}

#[cfg(test)]
mod tests;
