//! Redaction of secrets from a stream, as the last line of defence.
//!
//! A [`Redactor`] takes a stream in pieces and gives it out with every form of every secret replaced by [`MASK`]:
//! leftmost first, the longest at a place, across any cut. It withholds only a tail that may begin a secret. The
//! caller asks for that tail with [`Redactor::release`] once it was held for [`HOLD_MS`]; should the rest of a secret
//! come after all, that rest is still masked.

use crate::Secret;
use crate::forms::forms;
use aho_corasick::{AhoCorasick, MatchKind};
use zeroize::Zeroizing;

/// What stands where a secret stood.
pub const MASK: &[u8] = b"[REDACTED]";

/// How long a tail that begins a secret may be withheld, in milliseconds.
pub const HOLD_MS: u64 = 100;

/// What to look for: made once, shared by the redactors of all streams.
#[derive(Debug, Default)]
pub struct Patterns {
    texts: Vec<Zeroizing<Vec<u8>>>,
    search: Option<AhoCorasick>,
    longest: usize,
}

impl Patterns {
    /// All forms of these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut texts: Vec<_> = secrets.into_iter().flat_map(|secret| forms(secret.expose())).collect();
        // A credential under two names is looked for once.
        texts.sort_unstable_by(|one, other| one.as_slice().cmp(other));
        texts.dedup_by(|one, other| one.as_slice() == other.as_slice());
        if texts.is_empty() {
            return Self::default();
        }
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts.iter().map(|text| text.as_slice()))
            .ok();
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        Self { texts, search, longest }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// `text` with every secret masked, for messages and audit lines.
    pub fn mask(&self, text: &[u8]) -> Vec<u8> {
        let mut redactor = Redactor::default();
        let mut out = Vec::with_capacity(text.len());
        redactor.push(self, text, &mut out);
        redactor.finish(self, &mut out);
        out
    }

    /// The first place in `text`, not before `from`, from which a secret may be under way beyond its end.
    fn unfinished(&self, text: &[u8], from: usize) -> Option<usize> {
        let first = text.len().saturating_sub(self.longest.saturating_sub(1)).max(from);
        (first..text.len()).find(|&at| {
            let rest = &text[at..];
            self.texts.iter().any(|pattern| pattern.len() > rest.len() && pattern.starts_with(rest))
        })
    }
}

/// The state of one stream.
#[derive(Debug, Default)]
pub struct Redactor {
    /// Withheld, or already given out by a release and kept to recognise the rest of a secret.
    held: Zeroizing<Vec<u8>>,
    /// How many of the held bytes were given out already.
    given: usize,
}

impl Redactor {
    /// Takes the next piece and appends what is safe to `out`.
    pub fn push(&mut self, patterns: &Patterns, piece: &[u8], out: &mut Vec<u8>) {
        if patterns.is_empty() {
            out.extend_from_slice(piece);
        } else if self.held.is_empty() {
            let rest = scan(patterns, piece, 0, false, out);
            self.keep(&piece[rest..], 0);
        } else {
            let mut text = std::mem::take(&mut self.held);
            text.extend_from_slice(piece);
            let rest = scan(patterns, &text, self.given, false, out);
            self.keep(&text[rest..], self.given.saturating_sub(rest));
        }
    }

    fn keep(&mut self, tail: &[u8], given: usize) {
        self.held.extend_from_slice(tail);
        self.given = given;
    }

    /// Whether bytes are withheld that [`Redactor::release`] would give out.
    pub fn holds(&self) -> bool {
        self.held.len() > self.given
    }

    /// Gives out what was withheld long enough. A whole secret in it is masked; its tail stays remembered.
    pub fn release(&mut self, patterns: &Patterns, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.held);
        let rest = scan(patterns, &text, self.given, true, out);
        out.extend_from_slice(&text[rest.max(self.given)..]);
        let tail = &text[patterns.unfinished(&text, rest).unwrap_or(text.len())..];
        self.keep(tail, tail.len());
    }

    /// The end of the stream: gives out everything still withheld.
    pub fn finish(&mut self, patterns: &Patterns, out: &mut Vec<u8>) {
        self.release(patterns, out);
        self.held.clear();
        self.given = 0;
    }
}

/// Copies `text` to `out` with the secrets in it masked, and returns how far it came: up to the place from which more
/// bytes could still change the outcome, or, where the text is `settled`, to the end of the last secret. The first
/// `given` bytes were given out before.
fn scan(patterns: &Patterns, text: &[u8], given: usize, settled: bool, out: &mut Vec<u8>) -> usize {
    let Some(search) = &patterns.search else { return 0 };
    let open = |from: usize| if settled { None } else { patterns.unfinished(text, from) };
    let mut plain = |from: usize, to: usize, mask: &[u8]| {
        out.extend_from_slice(text.get(from.max(given)..to).unwrap_or_default());
        out.extend_from_slice(mask);
    };
    let (mut done, mut undecided) = (0, open(0));
    for found in search.find_iter(text) {
        // A secret that starts where a longer one may be under way is not decided yet.
        if undecided.is_some_and(|at| found.start() >= at) {
            break;
        }
        plain(done, found.start(), MASK);
        done = found.end();
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
