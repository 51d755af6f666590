//! Redaction of secrets from a stream, as the last line of defence.
//!
//! A [`Redactor`] processes a stream in pieces and replaces every encoding of every secret with [`MASK`]. The
//! leftmost match wins, then the longest, regardless of how the stream is split. It withholds only a tail
//! that may be the start of a secret. The caller flushes that tail with [`Redactor::release`] after
//! [`HOLD_MS`]. If the rest of the secret arrives later, that rest is still masked.

mod decoded;

use crate::Secret;
use crate::encodings::{MIN_ENCODING, encodings};
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use decoded::View;
use std::cmp::Reverse;
use std::ops::Range;
use zeroize::Zeroizing;

/// The replacement for a secret.
pub const MASK: &[u8] = b"[REDACTED]";

/// How long a tail that may start a secret is withheld, in milliseconds.
pub const HOLD_MS: u64 = 100;

/// The encodings to search for. Built once and shared by the redactors of all streams.
///
/// The automaton contains only the first bytes of each encoding; a candidate is then compared in full. So it
/// is small and quick to build, whatever the secrets are. A complete DFA took 144 ms and 47 MiB for a service
/// account key of 2,300 bytes, and 15 s for a repetitive key of 4,000.
#[derive(Debug, Default)]
pub struct Patterns {
    /// Encodings with the same first bytes are adjacent, the longest first.
    texts: Vec<Zeroizing<Vec<u8>>>,
    heads: Option<AhoCorasick>,
    /// The range of texts for each head, by its number.
    by_head: Vec<Range<usize>>,
    longest: usize,
}

impl Patterns {
    /// All encodings of these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut texts: Vec<_> = secrets.into_iter().flat_map(|secret| encodings(secret.expose())).collect();
        texts.sort_unstable_by(|one, other| {
            let key = |text: &Vec<u8>| Reverse(text.len());
            head(one).cmp(head(other)).then(key(one).cmp(&key(other))).then_with(|| one.cmp(other))
        });
        // A credential with two names is searched for once.
        texts.dedup_by(|one, other| one.as_slice() == other.as_slice());
        if texts.is_empty() {
            return Self::default();
        }
        let mut by_head = Vec::new();
        let mut begin = 0;
        for alike in texts.chunk_by(|one, other| head(one) == head(other)) {
            by_head.push(begin..begin + alike.len());
            begin += alike.len();
        }
        let heads = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            // Heads have the same length, so this finds what the standard kind finds, by SIMD where possible.
            .match_kind(MatchKind::LeftmostFirst)
            .build(by_head.iter().filter_map(|alike| texts.get(alike.start)).map(|text| head(text)))
            .ok();
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        Self { texts, heads, by_head, longest }
    }

    /// Whether there are no secrets.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Masks every secret in `text`, for messages and audit lines.
    pub fn mask(&self, text: &[u8]) -> Vec<u8> {
        let mut redactor = Redactor::default();
        let mut out = Vec::with_capacity(text.len());
        redactor.push(self, text, &mut out);
        redactor.finish(self, &mut out);
        out
    }

    /// The first position in `text`, at or after `from`, where the head of an encoding matches, and the
    /// encodings with that head.
    fn candidate(&self, text: &[u8], from: usize) -> Option<(usize, &[Zeroizing<Vec<u8>>])> {
        let found = self.heads.as_ref()?.find(Input::new(text).range(from..))?;
        let encodings = self.by_head.get(found.pattern().as_usize())?;
        Some((found.start(), self.texts.get(encodings.clone())?))
    }

    /// The first match in `text` at or after `from`; at one position, the longest.
    fn find(&self, text: &[u8], mut from: usize) -> Option<Range<usize>> {
        while let Some((at, encodings)) = self.candidate(text, from) {
            if let Some(encoding) = encodings.iter().find(|encoding| text[at..].starts_with(encoding)) {
                return Some(at..at + encoding.len());
            }
            from = at + 1;
        }
        None
    }

    /// The first position in `text`, at or after `from`, where a secret may start that continues beyond the
    /// end.
    fn unfinished(&self, text: &[u8], from: usize) -> Option<usize> {
        let first = text.len().saturating_sub(self.longest.saturating_sub(1)).max(from);
        let begins = |encodings: &[Zeroizing<Vec<u8>>], rest: &[u8]| {
            encodings.iter().any(|encoding| encoding.len() > rest.len() && encoding.starts_with(rest))
        };
        let mut next = first;
        while let Some((at, encodings)) = self.candidate(text, next) {
            if begins(encodings, &text[at..]) {
                return Some(at);
            }
            next = at + 1;
        }
        // The automaton cannot find a tail that is shorter than a head.
        let last = text.len().saturating_sub(MIN_ENCODING - 1).max(first);
        (last..text.len()).find(|&at| begins(&self.texts, &text[at..]))
    }
}

/// A text, and its decoded views.
struct SearchText<'t> {
    patterns: &'t Patterns,
    text: &'t [u8],
    views: [Option<View>; 2],
}

impl<'t> SearchText<'t> {
    fn new(patterns: &'t Patterns, text: &'t [u8]) -> Self {
        // Decoding never makes a text longer.
        let decoded = View::decoded(text, patterns.longest.saturating_mul(ESCAPED));
        Self { patterns, text, views: [decoded, View::joined(text)] }
    }

    /// The first secret at or after `from`; at one position, the longest. `cached` caches the next match of
    /// each view, so that no view is searched twice.
    fn find(&self, from: usize, cached: &mut [NextMatch; 3]) -> Option<Range<usize>> {
        let [plain, cached @ ..] = cached;
        let of_text = plain.not_before(from, || self.patterns.find(self.text, from));
        let views = self.views.iter().zip(cached).filter_map(|(view, cached)| {
            let view = view.as_ref()?;
            cached.not_before(from, || self.find_in(view, view.index(from)))
        });
        of_text.into_iter().chain(views).min_by_key(|found| (found.start, Reverse(found.end)))
    }

