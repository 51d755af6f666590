//! Makes text from a cluster or a file safe to show.
//!
//! Names and messages may hold characters that a terminal obeys, or that change the order in which text is read
//! (CVE-2021-42574). They are shown as `\u{…}`.

use std::borrow::Cow;

/// Characters that are not shown as they are: control characters, line separators, and format characters that are
/// invisible or change the direction of text (UAX #9).
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{e0000}'..='\u{e007f}')
}

fn escaped(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|character| is_hidden(character) && !keep(character)) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            shown if !is_hidden(shown) || keep(shown) => clean.push(shown),
            '\n' | '\r' | '\t' => clean.extend(character.escape_default()),
            hidden => clean.extend(hidden.escape_unicode()),
        }
    }
    Cow::Owned(clean)
}

/// Text that stays on one line.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Text that may have many lines. A line ends with `\n` or `\r\n`; blank lines at the end are left out.
pub(crate) fn lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\t', "    ");
    escaped(text.trim_end(), |character| character == '\n').into_owned()
}

/// The text if it is a URL that a browser may open: `http` or `https`, and no other scheme such as `javascript`.
pub(crate) fn web_url(text: &str) -> Option<&str> {
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let web = lower.starts_with("https://") || lower.starts_with("http://");
    let plain = !text.chars().any(|character| is_hidden(character) || character.is_whitespace());
    (web && plain).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_shown() {
        assert_eq!(line("a\x1b[31mb\u{9b}c"), "a\\u{1b}[31mb\\u{9b}c");
        assert_eq!(line("user\u{202e}nimda\u{200b}"), "user\\u{202e}nimda\\u{200b}");
        assert_eq!(line("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(line("größe 日本語 🦀"), "größe 日本語 🦀");
        assert_eq!(lines("a\tb\r\nc\rd\n\n"), "a    b\nc\\u{d}d".replace("\\u{d}", "\\r"));
    }

    #[test]
    fn only_web_addresses_are_links() {
        for url in ["https://example.org/a?b=c", "HTTP://x"] {
            assert_eq!(web_url(url), Some(url));
        }
        for text in
            ["javascript:alert(1)", "data:text/html,x", "docs/ops.md", "https://a b", "https://a\n", "", "é"]
        {
            assert_eq!(web_url(text), None, "{text}");
        }
    }
}
