//! The listener's bytes: a hello of a fixed size, then messages. What decodes encodes to the same bytes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_wire::stream::{Challenge, StreamHello, from_openssh, openssh};
use postern_wire::{Decoder, Mux};

fuzz_target!(|input: (Vec<u8>, String)| {
    let (bytes, text) = input;
    if let Some(first) = bytes.first_chunk::<{ StreamHello::SIZE }>()
        && let Some(hello) = StreamHello::decode(first)
    {
        assert_eq!(hello.encode(), *first);
    }
    if let Some(first) = bytes.first_chunk::<{ Challenge::SIZE }>()
        && let Some(challenge) = Challenge::decode(first)
    {
        assert_eq!(challenge.encode(), *first);
    }
    if let Some(key) = from_openssh(&text) {
        assert_eq!(from_openssh(&openssh(&key)), Some(key));
    }
    let mut decoder = Decoder::default();
    decoder.push(&bytes);
    while let Ok(Some((kind, payload))) = decoder.next_frame() {
        let Ok(message) = Mux::decode(kind, payload) else { continue };
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!((again[0], &again[5..]), (kind, payload));
    }
});
