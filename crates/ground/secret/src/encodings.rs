//! The encodings in which a tool may print a secret.

use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// The shortest encoding that is searched for. Shorter ones would match ordinary output by chance.
pub(crate) const MIN_ENCODING: usize = 8;

/// Characters besides letters and digits that URL encoders leave unescaped: RFC 3986 and Go's queries;
/// Python's `quote`; JavaScript's `encodeURIComponent` and `encodeURI`; Go's paths; HTML encodings and Java
/// (WHATWG's application/x-www-encoding-urlencoded).
const PLAIN: [&[u8]; 6] = [b"-_.~", b"-_.~/", b"-_.~!*'()", b"-_.~!*'();:@&=+$,/?#", b"-_.~$&+:=@", b"-_.*"];

/// Characters that JSON encoders escape by number although they need not: none; Go and many others for HTML;
/// Gson; PHP with flags; .NET (`JavaScriptEncoder.Default` of `System.Text.Json`).
const ESCAPED: [&[u8]; 5] = [b"", b"<>&", b"<>&='", b"<>&'", b"<>&'\"+`"];

/// Line widths of base64: base64(1) and MIME (RFC 2045), and PEM (RFC 7468).
const LINES: [usize; 2] = [76, 64];

/// Every encoding of `secret` to search for: plain, base64 (both alphabets, at each of the three alignments
/// in a longer text), URL-escaped (both cases of hex, space as `+` or `%20`) and JSON-escaped.
pub(crate) fn encodings(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut encodings = Vec::new();
    let mut add = |encoding: Vec<u8>| {
        let encoding = Zeroizing::new(encoding);
        if encoding.len() >= MIN_ENCODING && !encodings.contains(&encoding) {
            encodings.push(encoding);
        }
    };
    add(secret.to_vec());
    for alignment in 0..3 {
        add(base64_inside(secret, alignment, &STANDARD_NO_PAD));
        add(base64_inside(secret, alignment, &URL_SAFE_NO_PAD));
        add(base64_last(secret, alignment, &STANDARD));
        add(base64_last(secret, alignment, &URL_SAFE));
    }
    for width in LINES {
        add(wrapped(&base64_last(secret, 0, &STANDARD), width));
        add(wrapped(&base64_inside(secret, 0, &STANDARD_NO_PAD), width));
    }
    for upper in [true, false] {
        for plain in PLAIN {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || plain.contains(&byte);
            add(url_escaped(secret, upper, b"%20", plain));
            add(url_escaped(secret, upper, b"+", plain));
        }
        add(url_escaped(secret, upper, b"%20", |_| false));
        for escaped in ESCAPED {
            for (short, ascii) in [(true, false), (true, true), (false, false), (false, true)] {
                add(json_escaped(secret, &Json { escaped, slashes: false, short, ascii, upper }));
                add(json_escaped(secret, &Json { escaped, slashes: true, short, ascii, upper }));
            }
        }
    }
    // A terminal prints a line feed as two characters (ONLCR).
    for at in 0..encodings.len() {
        let encoding = &encodings[at];
        if encoding.contains(&b'\n') {
            let lines = encoding.split(|byte| *byte == b'\n').collect::<Vec<_>>();
            let shown = Zeroizing::new(lines.join(&b"\r\n"[..]));
            encodings.push(shown);
        }
    }
    encodings
}

/// The same where the secret ends the text, so that the last characters and the padding depend on it too.
fn base64_last(secret: &[u8], alignment: usize, engine: &impl base64::Engine) -> Vec<u8> {
    let mut text = Zeroizing::new(vec![0_u8; alignment]);
    text.extend_from_slice(secret);
    let encoded = Zeroizing::new(engine.encode(&*text).into_bytes());
    encoded[FIRST_OWN[alignment]..].to_vec()
}

/// The first base64 character without any bit of the bytes before the secret, by alignment.
const FIRST_OWN: [usize; 3] = [0, 2, 3];

/// The base64 characters that depend on the secret alone when `alignment` bytes come before it in its group
/// of three. Characters shared with neighbouring bytes are left out; they contain at most four bits at each
/// edge.
fn base64_inside(secret: &[u8], alignment: usize, engine: &impl base64::Engine) -> Vec<u8> {
    let mut text = Zeroizing::new(vec![0_u8; alignment]);
    text.extend_from_slice(secret);
    let encoded = Zeroizing::new(engine.encode(&*text).into_bytes());
    let begin = FIRST_OWN[alignment];
    // Characters that lie wholly within the secret's bits.
    let end = text.len() * 8 / 6;
    encoded.get(begin..end).unwrap_or_default().to_vec()
}

fn url_escaped(secret: &[u8], upper: bool, space: &[u8], plain: impl Fn(u8) -> bool) -> Vec<u8> {
    let digits = if upper { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    let mut out = Vec::with_capacity(secret.len() * 3);
    for &byte in secret {
        match byte {
            b' ' => out.extend_from_slice(space),
            _ if plain(byte) => out.push(byte),
            _ => out.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]),
        }
    }
    out
}

