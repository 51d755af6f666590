//! Writes objects: small ones in one request, large ones in parts that a later run can resume.

use crate::error::{Kind, RequestError};
use crate::hash_tree::{LEAF, Leaves};
use crate::journal::{self, Header, Journal, OpenError, Part, Record};
use crate::posix::Posix;
use crate::store::Store;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use postern_files::policy;
use postern_wire::copy::{Stamp, UNSIZED};
use std::collections::BTreeMap;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

/// Minimum bytes per part: the minimum of S3, and whole leaves.
pub(crate) const PART: u64 = 5 * LEAF as u64;

/// Maximum number of parts of an object.
const PARTS: i32 = 10_000;

/// Number of parts of a stream before their size grows.
const SMALL_PARTS: i32 = 1_000;

/// The size of a part in an object of this size.
pub(crate) fn part_size(number: i32, size: u64) -> u64 {
    match size {
        UNSIZED if number <= SMALL_PARTS => PART,
        UNSIZED => 8 * PART,
        size => size.div_ceil(PARTS.unsigned_abs().into()).next_multiple_of(PART).max(PART),
    }
}

impl Store {
    /// Writes an object in one request. The server verifies its SHA-256.
    pub(crate) async fn put(&self, key: &str, posix: &Posix, content: Bytes) -> Result<(), RequestError> {
        let request = self.client.put_object().bucket(&self.bucket).key(key);
        let request = request.checksum_algorithm(ChecksumAlgorithm::Sha256).set_metadata(Some(posix.write()));
        let sent = request.body(ByteStream::from(content)).send().await;
        sent.map(|_| ()).map_err(|error| self.error("writing", key, &error))
    }

