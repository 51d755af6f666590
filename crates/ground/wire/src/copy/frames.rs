//! What source and destination say to each other.

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of this many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    /// Another name of the file that came by this path.
    HardLink(Vec<u8>),
    /// A fifo.
    Fifo,
    /// A device by its number, as `st_rdev` has it.
    Device {
        /// A block device rather than one of characters.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// What a file system says about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Numeric owner.
    pub user: u32,
    /// Numeric group.
    pub group: u32,
    /// Seconds of the last change since 1970.
    pub seconds: i64,
    /// Nanoseconds beside them, below 10^9.
    pub nanos: u32,
}

/// One thing to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts up from 0.
    pub id: u32,
    /// Components joined by slashes, the first the name of what was asked for; empty for a directory whose content
    /// was asked for.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Mode, owner, time.
    pub stamp: Stamp,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The client saw it verified before the connection was lost: same size and time are enough.
    pub settled: bool,
}

/// What the source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSource<'a> {
    /// How many things were asked for, once wildcards are expanded.
    Begin(u32),
    /// The next thing to copy.
    Entry(Box<Entry>),
    /// Something that cannot be copied, and why. It has no id and no answer.
    Fault {
        /// Its path, as an entry has it.
        path: &'a [u8],
        /// Why.
        message: String,
    },
    /// Every entry directly in this directory was sent.
    DirectoryEnd(&'a [u8]),
    /// No entry follows; content still may.
    End,
    /// The content of this entry follows, beginning at this offset.
    From {
        /// The entry.
        id: u32,
        /// Bytes that the destination has already.
        offset: u64,
    },
    /// The next bytes of the content.
    Data(&'a [u8]),
    /// The same, compressed by zstd in a frame of its own.
    Packed {
        /// Bytes once unpacked; at most [`super::BLOCK`].
        length: u32,
        /// The zstd frame.
        bytes: &'a [u8],
    },
    /// Zeroes that no disk block holds.
    Hole(u64),
    /// Bytes of the file that the destination has under the name.
    Reuse {
        /// Where they begin there.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// In the place of the content of this entry, which is to be asked for again: little of it is where it was, and the
    /// destination is to tell the chunks of what it has.
    Cut(u32),
    /// The content is complete.
    FileEnd {
        /// The entry.
        id: u32,
        /// BLAKE3 of all of it.
        hash: [u8; 32],
    },
    /// The content cannot be read, or changed while it was.
    FileFault {
        /// The entry.
        id: u32,
        /// Why.
        message: String,
    },
    /// Nothing can be copied at all.
    Fatal(String),
    /// The source is there.
    Heartbeat,
    /// Asks for a [`FromDestination::Pong`].
    Ping,
}

/// Asks for the content of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// The entry.
    pub id: u32,
    /// Bytes from its beginning that are here already; 0 for none.
    pub have: u64,
    /// BLAKE3 of those, but for a [`Known::Beginning`].
    pub hash: [u8; 32],
    /// They are what an earlier copy of it left: when they differ, the source has changed since.
    pub partial: bool,
    /// What came before this of an older content, to be reused.
    pub known: Known,
}

impl Want {
    /// All of an entry's content, whatever is there.
    pub fn all(id: u32) -> Self {
        Self { id, have: 0, hash: [0; 32], partial: false, known: Known::Nothing }
    }
}

/// What a source was told of the content that a destination has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Known {
    /// Nothing.
    #[default]
    Nothing,
    /// The hashes of its blocks.
    Blocks,
    /// Its chunks.
    Chunks,
    /// How long the beginning is that it has: it hashes that while the rest comes, and compares the whole at the end.
    Beginning,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Content was written, and its hash is the source's.
    Written,
    /// The content was there already: its hash is the source's.
    Same,
    /// Size and time are the source's; content was not compared.
    Unchanged,
    /// A directory, link or special file is there.
    Made,
    /// Left alone as asked.
    Skipped,
    /// It could do harm, and was not asked for.
    Refused,
    /// It could not be written.
    Failed,
    /// It would be written.
    Planned,
}

/// The answer to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The entry.
    pub id: u32,
    /// What became of it.
    pub fate: Fate,
    /// BLAKE3 of the content, where it was seen; zeroes otherwise.
    pub hash: [u8; 32],
    /// Why, or what else there is to say; empty for nothing.
    pub note: String,
}

/// What the destination says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromDestination<'a> {
    /// Where things go.
    Placed {
        /// The directory, with symlinks resolved.
        directory: &'a [u8],
        /// The name that what is asked for gets in it, when it does not keep its own.
        name: Option<&'a [u8]>,
    },
    /// Content is asked for.
    Want(Want),
    /// What is there for this entry is being hashed in blocks: the source does well to do the same meanwhile.
    Hashing(u32),
    /// The blocks of the content that is there, in order: the hash of each, as a subtree of BLAKE3's. How long they are
    /// goes by the size of the entry.
    Blocks(&'a [u8]),
    /// Chunks of the content that is there, in order: for each a length (`u32`) and 16 bytes of its BLAKE3.
    Chunks(&'a [u8]),
    /// What became of an entry.
    Settled(Settled),
    /// Something that the source has not was removed.
    Deleted(&'a [u8]),
    /// Something that the source has not could not be removed.
    NotDeleted {
        /// Its path.
        path: &'a [u8],
        /// Why.
        message: String,
    },
    /// Everything is answered and in place.
    Finished,
    /// Nothing can be copied at all.
    Fatal(String),
    /// The destination is there.
    Heartbeat,
    /// Everything before the [`FromSource::Ping`] that this answers has arrived.
    Pong,
    /// What still comes of the content of this entry is of no use: the source may end it at once, by a
    /// [`FromSource::FileFault`].
    Stop(u32),
}
