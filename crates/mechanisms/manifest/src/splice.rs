//! Bytes of a text: looking for signs and line ends, and putting in and taking out.

use std::ops::Range;

/// A part of a text that is replaced by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Splice {
    pub(crate) range: Range<usize>,
    pub(crate) with: String,
}

impl Splice {
    pub(crate) fn replace(range: Range<usize>, with: impl Into<String>) -> Self {
        Self { range, with: with.into() }
    }

    pub(crate) fn insert(at: usize, with: impl Into<String>) -> Self {
        Self { range: at..at, with: with.into() }
    }

    pub(crate) fn delete(range: Range<usize>) -> Self {
        Self { range, with: String::new() }
    }
}

/// The text with the splices done. Nothing where they overlap or lie outside the text.
pub(crate) fn apply(text: &str, splices: &mut [Splice]) -> Option<String> {
    splices.sort_by_key(|splice| (splice.range.start, splice.range.end));
    let (mut out, mut from) = (String::with_capacity(text.len()), 0);
    for Splice { range, with } in splices.iter() {
        out.push_str(text.get(from..range.start)?);
        out.push_str(with);
        from = range.end;
    }
    out.push_str(text.get(from..)?);
    Some(out)
}

/// The first sign that is wanted, from a byte on, outside of comments.
pub(crate) fn find_sign(text: &str, from: usize, wanted: impl Fn(char) -> bool) -> Option<usize> {
    let mut comment = false;
    let mut before = text.get(..from)?.chars().next_back();
    for (at, sign) in text.get(from..)?.char_indices() {
        match sign {
            '\n' | '\r' => comment = false,
            '#' if before.is_none_or(char::is_whitespace) => comment = true,
            _ if !comment && wanted(sign) => return Some(from + at),
            _ => {}
        }
        before = Some(sign);
    }
    None
}

/// Whether there is a comment in a part of the text that holds no values.
pub(crate) fn has_comment(text: &str, part: Range<usize>) -> bool {
    text.get(part).is_some_and(|part| part.contains('#'))
}

/// Where the line ends that a byte is on, without its line break.
pub(crate) fn line_end(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let line = rest.split('\n').next().unwrap_or_default();
    at + line.strip_suffix('\r').unwrap_or(line).len()
}

/// Where the next line starts, or the end of the text.
pub(crate) fn next_line(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |line| at + line + 1)
}

/// Where the line starts that a byte is on.
pub(crate) fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(crate::place::bom(text), |end| end + 1)
}

/// Whether only spaces stand before a byte on its line.
pub(crate) fn is_first_on_line(text: &str, at: usize) -> bool {
    text.get(line_start(text, at)..at)
        .is_some_and(|before| before.bytes().all(|byte| byte == b' ' || byte == b'\t'))
}

/// The lines of a part of the text, whole: from the start of the first to the start of the one after the last. The
/// line break before them is taken where the last line has none.
pub(crate) fn whole_lines(text: &str, part: Range<usize>) -> Range<usize> {
    let (start, end) = (line_start(text, part.start), next_line(text, part.end));
    if text.ends_with('\n') || end < text.len() || start == 0 {
        return start..end;
    }
    let before = text.get(..start).unwrap_or_default();
    let before = before.strip_suffix('\n').unwrap_or(before);
    before.strip_suffix('\r').unwrap_or(before).len()..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_a_comment_is_not_found() {
        assert_eq!(find_sign("a # :\n :", 1, |sign| sign == ':'), Some(7));
        assert_eq!(find_sign("a # :", 1, |sign| sign == ':'), None);
    }

    #[test]
    fn lines_end_before_either_line_break() {
        let text = "ab\r\ncd";
        assert_eq!((line_end(text, 1), next_line(text, 1), line_start(text, 5)), (2, 4, 4));
        assert_eq!(line_end(text, 4), 6);
        assert_eq!(whole_lines(text, 4..5), 2..6);
        assert_eq!(whole_lines(text, 0..1), 0..4);
    }

    #[test]
    fn splices_must_not_overlap() {
        let mut fine = [Splice::insert(3, "x"), Splice::delete(0..1)];
        assert_eq!(apply("abc", &mut fine).as_deref(), Some("bcx"));
        assert_eq!(apply("abc", &mut [Splice::delete(0..2), Splice::delete(1..3)]), None);
    }
}
