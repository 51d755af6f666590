//! Writes arriving content.

use super::{Event, HELD, Into, ObjectReceiver, Open, Wanted, Writing, settled, units};
use crate::error::RequestError;
use crate::link::{EndError, Outbox};
use crate::upload::{Multipart, PART};
use bytes::Bytes;
use postern_files::policy;
use postern_wire::copy::{EntryResult, Fate, FromDestination, Kind, UNSIZED};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

impl ObjectReceiver<'_> {
    /// Starts the content of the first requested entry.
    pub(super) async fn begin(&mut self, id: u32, offset: u64) -> Result<(), EndError> {
        let wanted = self.wanted.pop_front().filter(|wanted| wanted.entry.id == id && self.writing.is_none());
        let Some(Wanted { entry, key, posix, have, whole, record }) = wanted else {
            return Err(EndError::Gone);
        };
        let Kind::File(size) = entry.kind else { return Err(EndError::Gone) };
        if offset != 0 && offset != have {
            return Err(EndError::Gone);
        }
        if offset > 0 && whole {
            self.writing = Some(Writing { id, key, into: Into::Same, stopped: false });
            return Ok(());
        }
        let parts = match record {
            Some(record) if offset > 0 => Ok(Some(Multipart::resume(self.store, record))),
            other => {
                if let Some(record) = other {
                    Multipart::resume(self.store, record).abort().await;
                }
                match size > PART && size != UNSIZED {
                    true => Multipart::begin(self.store, &key, size, &posix).await.map(Some),
                    false => Ok(None),
                }
            }
        };
        let into = match parts {
            Err(error) => Into::Failed(error.message),
            Ok(parts) => {
                let most = parts.as_ref().map_or(size.min(PART), Multipart::next_part);
                let permit = self.permit(most).await?;
                let buffer = Vec::with_capacity(usize::try_from(most.min(size - offset)).unwrap_or(0));
                Into::Open(Box::new(Open { posix, size, came: offset, buffer, most, permit, parts }))
            }
        };
        self.writing = Some(Writing { id, key, into, stopped: false });
        Ok(())
    }

    async fn permit(&self, bytes: u64) -> Result<OwnedSemaphorePermit, EndError> {
        let wanted = units(bytes.min(HELD)).max(1);
        Arc::clone(&self.held).acquire_many_owned(wanted).await.map_err(|_| EndError::Gone)
    }

    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), EndError> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > self.spec.limits.bytes {
            return Err(EndError::Fatal(policy::many_bytes(self.spec.limits.bytes)));
        }
        let Some(mut writing) = self.writing.take() else { return Err(EndError::Gone) };
        if let Into::Open(open) = &mut writing.into {
            open.came += bytes.len() as u64;
            if open.size != UNSIZED && open.came > open.size {
                return Err(EndError::Gone);
            }
            let mut why = None;
            while !bytes.is_empty() {
                let room = usize::try_from(open.most).unwrap_or(usize::MAX) - open.buffer.len();
                if room == 0 {
                    match self.upload_part(open, &writing.key).await? {
                        Ok(()) => continue,
                        Err(error) => {
                            why = Some(error.message);
                            break;
                        }
                    }
                }
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                open.buffer.extend_from_slice(now);
                bytes = later;
            }
            if let Some(why) = why {
                let failed = Into::Failed(why);
                if let Into::Open(open) = std::mem::replace(&mut writing.into, failed)
                    && let Some(parts) = open.parts
                {
                    parts.keep().await;
                }
            }
        }
        self.writing = Some(writing);
        Ok(())
    }

    /// Uploads the full part, and allocates space for the next.
    async fn upload_part(&self, open: &mut Open, key: &str) -> Result<Result<(), RequestError>, EndError> {
        let mut parts = match open.parts.take() {
            Some(parts) => parts,
            // A stream that turned out to be long.
            None => match Multipart::begin(self.store, key, open.size, &open.posix).await {
                Ok(parts) => parts,
                Err(error) => return Ok(Err(error)),
            },
        };
        let content = Bytes::from(std::mem::take(&mut open.buffer));
        // The old permit stays with the part; the next one is acquired while that part is uploaded.
        let none = Arc::clone(&self.held).acquire_many_owned(0).await.map_err(|_| EndError::Gone)?;
        let sent = parts.push(content, std::mem::replace(&mut open.permit, none));
        open.most = parts.next_part();
        open.parts = Some(parts);
        if sent.is_ok() {
            open.permit = self.permit(open.most).await?;
            let left = if open.size == UNSIZED { open.most } else { open.size.saturating_sub(open.came) };
            open.buffer = Vec::with_capacity(usize::try_from(open.most.min(left)).unwrap_or(0));
        }
        Ok(sent)
    }

    /// Ends the content of a file.
    pub(super) async fn end(&mut self, id: u32, hash: [u8; 32], out: &mut Outbox) -> Result<(), EndError> {
        let writing = self.writing.take().filter(|writing| writing.id == id).ok_or(EndError::Gone)?;
        let Writing { id, key, into, stopped: _ } = writing;
        match into {
            Into::Failed(why) => self.failed(&key, id, why, out).await,
            // The source compared the hashes.
            Into::Same => {
                self.busy.remove(&key);
                let done = EntryResult { id, fate: Fate::Same, hash, note: String::new() };
                out.put(|buffer| FromDestination::EntryResult(done).encode(buffer)).await
            }
            Into::Open(open) => {
                let Open { mut posix, size, came, buffer, most: _, permit, parts } = *open;
                let store = self.store.clone();
                let short = size != UNSIZED && came != size;
                match parts {
                    None if short || *blake3::hash(&buffer).as_bytes() != hash => {
                        self.failed(&key, id, policy::DIFFERS.to_owned(), out).await
                    }
                    None => {
                        posix.hash = Some(hash);
                        let requests = Arc::clone(&self.requests);
                        self.tasks.spawn(async move {
                            let _turn = requests.acquire().await;
                            let done = store.put(&key, &posix, Bytes::from(buffer)).await;
                            drop(permit);
                            Event::EntryResult(key, settled(id, done.map(|()| (Fate::Written, hash))))
                        });
                        Ok(())
                    }
                    Some(mut parts) => {
                        let last = match buffer.is_empty() {
                            true => Ok(()),
                            false => parts.push(Bytes::from(buffer), permit),
                        };
                        if short || parts.hash() != Some(hash) {
                            parts.abort().await;
                            return self.failed(&key, id, policy::DIFFERS.to_owned(), out).await;
                        }
                        self.tasks.spawn(async move {
                            let done = match last {
                                Ok(()) => parts.finish().await,
                                Err(error) => {
                                    parts.keep().await;
                                    Err(error)
                                }
                            };
                            Event::EntryResult(key, settled(id, done.map(|()| (Fate::Written, hash))))
                        });
                        Ok(())
                    }
                }
            }
        }
    }

    /// The source cannot send a file, or no more of it.
    pub(super) async fn fault(
        &mut self,
        id: u32,
        mut message: String,
        out: &mut Outbox,
    ) -> Result<(), EndError> {
        let key = match self.writing.take() {
            Some(Writing { id: of, key, into, stopped: _ }) if of == id => {
                match into {
                    Into::Open(open) => {
                        if let Some(parts) = open.parts {
                            parts.abort().await;
                        }
                    }
                    Into::Failed(why) => message = why, // the first error, at this end
                    Into::Same => {}
                }
                key
            }
            Some(_) => return Err(EndError::Gone),
            None => match self.wanted.pop_front() {
                Some(wanted) if wanted.entry.id == id => wanted.key,
                _ => return Err(EndError::Gone),
            },
        };
        self.failed(&key, id, message, out).await
    }
}
