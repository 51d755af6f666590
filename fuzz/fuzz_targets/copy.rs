//! A copy's frames in both directions, and patterns: what decodes encodes to the same bytes again, and nothing hangs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_files::pattern::{Glob, Kind, Rules, matches};
use postern_wire::Decoder;
use postern_wire::copy::{CopyRequest, FromDestination, FromSource};

fuzz_target!(|input: (Vec<u8>, Vec<u8>, Vec<u8>)| {
    let (bytes, pattern, path) = input;
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    while let Ok(Some((kind, payload))) = decoder.next_frame() {
        let mut again = Vec::new();
        if let Ok(frame) = FromSource::decode(kind, payload) {
            frame.encode(&mut again);
        } else if let Ok(frame) = FromDestination::decode(kind, payload) {
            frame.encode(&mut again);
        } else if let Ok(ask) = CopyRequest::decode(kind, payload) {
            // What is absent may come with bytes that mean nothing; the second round has none.
            let mut first = Vec::new();
            ask.encode(&mut first);
            assert_eq!(CopyRequest::decode(first[0], &first[5..]), Ok(ask));
            continue;
        } else {
            continue;
        }
        assert_eq!(FromSource::decode(again[0], &again[5..]).is_ok(), FromSource::decode(kind, payload).is_ok());
    }
    if let Ok(rules) = Rules::parse([(Kind::Exclude, pattern.as_slice())]) {
        rules.excludes(&path, false);
    }
    let _ = Glob::parse(&pattern);
    matches(&pattern, &path, false);
});
