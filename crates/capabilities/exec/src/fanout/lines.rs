//! Splits bytes into lines, each with its target's name in front.

/// A longer line is broken into lines of this many bytes, so that memory stays bounded.
pub(super) const LONGEST: usize = 64 * 1024;

/// The part of an unfinished line that has arrived.
#[derive(Debug, Default)]
pub(super) struct Lines {
    started: Vec<u8>,
}

impl Lines {
    /// Appends to `out` the lines that `data` completes, each after `prefix`.
    pub(super) fn push(&mut self, data: &[u8], prefix: &[u8], out: &mut Vec<u8>) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let mut piece = piece;
            loop {
                let room = LONGEST - self.started.len();
                let content = piece.len() - usize::from(piece.ends_with(b"\n"));
                if content <= room {
                    break;
                }
                out.extend_from_slice(prefix);
                out.append(&mut self.started);
                out.extend_from_slice(&piece[..room]);
                out.push(b'\n');
                piece = &piece[room..];
            }
            if piece.ends_with(b"\n") {
                out.extend_from_slice(prefix);
                out.append(&mut self.started);
                out.extend_from_slice(piece);
            } else {
                self.started.extend_from_slice(piece);
            }
        }
    }

    /// Appends the last line, if it has no newline.
    pub(super) fn end(&mut self, prefix: &[u8], out: &mut Vec<u8>) {
        if !self.started.is_empty() {
            self.push(b"\n", prefix, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> String {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        pieces.iter().for_each(|piece| lines.push(piece, b"> ", &mut out));
        lines.end(b"> ", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_whole_wherever_they_were_cut() {
        assert_eq!(lines(&[b"a\nb", b"", b"c\n\nd"]), "> a\n> bc\n> \n> d\n");
        assert_eq!(lines(&[]), "");
        assert_eq!(lines(&[b"\n"]), "> \n");
        let text = b"one\ntwo\nthree";
        for at in 0..text.len() {
            assert_eq!(lines(&[&text[..at], &text[at..]]), "> one\n> two\n> three\n", "{at}");
        }
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_than_its_share() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for _ in 0..100 {
            lines.push(&[b'x'; 10_000], b"", &mut out);
            assert!(lines.started.len() <= LONGEST);
        }
        lines.end(b"", &mut out);
        let lengths: Vec<_> = out.split(|byte| *byte == b'\n').map(<[u8]>::len).collect();
        assert_eq!(lengths.iter().sum::<usize>(), 1_000_000);
        assert!(lengths[..15].iter().all(|length| *length == LONGEST), "{lengths:?}");
        // A line of exactly the maximum length stays one line.
        let mut exact = vec![b'y'; LONGEST];
        exact.push(b'\n');
        assert_eq!(super::tests::lines(&[&exact]).lines().count(), 1);
    }
}
