//! Records of unfinished uploads: S3 keeps the uploaded parts, but not what they are parts of.
//!
//! A file of lines in the user's state directory: a header with the source and the upload, then each uploaded
//! part with the hashes of its leaves ([`crate::hash_tree`]). It is locked while a copy writes the object. It
//! contains no secret.

use crate::hash_tree::LEAF;
use postern_files::hash_tree::ChainingValue;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Identifies an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) server: String,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) upload: String,
    /// Bytes of each part except the last.
    pub(crate) part: u64,
    /// Size and modification time of the file.
    pub(crate) size: u64,
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// An uploaded part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) number: i32,
    pub(crate) etag: String,
    pub(crate) checksum: Option<String>,
    pub(crate) leaves: Vec<ChainingValue>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    number: i32,
    etag: String,
    checksum: Option<String>,
    leaves: Vec<String>,
}

/// A record being written.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

/// The record of an earlier run.
pub(crate) struct Record {
    pub(crate) header: Header,
    /// From the first part on, without gaps.
    pub(crate) parts: Vec<Part>,
    pub(crate) journal: Journal,
}

/// A record could not be opened; `Busy` if another process writes it.
#[derive(Debug)]
pub(crate) enum OpenError {
    Busy,
    Io(io::Error),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The path of the record for an object's upload.
pub(crate) fn path(directory: &Path, server: &str, bucket: &str, key: &str) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    for part in [server, bucket, key] {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part.as_bytes());
    }
    directory.join(format!("{}.upload", &hasher.finalize().to_hex()[..32]))
}

/// Reads and locks the record at `path`, if it exists.
pub(crate) fn read(path: &Path) -> Result<Option<Record>, OpenError> {
    let file = match OpenOptions::new().read(true).append(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    lock(&file)?;
    let mut lines = BufReader::new(&file).lines();
    let Some(Ok(header)) = lines.next().map(|line| line.map(|line| serde_json::from_str::<Header>(&line)))
    else {
        return Ok(None);
    };
    let Ok(header) = header else { return Ok(None) };
    let mut parts: Vec<Part> = Vec::new();
    // The last line may be truncated, and is then ignored.
    while let Some(Ok(line)) = lines.next() {
        let Some(part) = serde_json::from_str(&line).ok().and_then(part) else { break };
        let in_order = i32::try_from(parts.len() + 1) == Ok(part.number);
        if !in_order || part.leaves.len() as u64 * LEAF as u64 != header.part {
            break;
        }
        parts.push(part);
    }
    Ok(Some(Record { header, parts, journal: Journal { path: path.to_owned(), file } }))
}

fn part(line: Line) -> Option<Part> {
    let Line { number, etag, checksum, leaves } = line;
    let leaves: Option<Vec<_>> =
        leaves.iter().map(|text| blake3::Hash::from_hex(text).ok().map(Into::into)).collect();
    Some(Part { number, etag, checksum, leaves: leaves? })
}

fn lock(file: &File) -> Result<(), OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::Busy),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

impl Journal {
    /// Creates a record and replaces an existing one.
    pub(crate) fn begin(path: &Path, header: &Header) -> Result<Self, OpenError> {
        if let Some(directory) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        lock(&file)?;
        file.set_len(0)?;
        let mut journal = Self { path: path.to_owned(), file };
        journal.line(header)?;
        Ok(journal)
    }

    /// Rewrites the record without what followed the last complete line.
    pub(crate) fn rewrite(self, header: &Header, parts: &[Part]) -> Result<Self, OpenError> {
        let mut journal = self;
        journal.file.set_len(0)?;
        journal.line(header)?;
        for part in parts {
            journal.add(part)?;
        }
        Ok(journal)
    }

    /// Appends an uploaded part; all parts before it must be recorded.
    pub(crate) fn add(&mut self, part: &Part) -> io::Result<()> {
        let Part { number, etag, checksum, leaves } = part;
        self.line(&Line {
            number: *number,
            etag: etag.clone(),
            checksum: checksum.clone(),
            leaves: leaves.iter().map(|leaf| blake3::Hash::from_bytes(*leaf).to_string()).collect(),
        })
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }

    /// Removes the record: there is nothing left to resume.
    pub(crate) fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            server: String::new(),
            bucket: "b".to_owned(),
            key: "k\n".to_owned(),
            upload: "u".to_owned(),
            part: 2 * LEAF as u64,
            size: 1 << 30,
            seconds: -1,
            nanos: 7,
        }
    }

    fn part(number: i32) -> Part {
        Part { number, etag: "\"e\"".to_owned(), checksum: None, leaves: vec![[7; 32]; 2] }
    }

    #[test]
    fn a_record_round_trips_and_a_torn_line_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(&folder.path().join("new"), "", "b", "k");
        assert!(read(&path).unwrap().is_none());
        let mut journal = Journal::begin(&path, &header()).unwrap();
        journal.add(&part(1)).unwrap();
        journal.add(&part(2)).unwrap();
        assert!(matches!(read(&path), Err(OpenError::Busy)), "locked while it is written");
        journal.file.write_all(b"{\"number\":3,\"et").unwrap();
        drop(journal);
        let record = read(&path).unwrap().unwrap();
        assert_eq!((record.header.clone(), record.parts.clone()), (header(), vec![part(1), part(2)]));
        let mut journal = record.journal.rewrite(&header(), &record.parts).unwrap();
        journal.add(&part(4)).unwrap(); // a gap
        drop(journal);
        let record = read(&path).unwrap().unwrap();
        assert_eq!(record.parts.len(), 2);
        record.journal.remove().unwrap();
        assert!(read(&path).unwrap().is_none());
    }

    #[test]
    fn malformed_records_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.upload");
        for content in ["", "x\n", "{}\n", "\u{0}"] {
            std::fs::write(&path, content).unwrap();
            assert!(read(&path).unwrap().is_none(), "{content:?}");
        }
    }
}
