//! Sends the content of objects from where the destination lacks it.

use crate::error::{Kind as Because, RequestError};
use crate::link::{EndError, Outbox};
use crate::listing::Item;
use crate::store::Store;
use aws_sdk_s3::primitives::ByteStream;
use bytes::{Bytes, BytesMut};
use postern_files::compression::Compressor;
use postern_files::policy::{CHANGED, STALE, STOPPED};
use postern_files::stop_flag::StopFlag;
use postern_wire::copy::{BLOCK, Compression, FromSource, Known, Want};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Objects up to this size are prefetched, at most this many at a time.
const SMALL: u64 = 1024 * 1024;
const AHEAD: usize = 16;

/// Maximum length of the target of a symbolic link.
const LINK: u64 = 4_096;

/// The first pause before reading continues, and the number of attempts without progress.
const PAUSE: Duration = Duration::from_millis(250);
const TRIES: u32 = 5;

/// Why the content of an object ends early.
enum Fault {
    EndError(EndError),
    Object(String),
}

impl From<EndError> for Fault {
    fn from(ended: EndError) -> Self {
        Self::EndError(ended)
    }
}

impl From<RequestError> for Fault {
    fn from(error: RequestError) -> Self {
        Self::Object(error.message)
    }
}

fn fault(why: &str) -> Fault {
    Fault::Object(why.to_owned())
}

const DIFFERS: &str = "the object is not what was written: its BLAKE3 differs";

/// Sends content in the order of the requests.
pub(crate) struct Content {
    store: Store,
    compressor: Compressor,
    stop: StopFlag,
    wanted: VecDeque<(Want, Item)>,
    /// Small objects being prefetched, in the order of `wanted`.
    ahead: VecDeque<(u32, JoinSet<Result<Bytes, RequestError>>)>,
}

impl Content {
    pub(crate) fn new(store: &Store, compression: Compression, stop: StopFlag) -> Self {
        let compressor = Compressor::new(compression);
        Self { store: store.clone(), compressor, stop, wanted: VecDeque::new(), ahead: VecDeque::new() }
    }

    pub(crate) fn want(&mut self, want: Want, item: Item) {
        self.wanted.push_back((want, item));
    }

    /// Sends the content that is requested first; returns whether there was any. Errors of an object are sent
    /// to the destination.
    pub(crate) async fn serve(&mut self, out: &mut Outbox) -> Result<bool, EndError> {
        self.fetch_ahead();
        let Some((want, item)) = self.wanted.pop_front() else { return Ok(false) };
        let ahead = match self.ahead.front() {
            Some((id, _)) if *id == want.id => self.ahead.pop_front().map(|(_, task)| task),
            _ => None,
        };
        let ended = match self.object(&want, &item, ahead, out).await {
            Ok(hash) => FromSource::FileEnd { id: want.id, hash },
            Err(Fault::Object(message)) => FromSource::FileFault { id: want.id, message },
            Err(Fault::EndError(ended)) => return Err(ended),
        };
        out.put(|buffer| ended.encode(buffer)).await?;
        Ok(true)
    }

    fn fetch_ahead(&mut self) {
        let last = self.ahead.back().map(|(id, _)| *id);
        let known = last.and_then(|last| self.wanted.iter().position(|(want, _)| want.id == last));
        let from = known.map_or(0, |at| at + 1);
        for (want, item) in self.wanted.iter().skip(from) {
            let size = item.found.size;
            if self.ahead.len() >= AHEAD || size > SMALL || want.have > 0 {
                break; // keep the order
            }
            let mut task = JoinSet::new();
            let (store, item) = (self.store.clone(), item.clone());
            task.spawn(async move { Body::open(&store, &item).all().await });
            self.ahead.push_back((want.id, task));
        }
    }

    async fn object(
        &mut self,
        want: &Want,
        item: &Item,
        ahead: Option<JoinSet<Result<Bytes, RequestError>>>,
        out: &mut Outbox,
    ) -> Result<[u8; 32], Fault> {
        let (size, known) = (item.found.size, item.found.posix.hash);
        if want.have > size {
            return Err(fault(STALE));
        }
        if want.have == size && known == Some(want.hash) {
            out.put(|buffer| FromSource::From { id: want.id, offset: size }.encode(buffer)).await?;
            return Ok(want.hash);
        }
        let store = self.store.clone();
        let mut hasher = blake3::Hasher::new();
        let mut body = match ahead {
            None => Body::open(&store, item),
            Some(mut task) => {
                let content = task.join_next().await.ok_or_else(|| fault("prefetching it failed"))?;
                Body::fetched(&store, item, content.map_err(|error| fault(&error.to_string()))??)
            }
        };
        let mut offset = 0;
        if want.have > 0 {
            while body.at < want.have {
                let most = want.have - body.at;
                hasher.update(&body.next(most).await?);
            }
            if want.known == Known::Prefix || hasher.finalize() == want.hash {
                offset = want.have;
            } else if want.partial {
                return Err(fault(STALE));
            } else {
                hasher.reset();
                body = Body::open(&store, item);
            }
        }
        out.put(|buffer| FromSource::From { id: want.id, offset }.encode(buffer)).await?;
        let (mut block, mut hole) = (BytesMut::with_capacity(BLOCK), 0);
        while body.at < size || !block.is_empty() {
            if self.stop.is_set(want.id) {
                return Err(fault(STOPPED));
            }
            while block.len() < BLOCK && body.at < size {
                let next = body.next((BLOCK - block.len()) as u64).await?;
                block.extend_from_slice(&next);
            }
            hasher.update(&block);
            // S3 has no holes: blocks of zeroes become holes again.
            if block.len() == BLOCK && block.iter().all(|byte| *byte == 0) {
                hole += BLOCK as u64;
            } else {
                self.hole(&mut hole, out).await?;
                self.block(&block, out).await?;
            }
            block.clear();
        }
        self.hole(&mut hole, out).await?;
        let hash = hasher.finalize().into();
        if known.is_some_and(|known| known != hash) {
            return Err(fault(DIFFERS));
        }
        Ok(hash)
    }