/// Options of a JSON encoder.
struct Json<'a> {
    /// Characters escaped by number although they need not be.
    escaped: &'a [u8],
    /// Whether `/` is escaped.
    slashes: bool,
    /// Whether line feeds and the like use short escapes.
    short: bool,
    /// Whether non-ASCII characters are escaped, as UTF-16.
    ascii: bool,
    /// Whether hex digits are upper case.
    upper: bool,
}

fn json_escaped(secret: &[u8], how: &Json<'_>) -> Vec<u8> {
    let &Json { escaped, slashes, short, ascii, upper } = how;
    let mut out = Vec::with_capacity(secret.len() * 2);
    let number = |out: &mut Vec<u8>, unit: u16| {
        out.extend(if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") }.into_bytes());
    };
    for chunk in secret.utf8_chunks() {
        for letter in chunk.valid().chars() {
            let short = match letter {
                '"' => Some('"'),
                '\\' => Some('\\'),
                '/' if slashes => Some('/'),
                '\n' if short => Some('n'),
                '\r' if short => Some('r'),
                '\t' if short => Some('t'),
                '\u{8}' if short => Some('b'),
                '\u{c}' if short => Some('f'),
                _ => None,
            };
            let wanted = u8::try_from(letter).is_ok_and(|byte| escaped.contains(&byte));
            let control = letter < ' ' || ascii && letter > '~';
            if let Some(short) = short.filter(|_| !wanted) {
                out.extend([b'\\', u8::try_from(short).unwrap_or(b'?')]);
            } else if wanted || control {
                letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| number(&mut out, *unit));
            } else {
                out.extend(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        out.extend_from_slice(chunk.invalid());
    }
    out
}

/// Wraps text at this width; empty if the text fits into one line.
fn wrapped(text: &[u8], width: usize) -> Vec<u8> {
    if text.len() <= width { Vec::new() } else { text.chunks(width).collect::<Vec<_>>().join(&b'\n') }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    #[test]
    fn base64_is_found_at_every_alignment() {
        let secret = b"correct-horse-battery";
        let encodings = encodings(secret);
        for before in 0..7 {
            for after in 0..7 {
                let mut text = vec![b'x'; before];
                text.extend_from_slice(secret);
                text.extend(vec![b'y'; after]);
                let encoded = STANDARD.encode(&text);
                let longest = encodings.iter().filter(|encoding| {
                    let encoding = std::str::from_utf8(encoding).unwrap();
                    encoded.contains(encoding)
                });
                let longest = longest.map(|encoding| encoding.len()).max().unwrap_or(0);
                assert!(longest >= 26, "{before} before and {after} after: only {longest} characters");
            }
        }
    }

    #[test]
    fn url_and_json_encodings_are_included() {
        let encodings = encodings(b"a b/c\"d<e>&f");
        for encoding in
            ["a%20b%2Fc%22d%3Ce%3E%26f", "a+b%2fc%22d%3ce%3e%26f", r#"a b/c\"d<e>&f"#, r#"a b\/c\"d<e>&f"#]
        {
            assert!(encodings.iter().any(|f| f.as_slice() == encoding.as_bytes()), "{encoding}");
        }
        assert!(encodings.iter().any(|f| f.as_slice() == br#"a b/c\"d\u003ce\u003e\u0026f"#));
    }

    #[test]
    fn encodings_of_other_languages_are_included() {
        for (secret, seen) in [
            ("pässword1", r"p\u00e4ssword1"),          // json.dumps, jq -a
            ("pässword1", r"p\u00E4ssword1"),          // upper-case hex
            ("key-😀-rest", r"key-\ud83d\ude00-rest"), // two units of UTF-16
            ("ab+cd/efgh", "ab%2Bcd/efgh"),            // urllib.parse.quote
            ("abc'def/ghi", "abc'def%2Fghi"),          // encodeURIComponent
            ("ab~cd*efgh", "ab%7Ecd*efgh"),            // java.net.URLEncoder
            ("ab&cd<efgh", r"ab\u0026cd\u003Cefgh"),
            ("ab'cd=efgh", r"ab\u0027cd\u003defgh"),    // Gson
            ("ab+cd\"efgh=", r"ab\u002Bcd\u0022efgh="), // .NET
            ("ab\tcd\nefgh", r"ab\u0009cd\u000aefgh"),
            ("ab\u{8}cd\u{c}efgh", r"ab\bcd\fefgh"),
            ("abcdefgh", "%61%62%63%64%65%66%67%68"),
        ] {
            let encodings = encodings(secret.as_bytes());
            assert!(
                encodings.iter().any(|encoding| encoding.as_slice() == seen.as_bytes()),
                "{secret:?} as {seen}"
            );
        }
        let long = [b'k'; 100];
        let lines = STANDARD.encode(long);
        let lines = format!("{}\n{}", &lines[..76], &lines[76..]);
        assert!(
            encodings(&long).iter().any(|encoding| encoding.as_slice() == lines.as_bytes()),
            "base64 in lines"
        );
        // Most secrets need no escapes and have few encodings.
        assert!(encodings(b"0123456789-abcdefghij_ABCD").len() < 18);
    }
}
