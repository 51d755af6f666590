//! Frames of hostile bytes: cutting the stream changes nothing, and what decodes encodes to the same bytes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_wire::{Decoder, FromAgent, MAX_PAYLOAD, ToAgent, WireError};

type Frames = (Vec<(u8, Vec<u8>)>, Option<WireError>);

/// Everything the decoder gives out for these bytes, pushed in pieces of the given sizes.
fn frames(mut bytes: &[u8], sizes: &[u8]) -> Frames {
    let (mut decoder, mut found, mut turn) = (Decoder::default(), Vec::new(), 0);
    while !bytes.is_empty() {
        let size = sizes.get(turn % sizes.len().max(1)).map_or(bytes.len(), |size| usize::from(*size) + 1);
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        (bytes, turn) = (rest, turn + 1);
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some((kind, payload))) => found.push((kind, payload.to_vec())),
                Ok(None) => break,
                Err(error) => return (found, Some(error)),
            }
        }
        assert!(decoder.pending().len() <= MAX_PAYLOAD + 5);
    }
    (found, None)
}

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (sizes, bytes) = input;
    let (whole, error) = frames(&bytes, &[]);
    let (cut, cut_error) = frames(&bytes, &sizes);
    assert_eq!((&whole, &error), (&cut, &cut_error));
    for (kind, payload) in &whole {
        assert!(payload.len() <= MAX_PAYLOAD);
        // Client and agent use different numbers, so at most one of them takes it.
        let mut again = Vec::new();
        match (ToAgent::decode(*kind, payload), FromAgent::decode(*kind, payload)) {
            (Ok(frame), Err(_)) => frame.encode(&mut again),
            (Err(_), Ok(frame)) => frame.encode(&mut again),
            (Err(one), Err(other)) => {
                assert!(!one.to_string().is_empty() && !other.to_string().is_empty());
                continue;
            }
            (Ok(one), Ok(other)) => panic!("both directions take it: {one:?} {other:?}"),
        }
        let (same, error) = frames(&again, &[]);
        assert_eq!((same, error), (vec![(*kind, payload.clone())], None));
    }
});