    async fn hole(&mut self, length: &mut u64, out: &mut Outbox) -> Result<(), EndError> {
        match std::mem::take(length) {
            0 => Ok(()),
            length => out.put(|buffer| FromSource::Hole(length).encode(buffer)).await,
        }
    }

    async fn block(&mut self, bytes: &[u8], out: &mut Outbox) -> Result<(), EndError> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let frame = match self.compressor.compress(bytes) {
            Some(smaller) => FromSource::Compressed { length, bytes: smaller },
            None => FromSource::Data(bytes),
        };
        let began = Instant::now();
        out.put(|buffer| frame.encode(buffer)).await?;
        self.compressor.sent(began.elapsed());
        Ok(())
    }
}

/// Reads the bytes of an object. After a broken connection it continues where it was.
struct Body<'a> {
    store: &'a Store,
    item: &'a Item,
    at: u64,
    stream: Option<ByteStream>,
    rest: Bytes,
}

impl<'a> Body<'a> {
    fn open(store: &'a Store, item: &'a Item) -> Self {
        Self { store, item, at: 0, stream: None, rest: Bytes::new() }
    }

    fn fetched(store: &'a Store, item: &'a Item, content: Bytes) -> Self {
        Self { store, item, at: 0, stream: None, rest: content }
    }

    /// Reads the whole object.
    async fn all(mut self) -> Result<Bytes, RequestError> {
        let size = self.item.found.size;
        let mut content = BytesMut::with_capacity(usize::try_from(size).unwrap_or(0));
        while self.at < size {
            content.extend_from_slice(&self.next(size).await?);
        }
        Ok(content.freeze())
    }

    /// The next bytes: at least one, at most `most`. There must be some left.
    async fn next(&mut self, most: u64) -> Result<Bytes, RequestError> {
        let (mut tries, mut pause) = (0, PAUSE);
        while self.rest.is_empty() {
            let came = match &mut self.stream {
                None => Err(None),
                Some(stream) => match stream.try_next().await {
                    Ok(Some(bytes)) => Ok(bytes),
                    Ok(None) => Err(Some("the server ended early".to_owned())),
                    Err(error) => Err(Some(error.to_string())),
                },
            };
            match came {
                Ok(bytes) => self.rest = bytes,
                Err(None) => self.stream = Some(self.ask().await?),
                Err(Some(why)) if tries >= TRIES => {
                    return Err(RequestError::new(
                        &format!("reading {}", self.store.show(&self.item.key)),
                        &why,
                    ));
                }
                Err(Some(_)) => {
                    self.stream = None;
                    tries += 1;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        let count = self.rest.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        // Ignores what a server sends beyond the size of the object.
        let left = usize::try_from(self.item.found.size - self.at).unwrap_or(usize::MAX);
        let bytes = self.rest.split_to(count.min(left));
        self.at += bytes.len() as u64;
        Ok(bytes)
    }

    async fn ask(&self) -> Result<ByteStream, RequestError> {
        let Self { store, item, at, stream: _, rest: _ } = self;
        let request = store.client.get_object().bucket(&store.bucket).key(&item.key);
        let request = request
            .set_range((*at > 0).then(|| format!("bytes={at}-")))
            .set_if_match(item.found.etag.clone());
        let answer = request.send().await.map_err(|error| store.error("reading", &item.key, &error));
        match answer {
            Ok(object) => Ok(object.body),
            Err(RequestError { kind: Because::Changed | Because::Missing, .. }) => {
                Err(RequestError::new(&format!("reading {}", store.show(&item.key)), CHANGED))
            }
            Err(error) => Err(error),
        }
    }
}

impl Store {
    /// The target of a symbolic link.
    pub(crate) async fn read_small(&self, key: &str, size: u64) -> Result<Vec<u8>, String> {
        if size > LINK {
            return Err(format!("its symbolic link target is too long: {size} bytes"));
        }
        let answer = self.client.get_object().bucket(&self.bucket).key(key).send().await;
        let object = answer.map_err(|error| self.error("reading", key, &error).message)?;
        let content = object.body.collect().await.map_err(|error| error.to_string())?;
        Ok(content.to_vec())
    }
}