    fn find_in(&self, view: &View, mut from: usize) -> Option<Range<usize>> {
        // A match that ends where it begins is part of one character.
        loop {
            let found = self.patterns.find(&view.bytes, from)?;
            let place = view.place(&found);
            if !place.is_empty() {
                return Some(place);
            }
            from = found.start + 1;
        }
    }

    /// The first position, at or after `from`, where a secret may start that continues beyond the end.
    fn unfinished(&self, from: usize) -> Option<usize> {
        // A view that ends earlier has nothing after its last escape that is not in the text itself.
        let views = self.views.iter().flatten().filter(|view| view.to_end).flat_map(|view| {
            let begun = |end: usize| {
                let begun = self.patterns.unfinished(&view.bytes[..end], view.index(from).min(end))?;
                Some(view.place(&(begun..begun + 1)).start)
            };
            // A truncated escape at the end may become an escape or remain literal.
            let cut = view.cut.filter(|at| *at >= from);
            let before = cut.and_then(|at| begun(view.index(at)));
            begun(view.bytes.len()).into_iter().chain(before).chain(cut)
        });
        self.patterns.unfinished(self.text, from).into_iter().chain(views).min()
    }
}

/// The next match of a search.
#[derive(Default)]
enum NextMatch {
    #[default]
    Unknown,
    Found(Range<usize>),
    Nothing,
}

impl NextMatch {
    fn not_before(
        &mut self,
        from: usize,
        find: impl FnOnce() -> Option<Range<usize>>,
    ) -> Option<Range<usize>> {
        let known = match self {
            Self::Unknown => false,
            Self::Found(found) => found.start >= from,
            Self::Nothing => true,
        };
        if !known {
            *self = find().map_or(Self::Nothing, Self::Found);
        }
        match self {
            Self::Found(found) => Some(found.clone()),
            Self::Unknown | Self::Nothing => None,
        }
    }
}

/// Length of the longest escape of one byte.
const ESCAPED: usize = 6;

/// The part of an encoding that is in the automaton.
fn head(encoding: &[u8]) -> &[u8] {
    encoding.first_chunk::<MIN_ENCODING>().map_or(encoding, |head| head)
}

/// Redaction state of one stream.
#[derive(Debug, Default)]
pub struct Redactor {
    /// Bytes that are withheld, or that were released and are kept to recognise the rest of a secret.
    held: Zeroizing<Vec<u8>>,
    /// How many of the held bytes were already output.
    released: usize,
}

impl Redactor {
    /// Processes the next piece and appends the safe part to `out`.
    pub fn push(&mut self, patterns: &Patterns, piece: &[u8], out: &mut Vec<u8>) {
        if patterns.is_empty() {
            out.extend_from_slice(piece);
        } else if self.held.is_empty() {
            let rest = scan(&SearchText::new(patterns, piece), 0, false, out);
            self.keep(&piece[rest..], 0);
        } else {
            let mut text = std::mem::take(&mut self.held);
            text.extend_from_slice(piece);
            let rest = scan(&SearchText::new(patterns, &text), self.released, false, out);
            self.keep(&text[rest..], self.released.saturating_sub(rest));
        }
    }

    fn keep(&mut self, tail: &[u8], released: usize) {
        self.held.extend_from_slice(tail);
        self.released = released;
    }

    /// Whether [`Redactor::release`] would output withheld bytes.
    pub fn holds(&self) -> bool {
        self.held.len() > self.released
    }

    /// Outputs the withheld bytes. A whole secret in them is masked. The tail is kept to recognise the rest
    /// of a secret.
    pub fn release(&mut self, patterns: &Patterns, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.held);
        let read = SearchText::new(patterns, &text);
        let rest = scan(&read, self.released, true, out);
        out.extend_from_slice(&text[rest.max(self.released)..]);
        let tail = &text[read.unfinished(rest).unwrap_or(text.len())..];
        self.keep(tail, tail.len());
    }

    /// Ends the stream: outputs everything still withheld.
    pub fn finish(&mut self, patterns: &Patterns, out: &mut Vec<u8>) {
        self.release(patterns, out);
        self.held.clear();
        self.released = 0;
    }
}

/// Copies `text` to `out` with its secrets masked, and returns the end of the processed part: the position
/// from which more bytes could still change the result or, if the text is `settled`, the end of the last
/// secret. The first `released` bytes were output before.
fn scan(read: &SearchText<'_>, released: usize, settled: bool, out: &mut Vec<u8>) -> usize {
    let text = read.text;
    if read.patterns.heads.is_none() {
        return 0;
    }
    let open = |from: usize| if settled { None } else { read.unfinished(from) };
    let mut plain = |from: usize, to: usize, mask: &[u8]| {
        out.extend_from_slice(text.get(from.max(released)..to).unwrap_or_default());
        out.extend_from_slice(mask);
    };
    let (mut done, mut undecided) = (0, open(0));
    let mut cached = Default::default();
    while let Some(found) = read.find(done, &mut cached) {
        // A match is not final while a longer one may start at the same position.
        if undecided.is_some_and(|at| found.start >= at) {
            break;
        }
        plain(done, found.start, MASK);
        done = found.end;
        if undecided.is_some_and(|at| at < done) {
            undecided = open(done);
        }
    }
    if settled {
        return done;
    }
    let rest = undecided.unwrap_or(text.len());
    plain(done, rest, b"");
    rest
}

#[cfg(test)]
mod tests;