    /// Copies an object within the bucket.
    pub(crate) async fn copy(&self, from: &str, to: &str) -> Result<(), RequestError> {
        let all = percent_encoding::NON_ALPHANUMERIC;
        let from = format!("{}/{}", self.bucket, percent_encoding::utf8_percent_encode(from, all));
        let request = self.client.copy_object().bucket(&self.bucket).key(to).copy_source(from);
        request.send().await.map(|_| ()).map_err(|error| self.error("writing", to, &error))
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<(), RequestError> {
        let deleted = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        deleted.map(|_| ()).map_err(|error| self.error("removing", key, &error))
    }

    /// Aborts an upload. It is not an error if it no longer exists.
    pub(crate) async fn abort(&self, key: &str, upload: &str) -> Result<(), RequestError> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload);
        match request.send().await.map_err(|error| self.error("dropping the upload of", key, &error)) {
            Ok(_) | Err(RequestError { kind: Kind::Missing, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn journal(&self, key: &str) -> Option<std::path::PathBuf> {
        let directory = self.journals.as_ref()?;
        Some(journal::path(directory, &self.server, &self.bucket, key))
    }

    /// Whether an earlier run may have left an upload of this object.
    pub(crate) fn may_resume(&self, key: &str) -> bool {
        self.journal(key).is_some_and(|path| path.exists())
    }

    /// The upload of an earlier run that the server still has; the error is for users.
    pub(crate) async fn unfinished(
        &self,
        key: &str,
        size: u64,
        stamp: Stamp,
    ) -> Result<Option<Record>, String> {
        let Some(path) = self.journal(key) else { return Ok(None) };
        let record = match journal::read(&path) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(OpenError::Busy) => return Err("another copy is writing it".to_owned()),
            Err(OpenError::Io(error)) => return Err(format!("reading {}: {error}", path.display())),
        };
        let Record { header, parts, journal } = record;
        if (header.size, header.seconds, header.nanos) != (size, stamp.seconds, stamp.nanos) {
            return Err(policy::STALE.to_owned());
        }
        let there = self.parts(key, &header.upload).await.map_err(|error| error.message)?;
        let Some(there) = there else {
            let _ = journal.remove(); // the server aborted the upload, as lifecycle rules may require
            return Ok(None);
        };
        let kept = |part: &&Part| there.get(&part.number) == Some(&part.etag);
        let parts: Vec<Part> = parts.iter().take_while(kept).cloned().collect();
        match journal.rewrite(&header, &parts) {
            Ok(journal) => Ok(Some(Record { header, parts, journal })),
            Err(_) => Err(format!("writing {} failed", path.display())),
        }
    }

    /// The parts of an upload by number; `None` if the upload does not exist.
    async fn parts(&self, key: &str, upload: &str) -> Result<Option<BTreeMap<i32, String>>, RequestError> {
        let (mut all, mut next) = (BTreeMap::new(), None);
        loop {
            let request = self.client.list_parts().bucket(&self.bucket).key(key).upload_id(upload);
            let page = request.set_part_number_marker(next).send().await;
            let page = match page.map_err(|error| self.error("looking at the upload of", key, &error)) {
                Ok(page) => page,
                Err(RequestError { kind: Kind::Missing, .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            for part in page.parts() {
                if let (Some(number), Some(etag)) = (part.part_number(), part.e_tag()) {
                    all.insert(number, etag.to_owned());
                }
            }
            next = page
                .next_part_number_marker()
                .filter(|_| page.is_truncated() == Some(true))
                .map(str::to_owned);
            if next.is_none() {
                return Ok(Some(all));
            }
        }
    }
}

/// An object being written in parts.
pub(crate) struct Multipart {
    store: Store,
    key: String,
    upload: String,
    size: u64,
    /// Bytes in parts that were submitted.
    offset: u64,
    number: i32,
    leaves: Leaves,
    sending: JoinSet<Result<Part, RequestError>>,
    arrived: BTreeMap<i32, Part>,
    recorded: i32,
    journal: Option<Journal>,
}

impl Multipart {
    pub(crate) async fn begin(
        store: &Store,
        key: &str,
        size: u64,
        posix: &Posix,
    ) -> Result<Self, RequestError> {
        let request = store.client.create_multipart_upload().bucket(&store.bucket).key(key);
        let request = request.checksum_algorithm(ChecksumAlgorithm::Sha256).set_metadata(Some(posix.write()));
        let begun =
            request.send().await.map_err(|error| store.error("beginning the upload of", key, &error))?;
        let Some(upload) = begun.upload_id() else {
            return Err(RequestError::new("beginning an upload", "the server returned no upload id"));
        };
        let header = Header {
            server: store.server.clone(),
            bucket: store.bucket.clone(),
            key: key.to_owned(),
            upload: upload.to_owned(),
            part: part_size(1, size),
            size,
            seconds: posix.stamp.seconds,
            nanos: posix.stamp.nanos,
        };
        // A stream cannot be read again. Without a record, the upload only cannot be resumed.
        let journal = match store.journal(key).filter(|_| size != UNSIZED) {
            Some(path) => Journal::begin(&path, &header).ok(),
            None => None,
        };
        Ok(Self::new(store, key, header, Leaves::default(), Vec::new(), journal))
    }

    /// Resumes the upload of an earlier run.
    pub(crate) fn resume(store: &Store, record: Record) -> Self {
        let Record { header, parts, journal } = record;
        let leaves = leaves(&parts);
        let key = header.key.clone();
        Self::new(store, &key, header, leaves, parts, Some(journal))
    }

    fn new(
        store: &Store,
        key: &str,
        header: Header,
        leaves: Leaves,
        parts: Vec<Part>,
        journal: Option<Journal>,
    ) -> Self {
        let Header { server: _, bucket: _, key: _, upload, part, size, seconds: _, nanos: _ } = header;
        let recorded = i32::try_from(parts.len()).unwrap_or(i32::MAX);
        Self {
            store: store.clone(),
            key: key.to_owned(),
            upload,
            size,
            offset: part * parts.len() as u64,
            number: recorded + 1,
            leaves,
            sending: JoinSet::new(),
            arrived: parts.into_iter().map(|part| (part.number, part)).collect(),
            recorded,
            journal,
        }
    }

    /// Size of the next part.
    pub(crate) fn next_part(&self) -> u64 {
        part_size(self.number, self.size)
    }

    /// Uploads a part in the background; releases `permit` when it has arrived.
    pub(crate) fn push(&mut self, content: Bytes, permit: OwnedSemaphorePermit) -> Result<(), RequestError> {
        let number = self.number;
        if number > PARTS {
            return Err(RequestError::new(
                "writing it",
                "it is longer than S3 allows for a stream, about 360 GiB",
            ));
        }
        let leaves = Leaves::of(&content, self.offset);
        self.leaves.extend(&leaves);
        self.offset += content.len() as u64;
        self.number += 1;
        let (store, key, upload) = (self.store.clone(), self.key.clone(), self.upload.clone());
        self.sending.spawn(async move {
            let request = store.client.upload_part().bucket(&store.bucket).key(&key).upload_id(upload);
            let request = request.part_number(number).checksum_algorithm(ChecksumAlgorithm::Sha256);
            let sent = request.body(ByteStream::from(content)).send().await;
            drop(permit);
            let sent = sent.map_err(|error| store.error("writing a part of", &key, &error))?;
            let etag = sent.e_tag().unwrap_or_default().to_owned();
            let checksum = sent.checksum_sha256().map(str::to_owned);
            Ok(Part { number, etag, checksum, leaves: leaves.hashes().to_vec() })
        });
        while let Some(ended) = self.sending.try_join_next() {
            self.arrived(ended)?;
        }
        Ok(())
    }

    fn arrived(
        &mut self,
        ended: Result<Result<Part, RequestError>, tokio::task::JoinError>,
    ) -> Result<(), RequestError> {
        let part = ended.map_err(|error| RequestError::new("writing a part", &error.to_string()))??;
        self.arrived.insert(part.number, part);
        while let Some(next) = self.arrived.get(&(self.recorded + 1)) {
            self.recorded += 1;
            // The last part may be short, and nothing is resumed after it.
            let whole = next.leaves.len() as u64 * LEAF as u64 == part_size(next.number, self.size);
            if whole
                && let Some(journal) = &mut self.journal
                && journal.add(next).is_err()
            {
                self.journal = None; // the disk is full: only resuming becomes impossible
            }
        }
        Ok(())
    }

    /// The hash of the pushed content.
    pub(crate) fn hash(&self) -> Option<[u8; 32]> {
        self.leaves.root()
    }

    /// Waits for all parts and completes the object.
    pub(crate) async fn finish(mut self) -> Result<(), RequestError> {
        while let Some(ended) = self.sending.join_next().await {
            self.arrived(ended)?;
        }
        let parts = self.arrived.into_values().map(|part| {
            let Part { number, etag, checksum, leaves: _ } = part;
            CompletedPart::builder().part_number(number).e_tag(etag).set_checksum_sha256(checksum).build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let store = &self.store;
        let request = store.client.complete_multipart_upload().bucket(&store.bucket).key(&self.key);
        let done = request.upload_id(&self.upload).multipart_upload(parts).send().await;
        done.map_err(|error| store.error("completing", &self.key, &error))?;
        if let Some(journal) = self.journal {
            let _ = journal.remove(); // a stale record is harmless
        }
        Ok(())
    }

    /// Aborts the upload.
    pub(crate) async fn abort(mut self) {
        self.sending.shutdown().await;
        if self.store.abort(&self.key, &self.upload).await.is_ok()
            && let Some(journal) = self.journal
        {
            let _ = journal.remove(); // a stale record is harmless
        }
    }

    /// Keeps the uploaded parts for the next run, if they are recorded.
    pub(crate) async fn keep(mut self) {
        if self.journal.is_none() {
            return self.abort().await;
        }
        // Waits briefly for parts in flight, so that they need not be sent again.
        let patience = std::time::Duration::from_secs(2);
        let _ = tokio::time::timeout(patience, async {
            while let Some(ended) = self.sending.join_next().await {
                if self.arrived(ended).is_err() {
                    break;
                }
            }
        })
        .await;
    }
}

fn leaves(parts: &[Part]) -> Leaves {
    Leaves::from_hashes(parts.iter().flat_map(|part| part.leaves.iter().copied()).collect())
}

/// How much of a file these parts contain, and its hash.
pub(crate) fn prefix(record: &Record) -> Option<(u64, [u8; 32])> {
    let Record { header, parts, journal: _ } = record;
    Some((header.part * parts.len() as u64, leaves(parts).root()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_enough_and_whole_leaves() {
        for size in [PART + 1, 1 << 30, 80 << 30, 5 << 40, 50 << 40] {
            let part = part_size(1, size);
            assert!(size.div_ceil(part) <= 10_000 && part.is_multiple_of(PART), "{size}");
        }
        assert_eq!(part_size(1, 80 << 30), 2 * PART);
        assert_eq!(part_size(1, 40 << 30), PART);
        assert_eq!((part_size(1, UNSIZED), part_size(1_001, UNSIZED)), (PART, 8 * PART));
    }
}
