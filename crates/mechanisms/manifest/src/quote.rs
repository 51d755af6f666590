//! Strings as YAML scalars.

use crate::scalar::{self, Scalar};
use crate::tree::Style;

/// A string as a scalar on one line, with quotes only where it needs them or where the old value had them.
pub(crate) fn text(string: &str, flow: bool, style: Option<Style>) -> String {
    match style {
        Some(Style::Single) if string.chars().all(is_printable) => {
            format!("'{}'", string.replace('\'', "''"))
        }
        Some(Style::Single | Style::Double) => double(string),
        _ if is_plain(string, flow) => string.to_owned(),
        _ => double(string),
    }
}

/// Whether a character can stand in a YAML text on one line (YAML 1.2.2 section 5.1), and is seen by people.
fn is_printable(char: char) -> bool {
    let hidden =
        matches!(char, '\u{85}' | '\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    !char.is_control() && !hidden
}

/// Whether a string needs no quotes: in kubectl, in YAML 1.1 with base 60, and in YAML 1.2.
fn is_plain(string: &str, flow: bool) -> bool {
    let mut chars = string.chars();
    let Some(first) = chars.next() else { return false };
    let starts = match first {
        // As in `--flag`. A dash alone, or one before a space, starts a sequence.
        '-' => chars.next().is_some_and(|next| !(next.is_whitespace() || flow && ",[]{}".contains(next))),
        _ => !",[]{}#&*!|>'\"%@`?:=<".contains(first),
    };
    let breaks = [": ", " #"].iter().any(|sign| string.contains(sign))
        || string.ends_with(':')
        || flow && string.contains([',', '[', ']', '{', '}', ':']);
    starts
        && !breaks
        && string.trim() == string
        && string.chars().all(is_printable)
        && scalar::resolve(string) == Scalar::Text
        && !string.starts_with("---")
        && !string.starts_with("...")
        && !scalar::is_timestamp(string)
        && !looks_like_a_number(string)
}

/// Whether another parser may read a number: base 60 of YAML 1.1, or one that is out of range here.
fn looks_like_a_number(string: &str) -> bool {
    let unsigned = string.strip_prefix(['-', '+']).unwrap_or(string);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let base_60 = unsigned.split(':').all(|part| !part.is_empty() && digits(part.trim_end_matches('.')));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, ""));
    let float = digits(&mantissa.replacen('.', "", 1))
        && digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    let starts = unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    starts && (base_60 || float || unsigned.strip_prefix("0x").is_some_and(hexadecimal))
}

/// A string in double quotes. Its escapes are those of JSON, and `\u` and `\U` for what a text should not hold.
fn double(string: &str) -> String {
    let mut out = String::from("\"");
    for char in string.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if is_printable(char) => out.push(char),
            _ if u32::from(char) > 0xffff => out.push_str(&format!("\\U{:08x}", u32::from(char))),
            _ => out.push_str(&format!("\\u{:04x}", u32::from(char))),
        }
    }
    out.push('"');
    out
}

/// A string of several lines as a literal block: its header and its lines. Nothing for a string that would not read
/// well or not come back as it is.
pub(crate) fn literal(string: &str, column: usize) -> Option<(&'static str, Vec<String>)> {
    let (header, body) = match string.strip_suffix('\n') {
        Some(body) => ("|", body),
        None => ("|-", string),
    };
    let fine =
        |line: &str| line.chars().all(|char| char == '\t' || is_printable(char)) && line.trim_end() == line;
    if !string.contains('\n')
        || body.is_empty()
        || body.starts_with([' ', '\t', '\n'])
        || body.ends_with('\n')
    {
        return None;
    }
    let indent = " ".repeat(column);
    let line = |line: &str| if line.is_empty() { String::new() } else { format!("{indent}{line}") };
    body.split('\n').all(fine).then(|| (header, body.split('\n').map(line).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_only_where_needed() {
        for plain in [
            "a",
            "nginx:1.25",
            "--flag=x",
            "-c",
            "a b",
            "http://a/b#c",
            "a'b",
            "é",
            "1.2.3",
            "10.0.0.1",
            "a:b",
            "1h",
            "0a",
        ] {
            assert_eq!(text(plain, false, None), plain);
        }
        for quoted in [
            "",
            "yes",
            "y",
            "null",
            "~",
            "0644",
            "1e3",
            "0x1F",
            "1:30",
            "12:30:45",
            "2001-01-01",
            "a: b",
            "a #b",
            "a:",
            "- a",
            "-",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "? a",
            "{a",
            "[a",
            "#a",
            " a",
            "a ",
            "---",
            "=",
            "<<",
            ".5",
            ".inf",
            "1_000",
            "0o17",
            "a\tb",
            "99999999999999999999",
            "+1",
        ] {
            assert_eq!(text(quoted, false, None), double(quoted), "{quoted}");
        }
        assert_eq!(text("a,b", true, None), "\"a,b\"");
        assert_eq!(text("it's", false, Some(Style::Single)), "'it''s'");
        assert_eq!(double("\u{1F600}\u{7}\u{e0001}"), "\"\u{1F600}\\u0007\u{e0001}\"");
    }

    #[test]
    fn several_lines_become_a_literal_block() {
        assert_eq!(
            literal("a\n\nb\n", 2),
            Some(("|", vec!["  a".to_owned(), String::new(), "  b".to_owned()]))
        );
        assert_eq!(literal("a\nb", 0), Some(("|-", vec!["a".to_owned(), "b".to_owned()])));
        for other in ["a", " a\nb", "a \nb", "\na\nb", "a\nb\n\n", "a\r\nb", "\n"] {
            assert_eq!(literal(other, 2), None, "{other:?}");
        }
    }
}
