//! Reads small files in archives made by the container's tar, many at a time.

use super::content::{Block, CHANGED, Content, DIFFERS, Wanted, about};
use crate::archive::{Part, Reader, is_plain};
use crate::quoting::{assign_path, cause};
use crate::session::{Lost, Piece, Session, parse_answer};
use crate::{Outbox, TranslatorError};
use bytes::BytesMut;
use postern_wire::copy::FromSource;
use std::collections::VecDeque;

/// Files up to this size are read in archives.
const SMALL: u64 = 1024 * 1024;

/// Maximum bytes of content and of names, and maximum number of files, in one archive.
const BYTES: u64 = 4 * 1024 * 1024;
const NAMES: usize = 64 * 1024;
const FILES: usize = 256;

impl Wanted {
    pub(super) fn is_small(&self) -> bool {
        self.item.stat.size <= SMALL && is_plain(&self.item.real)
    }
}

impl Content {
    /// Sends the small files that are requested next.
    pub(super) async fn send_batch(
        &self,
        session: &mut Session,
        wanted: &mut VecDeque<Wanted>,
        out: &mut Outbox,
    ) -> Result<(), TranslatorError> {
        let (mut batch, mut bytes, mut names) = (Vec::new(), 0, 0);
        while let Some(next) = wanted.front()
            && next.is_small()
            && batch.len() < FILES
            && (batch.is_empty() || bytes + next.item.stat.size <= BYTES && names < NAMES)
        {
            bytes += next.item.stat.size;
            names += next.item.real.len();
            batch.extend(wanted.pop_front());
        }
        let mut line = b"set --\n".to_vec();
        for Wanted { item, .. } in &batch {
            assign_path(&mut line, 'a', &item.real);
            line.extend_from_slice(b"set -- \"$@\" \"$a\"\n");
        }
        line.extend_from_slice(b"pack \"$@\"\n");
        session.queue(&line);
        let contents = archived(session, &batch).await?;
        let said = abouts(session, batch.len()).await?;
        for ((Wanted { want, item }, content), said) in batch.into_iter().zip(contents).zip(said) {
            let unread = self.way.verify && session.tools.sum.is_none();
            let (Some(content), Some(said)) = (content.filter(|_| !unread), said) else {
                // Files missing in the archive, such as one that is now a link, are read separately.
                self.one(session, &want, &item, out).await?;
                continue;
            };
            let id = want.id;
            let theirs = about(&item, &said);
            let ours = session.tools.sum.map(|tool| tool.of(&content));
            let flaw = match theirs {
                Err(why) => Some(why),
                Ok(_) if content.len() as u64 != item.stat.size => Some(CHANGED.to_owned()),
                Ok(theirs) if ours.is_some_and(|ours| ours != theirs) => Some(DIFFERS.to_owned()),
                Ok(_) => None,
            };
            let hash = blake3::hash(&content);
            let known = want.have > 0 && want.have == item.stat.size && hash == want.hash && flaw.is_none();
            let offset = if known { want.have } else { 0 };
            out.put(|buffer| FromSource::From { id, offset }.encode(buffer));
            if !known && flaw.is_none() {
                let mut block = Block::of(&item);
                block.add(&content, out).await?;
                block.end(out).await?;
            }
            match flaw {
                Some(message) => out.put(|buffer| FromSource::FileFault { id, message }.encode(buffer)),
                None => out.put(|buffer| FromSource::FileEnd { id, hash: hash.into() }.encode(buffer)),
            }
            out.flush_if_large().await?;
        }
        Ok(())
    }
}

/// The container's hashes and attributes of the files; `None` if some files are gone, because it is unknown
/// which.
async fn abouts(session: &mut Session, count: usize) -> Result<Vec<Option<Vec<u8>>>, TranslatorError> {
    session.queue(b"abouts \"$@\";set --\n");
    let said = session.whole().await?.unwrap_or_default();
    let lines: Vec<&[u8]> = said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let (hashes, stats) = match session.tools.sum {
        Some(_) if lines.len() == 2 * count => lines.split_at(count),
        None if lines.len() == count => (&lines[..0], &lines[..]),
        _ => return Ok(vec![None; count]),
    };
    let one = |(at, stat): (usize, &&[u8])| {
        let hash = hashes.get(at).and_then(|line| line.split(|byte| *byte == b' ').next()).unwrap_or(b"-");
        Some([hash, b" ", stat].concat())
    };
    Ok(stats.iter().enumerate().map(one).collect())
}

/// Reads the archive. Returns the content of each file that is complete and unchanged.
async fn archived(session: &mut Session, batch: &[Wanted]) -> Result<Vec<Option<BytesMut>>, TranslatorError> {
    let mut contents: Vec<Option<BytesMut>> = batch.iter().map(|_| None).collect();
    let mut reader = Reader::default();
    let (mut at, mut flaw, mut next) = (None, None, 0);
    loop {
        match session.piece().await? {
            Piece::Bytes(bytes) if flaw.is_none() => {
                reader.push(&bytes);
                loop {
                    match reader.next_part() {
                        Ok(None) => break,
                        Ok(Some(Part::File { name, size })) => {
                            at = named(batch, next, &name).filter(|at| batch[*at].item.stat.size == size);
                            if let Some(at) = at {
                                contents[at] = Some(BytesMut::new());
                                next = at + 1;
                            }
                        }
                        Ok(Some(Part::Other { .. } | Part::End)) => at = None,
                        Ok(Some(Part::Data(bytes))) => {
                            if let Some(content) = at.and_then(|at| contents[at].as_mut()) {
                                content.extend_from_slice(&bytes);
                            }
                        }
                        Err(error) => {
                            flaw = Some(error);
                            break;
                        }
                    }
                }
            }
            Piece::Bytes(_) => {} // ignore the rest
            Piece::End(end) => {
                session.confirm_stream();
                parse_answer(&end)
                    .ok_or_else(|| Lost(format!("unexpected answer of the shell: {}", cause(&end))))?
                    .ok();
                break;
            }
        }
    }
    if let Some(flaw) = flaw {
        return Err(TranslatorError::Fatal(flaw.to_string()));
    }
    // A truncated file is read separately, which reports the reason.
    for (content, Wanted { item, .. }) in contents.iter_mut().zip(batch) {
        if content.as_ref().is_some_and(|content| content.len() as u64 != item.stat.size) {
            *content = None;
        }
    }
    Ok(contents)
}

/// The file with this name in the archive. tar removes leading `/` and `../`, and keeps the order.
fn named(batch: &[Wanted], from: usize, name: &[u8]) -> Option<usize> {
    let name = bare(name);
    (from..batch.len()).find(|at| bare(&batch[*at].item.real) == name)
}

fn bare(mut path: &[u8]) -> &[u8] {
    loop {
        let rest = path.strip_prefix(b"/").or_else(|| path.strip_prefix(b"./"));
        match rest.or_else(|| path.strip_prefix(b"../")) {
            Some(rest) => path = rest,
            None => return path,
        }
    }
}
