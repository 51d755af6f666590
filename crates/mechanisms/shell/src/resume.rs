//! Remembers how much of a large file was read before a connection was lost.
//!
//! Resuming requires the hash of what the destination has, and no tool in the container computes ours. So the
//! hash state is kept for each offset where the destination may have stopped.

use super::checksum::Sum;
use super::listing::Stat;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of marks: more than can be in flight to the destination.
const MOST: usize = 512;

/// The hash states of a file up to an offset.
#[derive(Clone)]
pub(crate) struct Mark {
    pub(crate) offset: u64,
    pub(crate) hasher: blake3::Hasher,
    pub(crate) sum: Option<Sum>,
}

struct Reading {
    real: Vec<u8>,
    stat: Stat,
    marks: VecDeque<Mark>,
}

/// The marks of the file that was read last; clones share them.
#[derive(Clone, Default)]
pub struct ResumeMarks(Arc<Mutex<Option<Reading>>>);

impl ResumeMarks {
    /// Starts reading a file from the beginning.
    pub(crate) fn begin(&self, real: &[u8], stat: &Stat) {
        let reading = Reading { real: real.to_vec(), stat: stat.clone(), marks: VecDeque::new() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
    }

    pub(crate) fn add(&self, mark: Mark) {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Reading { marks, .. }) = &mut *reading {
            marks.push_back(mark);
            if marks.len() > MOST {
                marks.pop_front();
            }
        }
    }

    /// The mark to resume from, if the file is unchanged and the destination has the same content as far as
    /// is known.
    pub(crate) fn find(&self, real: &[u8], stat: &Stat, have: u64, hash: Option<[u8; 32]>) -> Option<Mark> {
        let reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Reading { marks, .. } =
            reading.as_ref().filter(|reading| reading.real == real && reading.stat.is_still(stat))?;
        let mark = marks.iter().find(|mark| mark.offset == have)?;
        hash.is_none_or(|hash| *mark.hasher.finalize().as_bytes() == hash).then(|| mark.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_resumes_only_where_both_agree() {
        let stat = Stat::parse(b"81a4 5 0 0 7 1970-01-01 00:00:07.5 +0000|1:2 1 8 0 0").unwrap();
        let other = Stat::parse(b"81a4 5 0 0 8 1970-01-01 00:00:08.5 +0000|1:2 1 8 0 0").unwrap();
        let marks = ResumeMarks::default();
        marks.begin(b"/a", &stat);
        for offset in 1..=MOST as u64 + 1 {
            let hasher = blake3::Hasher::new_derive_key(&offset.to_string());
            marks.add(Mark { offset, hasher, sum: None });
        }
        let hash = |offset: u64| *blake3::Hasher::new_derive_key(&offset.to_string()).finalize().as_bytes();
        assert_eq!(marks.find(b"/a", &stat, 7, Some(hash(7))).map(|mark| mark.offset), Some(7));
        assert_eq!(marks.find(b"/a", &stat, 9, None).map(|mark| mark.offset), Some(9));
        assert!(marks.find(b"/a", &stat, 1, Some(hash(1))).is_none(), "it is forgotten");
        assert!(marks.find(b"/a", &stat, 7, Some(hash(8))).is_none(), "they have something else");
        assert!(
            marks.find(b"/b", &stat, 7, Some(hash(7))).is_none()
                && marks.find(b"/a", &other, 7, None).is_none()
        );
    }
}
