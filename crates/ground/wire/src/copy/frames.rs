//! The frames of the source and of the destination.

/// The type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of this many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    /// Another name of the file that was sent with this path.
    HardLink(Vec<u8>),
    /// A fifo.
    Fifo,
    /// A device with its number, as in `st_rdev`.
    Device {
        /// Whether it is a block device; otherwise a character device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Attributes of an entry in the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub user: u32,
    /// Numeric group.
    pub group: u32,
    /// Modification time, in seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds of the modification time, below 10^9.
    pub nanos: u32,
}

/// One file, directory, link or special file to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts up from 0.
    pub id: u32,
    /// Components joined by slashes. The first component is the name of the source; the path is empty for a
    /// directory whose contents were requested.
    pub path: Vec<u8>,
    /// Its type.
    pub kind: Kind,
    /// Mode, owner, modification time.
    pub stamp: Stamp,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The client saw it verified before the connection was lost: comparing size and time is enough.
    pub settled: bool,
}

/// Frames from the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSource<'a> {
    /// The number of sources, after expanding wildcards.
    Begin(u32),
    /// The next entry to copy.
    Entry(Box<Entry>),
    /// An entry that cannot be copied. It has no id and gets no answer.
    Fault {
        /// Its path, in the form of an entry.
        path: &'a [u8],
        /// Why.
        message: String,
    },
    /// Every entry directly in this directory was sent.
    DirectoryEnd(&'a [u8]),
    /// No entry follows; content may still follow.
    End,
    /// The content of this entry follows, starting at this offset.
    From {
        /// The entry.
        id: u32,
        /// Bytes that the destination already has.
        offset: u64,
    },
    /// The next bytes of the content.
    Data(&'a [u8]),
    /// The next bytes of the content, compressed as a zstd frame of their own.
    Compressed {
        /// Length after decompression; at most [`super::BLOCK`].
        length: u32,
        /// The zstd frame.
        bytes: &'a [u8],
    },
    /// Zeroes that use no disk block.
    Hole(u64),
    /// Bytes to copy from the destination's current file.
    Reuse {
        /// Their offset in that file.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// Sent in place of the content of this entry. Most of the content has moved, so the destination should
    /// send the chunks of its file and request the content again.
    Cut(u32),
    /// The content is complete.
    FileEnd {
        /// The entry.
        id: u32,
        /// BLAKE3 of all of it.
        hash: [u8; 32],
    },
    /// The content cannot be read, or it changed while it was read.
    FileFault {
        /// The entry.
        id: u32,
        /// Why.
        message: String,
    },
    /// Nothing can be copied.
    Fatal(String),
    /// The source is alive.
    Heartbeat,
    /// Requests a [`FromDestination::Pong`].
    Ping,
}

/// Requests the content of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// The entry.
    pub id: u32,
    /// Bytes from the beginning that the destination already has; 0 for none.
    pub have: u64,
    /// BLAKE3 of those bytes; unused with [`Known::Prefix`].
    pub hash: [u8; 32],
    /// The bytes are left over from an earlier copy. If they differ, the source has changed since.
    pub partial: bool,
    /// What the destination sent about its older content, so that it can be reused.
    pub known: Known,
}

impl Want {
    /// Requests all of an entry's content, whatever the destination has.
    pub fn all(id: u32) -> Self {
        Self { id, have: 0, hash: [0; 32], partial: false, known: Known::Nothing }
    }
}

/// What a destination sent about the content that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Known {
    /// Nothing.
    #[default]
    Nothing,
    /// The hashes of its blocks.
    Blocks,
    /// Its chunks.
    Chunks,
    /// The length of the prefix that it has. It hashes the prefix while the rest arrives and compares the
    /// hash of the whole file at the end.
    Prefix,
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Content was written, and its hash matches the source's.
    Written,
    /// The content was already there, and its hash matches the source's.
    Same,
    /// Size and time match the source's; content was not compared.
    Unchanged,
    /// A directory, link or special file was created, or exists.
    Made,
    /// Left unchanged, as requested.
    Skipped,
    /// Refused: it is dangerous and was not explicitly allowed.
    Refused,
    /// It could not be written.
    Failed,
    /// It would be written (dry run).
    Planned,
}

/// The answer to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryResult {
    /// The entry.
    pub id: u32,
    /// What became of it.
    pub fate: Fate,
    /// BLAKE3 of the content if it is known; otherwise zeroes.
    pub hash: [u8; 32],
    /// The reason, or other details; may be empty.
    pub note: String,
}

/// Frames from the destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromDestination<'a> {
    /// Where entries are written.
    Target {
        /// The directory, with symlinks resolved.
        directory: &'a [u8],
        /// The new name of the source in that directory, unless it keeps its own.
        name: Option<&'a [u8]>,
    },
    /// Requests content.
    Want(Want),
    /// The destination is hashing its file for this entry in blocks. The source should do the same in the
    /// meantime.
    Hashing(u32),
    /// The hashes of the blocks of the destination's file, in order, each a subtree of BLAKE3. The block
    /// length depends on the size of the entry.
    Blocks(&'a [u8]),
    /// The chunks of the destination's file, in order: each a length (`u32`) and 16 bytes of its BLAKE3.
    Chunks(&'a [u8]),
    /// What became of an entry.
    EntryResult(EntryResult),
    /// An entry that the source does not have was removed.
    Deleted(&'a [u8]),
    /// An entry that the source does not have could not be removed.
    NotDeleted {
        /// Its path.
        path: &'a [u8],
        /// Why.
        message: String,
    },
    /// All entries are answered and in place.
    Finished,
    /// Nothing can be copied.
    Fatal(String),
    /// The destination is alive.
    Heartbeat,
    /// Everything before the corresponding [`FromSource::Ping`] has arrived.
    Pong,
    /// The destination has no use for more content of this entry. The source may end it at once with a
    /// [`FromSource::FileFault`].
    Stop(u32),
}
