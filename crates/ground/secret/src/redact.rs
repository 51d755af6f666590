//! Redaction of secrets from a stream, as the last line of defence.
//!
//! A [`Redactor`] takes a stream in pieces and gives it out with every form of every secret replaced by [`MASK`]:
//! leftmost first, the longest at a place, across any cut. It withholds only a tail that may begin a secret. The
//! caller asks for that tail with [`Redactor::release`] once it was held for [`HOLD_MS`]; should the rest of a secret
//! come after all, that rest is still masked.

mod views;

use crate::Secret;
use crate::forms::{MIN_FORM, forms};
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input};
use std::cmp::Reverse;
use std::ops::Range;
use views::View;
use zeroize::Zeroizing;

/// What stands where a secret stood.
pub const MASK: &[u8] = b"[REDACTED]";

/// How long a tail that begins a secret may be withheld, in milliseconds.
pub const HOLD_MS: u64 = 100;

/// What to look for: made once, shared by the redactors of all streams.
///
/// Only the first bytes of each form are in the automaton, and what begins so is compared: it is made in no time and is
/// small, whatever the secrets are. A whole one (a DFA) took 144 ms and 47 MiB for a service account's key of 2,300 bytes, and
/// 15 s for one of 4,000 that repeats itself.
#[derive(Debug, Default)]
pub struct Patterns {
    /// Those that begin alike stand together, the longest first.
    texts: Vec<Zeroizing<Vec<u8>>>,
    heads: Option<AhoCorasick>,
    /// Which texts have a head, by its number.
    by_head: Vec<Range<usize>>,
    longest: usize,
}

impl Patterns {
    /// All forms of these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut texts: Vec<_> = secrets.into_iter().flat_map(|secret| forms(secret.expose())).collect();
        texts.sort_unstable_by(|one, other| {
            let key = |text: &Vec<u8>| Reverse(text.len());
            head(one).cmp(head(other)).then(key(one).cmp(&key(other))).then_with(|| one.cmp(other))
        });
        // A credential under two names is looked for once.
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
            .build(by_head.iter().filter_map(|alike| texts.get(alike.start)).map(|text| head(text)))
            .ok();
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        Self { texts, heads, by_head, longest }
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

    /// The first place in `text`, not before `from`, where a form begins as far as its head tells; and the forms that do.
    fn candidate(&self, text: &[u8], from: usize) -> Option<(usize, &[Zeroizing<Vec<u8>>])> {
        let found = self.heads.as_ref()?.find(Input::new(text).range(from..))?;
        let forms = self.by_head.get(found.pattern().as_usize())?;
        Some((found.start(), self.texts.get(forms.clone())?))
    }

    /// The first form in `text`, not before `from`; of several at a place the longest.
    fn find(&self, text: &[u8], mut from: usize) -> Option<Range<usize>> {
        while let Some((at, forms)) = self.candidate(text, from) {
            if let Some(form) = forms.iter().find(|form| text[at..].starts_with(form)) {
                return Some(at..at + form.len());
            }
            from = at + 1;
        }
        None
    }

    /// The first place in `text`, not before `from`, from which a secret may be under way beyond its end.
    fn unfinished(&self, text: &[u8], from: usize) -> Option<usize> {
        let first = text.len().saturating_sub(self.longest.saturating_sub(1)).max(from);
        let begins = |forms: &[Zeroizing<Vec<u8>>], rest: &[u8]| {
            forms.iter().any(|form| form.len() > rest.len() && form.starts_with(rest))
        };
        let mut next = first;
        while let Some((at, forms)) = self.candidate(text, next) {
            if begins(forms, &text[at..]) {
                return Some(at);
            }
            next = at + 1;
        }
        // Of what is shorter than a head, the automaton knows nothing.
        let last = text.len().saturating_sub(MIN_FORM - 1).max(first);
        (last..text.len()).find(|&at| begins(&self.texts, &text[at..]))
    }
}

