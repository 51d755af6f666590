//! The forms in which a secret may come out of a tool.

use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// The shortest encoded form that is looked for; below it chance matches would blacken ordinary output.
const MIN_FORM: usize = 8;

/// Every form of `secret` to look for: exact, base64 (both alphabets, at each of the three alignments it can have
/// inside a longer text), URL-escaped (both cases of hex, space as `+` or `%20`) and JSON-escaped.
pub(crate) fn forms(secret: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = Vec::new();
    let mut add = |form: Vec<u8>| {
        let form = Zeroizing::new(form);
        if form.len() >= MIN_FORM && !forms.contains(&form) {
            forms.push(form);
        }
    };
    add(secret.to_vec());
    for alignment in 0..3 {
        add(base64_inside(secret, alignment, &STANDARD_NO_PAD));
        add(base64_inside(secret, alignment, &URL_SAFE_NO_PAD));
        add(base64_last(secret, alignment, &STANDARD));
        add(base64_last(secret, alignment, &URL_SAFE));
    }
    for upper in [true, false] {
        add(url_escaped(secret, upper, b"%20", url_unreserved));
        add(url_escaped(secret, upper, b"+", url_unreserved));
        // What `encodeURI` and Go's path escaping leave alone.
        add(url_escaped(secret, upper, b"%20", |b| url_unreserved(b) || b"!*'();:@&=+$,/?#".contains(&b)));
        add(url_escaped(secret, upper, b"%20", |b| url_unreserved(b) || b"$&+:=@".contains(&b)));
    }
    for slashes in [true, false] {
        for html in [true, false] {
            add(json_escaped(secret, slashes, html));
        }
    }
    forms
}

/// The same where the secret ends the text, so that its last characters and the padding depend on it too.
fn base64_last(secret: &[u8], alignment: usize, engine: &impl base64::Engine) -> Vec<u8> {
    let mut text = Zeroizing::new(vec![0_u8; alignment]);
    text.extend_from_slice(secret);
    let encoded = Zeroizing::new(engine.encode(&*text).into_bytes());
    encoded[FIRST_OWN[alignment]..].to_vec()
}

/// The first base64 character that holds no bit of the bytes before the secret, by alignment.
const FIRST_OWN: [usize; 3] = [0, 2, 3];

/// The base64 characters that depend on the secret alone when `alignment` bytes stand before it in its group of
/// three. Characters shared with neighbouring bytes are left out; what they carry is at most four bits at an edge.
fn base64_inside(secret: &[u8], alignment: usize, engine: &impl base64::Engine) -> Vec<u8> {
    let mut text = Zeroizing::new(vec![0_u8; alignment]);
    text.extend_from_slice(secret);
    let encoded = Zeroizing::new(engine.encode(&*text).into_bytes());
    let begin = FIRST_OWN[alignment];
    // Characters that lie wholly within the secret's bits.
    let end = text.len() * 8 / 6;
    encoded.get(begin..end).unwrap_or_default().to_vec()
}

fn url_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)
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

/// As JSON encoders write it: some escape `/`, some (Go) also `<`, `>` and `&`.
fn json_escaped(secret: &[u8], slashes: bool, html: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(secret.len() * 2);
    for &byte in secret {
        match byte {
            b'"' => out.extend_from_slice(br#"\""#),
            b'\\' => out.extend_from_slice(br"\\"),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            b'\t' => out.extend_from_slice(br"\t"),
            b'/' if slashes => out.extend_from_slice(br"\/"),
            b'<' | b'>' | b'&' if html => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    #[test]
    fn base64_is_found_at_every_alignment() {
        let secret = b"correct-horse-battery";
        let forms = forms(secret);
        for before in 0..7 {
            for after in 0..7 {
                let mut text = vec![b'x'; before];
                text.extend_from_slice(secret);
                text.extend(vec![b'y'; after]);
                let encoded = STANDARD.encode(&text);
                let longest = forms.iter().filter(|form| {
                    let form = std::str::from_utf8(form).unwrap();
                    encoded.contains(form)
                });
                let longest = longest.map(|form| form.len()).max().unwrap_or(0);
                assert!(longest >= 26, "{before} before and {after} after: only {longest} characters");
            }
        }
    }

    #[test]
    fn url_and_json_forms_are_there() {
        let forms = forms(b"a b/c\"d<e>&f");
        for form in
            ["a%20b%2Fc%22d%3Ce%3E%26f", "a+b%2fc%22d%3ce%3e%26f", r#"a b/c\"d<e>&f"#, r#"a b\/c\"d<e>&f"#]
        {
            assert!(forms.iter().any(|f| f.as_slice() == form.as_bytes()), "{form}");
        }
        assert!(forms.iter().any(|f| f.as_slice() == br#"a b/c\"d\u003ce\u003e\u0026f"#));
    }
}
