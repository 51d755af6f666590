//! What a container's own tools say: archives and listings. Whatever comes, nothing hangs, and no more is handed on than
//! came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_shell::archive::{Part, Reader};
use postern_shell::listing::entries;

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, piece) = input;
    let (mut reader, mut given) = (Reader::default(), 0);
    'all: for piece in bytes.chunks(usize::from(piece) * 8 + 1) {
        reader.push(piece);
        loop {
            match reader.next_part() {
                Ok(Some(Part::Data(data))) => given += data.len(),
                Ok(Some(Part::File { .. } | Part::Other { .. } | Part::End)) => {}
                Ok(None) => break,
                Err(_) => break 'all,
            }
        }
    }
    assert!(given <= bytes.len());
    for (name, _) in entries(&bytes, "M").unwrap_or_default() {
        assert!(!name.contains(&b'/'));
    }
});
