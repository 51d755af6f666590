//! What a server says on an exec by SPDY. Whatever comes, and however it is cut, nothing hangs, the pieces are the same, and
//! no more is handed on than came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_kube::spdy::{Frames, Piece};

fn read(bytes: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let (mut frames, mut given) = (Frames::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        frames.buffer.extend_from_slice(piece);
        loop {
            match frames.next_piece() {
                Ok(Some(Piece::Data(stream, data))) => {
                    if !data.is_empty() {
                        given.extend(data.iter().flat_map(|byte| [stream.to_be_bytes()[3], *byte]));
                    }
                }
                Ok(Some(Piece::Reply | Piece::Reset(_) | Piece::Ping(_) | Piece::Other)) => {}
                Ok(None) => break,
                Err(_) => return (given, false),
            }
        }
    }
    (given, true)
}

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, piece) = input;
    let (given, kept) = read(&bytes, usize::from(piece) + 1);
    assert!(given.len() <= 2 * bytes.len());
    assert_eq!((given, kept), read(&bytes, bytes.len().max(1)));
});
