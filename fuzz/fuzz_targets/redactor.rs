//! Redaction: no secret that was wholly pushed comes out, and how the stream was cut does not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_secret::Secret;
use postern_secret::redact::{MASK, Patterns, Redactor};

/// What the fuzzer chooses: secrets, and a stream as pieces that are bytes or one of the secrets.
type Input = (Vec<Vec<u8>>, Vec<(u8, Vec<u8>)>, Vec<u8>);

fn redact(patterns: &Patterns, mut text: &[u8], sizes: &[u8], release: bool) -> Vec<u8> {
    let (mut redactor, mut out, mut turn) = (Redactor::default(), Vec::new(), 0);
    while !text.is_empty() {
        let size = sizes.get(turn % sizes.len().max(1)).copied().unwrap_or(u8::MAX);
        let (piece, rest) = text.split_at((usize::from(size % 32) + 1).min(text.len()));
        (text, turn) = (rest, turn + 1);
        redactor.push(patterns, piece, &mut out);
        if release && size >= 128 {
            redactor.release(patterns, &mut out);
            assert!(!redactor.holds());
        }
    }
    redactor.finish(patterns, &mut out);
    assert!(!redactor.holds());
    out
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fuzz_target!(|input: Input| {
    let (values, pieces, sizes) = input;
    let secrets: Vec<Secret> = values
        .into_iter()
        .take(4)
        .filter(|v| v.len() <= 64)
        .filter_map(|v| Secret::new("K", v).ok())
        .collect();
    let patterns = Patterns::new(&secrets);
    let mut text = Vec::new();
    for (choice, bytes) in pieces.iter().take(32) {
        match secrets.get(usize::from(*choice)) {
            Some(secret) => text.extend_from_slice(secret.expose()),
            None => text.extend_from_slice(bytes),
        }
    }
    let whole = patterns.mask(&text);
    assert_eq!(whole, redact(&patterns, &text, &sizes, false), "cuts change the output");
    // A release may let the beginning of a secret out, but the stream neither panics nor loses its end.
    let released = redact(&patterns, &text, &sizes, true);
    if secrets.is_empty() {
        assert_eq!((&whole, &released), (&text, &text));
    }
    for secret in &secrets {
        let secret = secret.expose();
        // Text around masks can spell a secret that contains a piece of the mask, or is short of one; what counts is
        // text that was there: between two masks nothing may be left.
        for part in split(&whole) {
            assert!(!contains(part, secret), "a secret came out");
        }
    }
});

/// The text between masks.
fn split(text: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut begin, mut at) = (Vec::new(), 0, 0);
    while at + MASK.len() <= text.len() {
        if &text[at..at + MASK.len()] == MASK {
            parts.push(&text[begin..at]);
            (begin, at) = (at + MASK.len(), at + MASK.len());
        } else {
            at += 1;
        }
    }
    parts.push(&text[begin..]);
    parts
}