/// A text as it is, and as other readings of it are.
struct Reading<'t> {
    patterns: &'t Patterns,
    text: &'t [u8],
    views: [Option<View>; 2],
}

impl<'t> Reading<'t> {
    fn new(patterns: &'t Patterns, text: &'t [u8]) -> Self {
        // Decoding never makes a text longer.
        let decoded = View::decoded(text, patterns.longest.saturating_mul(ESCAPED));
        Self { patterns, text, views: [decoded, View::joined(text)] }
    }

    /// The first secret, not before `from`; of several at a place the longest. `ahead` keeps what was found of each reading,
    /// so that none is searched again for what another has.
    fn find(&self, from: usize, ahead: &mut [Ahead; 3]) -> Option<Range<usize>> {
        let [plain, ahead @ ..] = ahead;
        let of_text = plain.not_before(from, || self.patterns.find(self.text, from));
        let views = self.views.iter().zip(ahead).filter_map(|(view, ahead)| {
            let view = view.as_ref()?;
            ahead.not_before(from, || self.find_in(view, view.index(from)))
        });
        of_text.into_iter().chain(views).min_by_key(|found| (found.start, Reverse(found.end)))
    }

    fn find_in(&self, view: &View, mut from: usize) -> Option<Range<usize>> {
        // What ends where it begins is part of one character.
        loop {
            let found = self.patterns.find(&view.bytes, from)?;
            let place = view.place(&found);
            if !place.is_empty() {
                return Some(place);
            }
            from = found.start + 1;
        }
    }

    /// The first place, not before `from`, from which a secret may be under way beyond the end.
    fn unfinished(&self, from: usize) -> Option<usize> {
        // A view that ends earlier has nothing after its last escape that the text does not have itself.
        let views = self.views.iter().flatten().filter(|view| view.to_end).flat_map(|view| {
            let begun = |end: usize| {
                let begun = self.patterns.unfinished(&view.bytes[..end], view.index(from).min(end))?;
                Some(view.place(&(begun..begun + 1)).start)
            };
            // What the end cuts off may become an escape, or be what it is.
            let cut = view.cut.filter(|at| *at >= from);
            let before = cut.and_then(|at| begun(view.index(at)));
            begun(view.bytes.len()).into_iter().chain(before).chain(cut)
        });
        self.patterns.unfinished(self.text, from).into_iter().chain(views).min()
    }
}

/// What a search found next.
#[derive(Default)]
enum Ahead {
    #[default]
    Unknown,
    Found(Range<usize>),
    Nothing,
}

impl Ahead {
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

/// Bytes of the longest escape of one byte.
const ESCAPED: usize = 6;

/// What the automaton has of a form.
fn head(form: &[u8]) -> &[u8] {
    form.first_chunk::<MIN_FORM>().map_or(form, |head| head)
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
            let rest = scan(&Reading::new(patterns, piece), 0, false, out);
            self.keep(&piece[rest..], 0);
        } else {
            let mut text = std::mem::take(&mut self.held);
            text.extend_from_slice(piece);
            let rest = scan(&Reading::new(patterns, &text), self.given, false, out);
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
        let read = Reading::new(patterns, &text);
        let rest = scan(&read, self.given, true, out);
        out.extend_from_slice(&text[rest.max(self.given)..]);
        let tail = &text[read.unfinished(rest).unwrap_or(text.len())..];
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
fn scan(read: &Reading<'_>, given: usize, settled: bool, out: &mut Vec<u8>) -> usize {
    let text = read.text;
    if read.patterns.heads.is_none() {
        return 0;
    }
    let open = |from: usize| if settled { None } else { read.unfinished(from) };
    let mut plain = |from: usize, to: usize, mask: &[u8]| {
        out.extend_from_slice(text.get(from.max(given)..to).unwrap_or_default());
        out.extend_from_slice(mask);
    };
    let (mut done, mut undecided) = (0, open(0));
    let mut ahead = Default::default();
    while let Some(found) = read.find(done, &mut ahead) {
        // A secret that starts where a longer one may be under way is not decided yet.
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
