use super::*;
use base64::Engine as _;

fn patterns(secrets: &[&str]) -> Patterns {
    let secrets: Vec<_> = secrets.iter().map(|text| Secret::new("K", *text).unwrap()).collect();
    Patterns::new(&secrets)
}

/// Redacts the stream split into these pieces.
fn redact<'a>(patterns: &Patterns, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let (mut redactor, mut out) = (Redactor::default(), Vec::new());
    for piece in pieces {
        redactor.push(patterns, piece, &mut out);
    }
    redactor.finish(patterns, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_secret_is_masked_however_the_writes_are_split() {
    let patterns = patterns(&["correct-horse-battery"]);
    let text = b"key=correct-horse-battery! correct-horse-batterycorrect-hors correct-horse-batter";
    let want = "key=[REDACTED]! [REDACTED]correct-hors correct-horse-batter";
    for size in 1..text.len() {
        assert_eq!(redact(&patterns, text.chunks(size)), want, "pieces of {size}");
    }
}

#[test]
fn the_longest_wins_when_one_secret_begins_another() {
    let patterns = patterns(&["abcdefgh", "abcdefghijklmnop"]);
    for size in 1..30 {
        assert_eq!(redact(&patterns, b"<abcdefghijklmnop>".chunks(size)), "<[REDACTED]>");
        assert_eq!(redact(&patterns, b"<abcdefghijkl>".chunks(size)), "<[REDACTED]ijkl>");
        assert_eq!(redact(&patterns, b"<abcdefgh".chunks(size)), "<[REDACTED]");
    }
}

#[test]
fn encoded_forms_are_masked() {
    let patterns = patterns(&["p/ss w\"rd-0123456789"]);
    let encoded = base64::engine::general_purpose::STANDARD.encode("user:p/ss w\"rd-0123456789");
    let shown = redact(&patterns, [encoded.as_bytes()]);
    assert!(shown.contains("[REDACTED]") && shown.len() < encoded.len(), "{shown}");
    assert_eq!(redact(&patterns, [b"x=p%2Fss%20w%22rd-0123456789&".as_slice()]), "x=[REDACTED]&");
    assert_eq!(redact(&patterns, [br#"{"k":"p/ss w\"rd-0123456789"}"#.as_slice()]), r#"{"k":"[REDACTED]"}"#);
}

#[test]
fn lines_are_masked_as_a_terminal_shows_them() {
    let secret = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEAabc\nxyz1234567890abcdef\n-----END KEY-----";
    let patterns = patterns(&[secret]);
    let shown = format!("a {} b", secret.replace('\n', "\r\n"));
    for size in [1, 7, 1_000] {
        assert_eq!(redact(&patterns, shown.as_bytes().chunks(size)), "a [REDACTED] b");
    }
    let long = "k".repeat(100);
    let lines = base64::engine::general_purpose::STANDARD.encode(&long);
    let lines = format!("{}\r\n{}\r\n", &lines[..76], &lines[76..]);
    assert_eq!(redact(&self::patterns(&[&long]), [lines.as_bytes()]), "[REDACTED]\r\n");
}

/// Independent of its length and of repetitions.
#[test]
fn a_long_secret_costs_no_more_than_its_length() {
    let key: String = (0..100_000_u32)
        .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
        .collect();
    for secret in [key, "Z9".repeat(50_000)] {
        let patterns = patterns(&[&secret]);
        assert!(patterns.heads.as_ref().unwrap().memory_usage() < 100_000);
        let text = format!("<{secret}> {} <{secret}", &secret[..70_000]);
        let shown = redact(&patterns, text.as_bytes().chunks(32_768));
        assert_eq!(shown, format!("<[REDACTED]> {} <[REDACTED]", &secret[..70_000]));
    }
}

#[test]
fn only_a_tail_that_begins_a_secret_is_withheld() {
    let patterns = patterns(&["correct-horse-battery"]);
    let (mut redactor, mut out) = (Redactor::default(), Vec::new());
    redactor.push(&patterns, b"Password: ", &mut out);
    assert_eq!((out.as_slice(), redactor.holds()), (b"Password: ".as_slice(), false));
    redactor.push(&patterns, b"> corr", &mut out);
    assert_eq!((out.as_slice(), redactor.holds()), (b"Password: > ".as_slice(), true));
    redactor.release(&patterns, &mut out);
    assert_eq!((out.as_slice(), redactor.holds()), (b"Password: > corr".as_slice(), false));
}

#[test]
fn the_rest_of_a_released_prefix_is_masked() {
    let patterns = patterns(&["correct-horse-battery"]);
    let (mut redactor, mut out) = (Redactor::default(), Vec::new());
    redactor.push(&patterns, b"a corr", &mut out);
    redactor.release(&patterns, &mut out);
    redactor.push(&patterns, b"ect-hor", &mut out);
    assert!(redactor.holds());
    redactor.push(&patterns, b"se-battery b", &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "a corr[REDACTED] b");
    redactor.push(&patterns, b"corr", &mut out);
    redactor.release(&patterns, &mut out);
    redactor.push(&patterns, b"upt", &mut out);
    redactor.finish(&patterns, &mut out);
    assert_eq!(String::from_utf8_lossy(&out), "a corr[REDACTED] bcorrupt");
}

#[test]
fn a_secret_that_may_continue_is_masked_on_release() {
    let patterns = patterns(&["abcdefgh", "abcdefghijklmnop"]);
    let (mut redactor, mut out) = (Redactor::default(), Vec::new());
    redactor.push(&patterns, b"abcdefghij", &mut out);
    assert_eq!(out, b"");
    redactor.release(&patterns, &mut out);
    assert_eq!(out, b"[REDACTED]ij");
    redactor.push(&patterns, b"!", &mut out);
    redactor.finish(&patterns, &mut out);
    assert_eq!(out, b"[REDACTED]ij!");
}

#[test]
fn without_secrets_the_stream_passes_unchanged() {
    let patterns = Patterns::new(&[]);
    assert_eq!(redact(&patterns, b"anything".chunks(3)), "anything");
}

#[test]
fn splits_and_releases_never_change_ordinary_text() {
    // A small xorshift instead of a property-testing crate.
    let patterns = patterns(&["aabaabaa", "abababab", "bbbbbbbbb"]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..2_000 {
        let text: Vec<u8> = (0..random(60)).map(|_| b"ab"[usize::try_from(random(2)).unwrap()]).collect();
        let whole = redact(&patterns, [text.as_slice()]);
        let size = usize::try_from(random(7) + 1).unwrap();
        assert_eq!(redact(&patterns, text.chunks(size)), whole, "{text:?} in pieces of {size}");
    }
}

#[test]
fn a_partly_escaped_secret_is_masked() {
    let patterns = patterns(&["p\u{e4}ss/w\"rd-0123456789"]);
    for shown in [
        "p\u{e4}ss%2Fw\"rd-0123456789",
        "p%C3%A4ss/w\"rd-0123456789",
        "%70\u{e4}ss/w%22rd-012345678%39",
        r#"pä\u0073s\/w\"rd-0123456789"#,
        r"p\u00e4ss/w\x22rd\u002d0123456789",
        r#"p\xc3\xa4ss/w"rd-0123456789"#,
        "p&#228;ss/w&quot;rd-0123456789",
        "p&#xe4;ss&#x2F;w\"rd-0123456789",
    ] {
        let text = format!("a {shown}, b");
        for size in 1..=text.len() {
            let seen = redact(&patterns, text.as_bytes().chunks(size));
            assert_eq!(seen, "a [REDACTED], b", "{shown} in pieces of {size}");
        }
    }
    // At the end of a stream, a truncated escape is literal.
    for last in ["&ab", "%4", "%", "\\", r"\u00"] {
        let patterns = self::patterns(&[&format!("p/ssw0rd-0123456789{last}")]);
        let shown = format!("a p%2Fssw0rd-0123456789{last}");
        for size in 1..=shown.len() {
            let seen = redact(&patterns, shown.as_bytes().chunks(size));
            assert_eq!(seen, "a [REDACTED]", "{shown} in pieces of {size}");
        }
    }
    let surrogates = self::patterns(&["key-\u{1f600}-rest"]);
    assert_eq!(redact(&surrogates, [br"key\u002d\ud83d\ude00-rest".as_slice()]), "[REDACTED]");
    for plain in ["100%", "50% of p%4", r"C:\p\u00", "a & b &am", r"\ud83d\u", "%", "\\", "&"] {
        for size in 1..=plain.len() {
            assert_eq!(redact(&patterns, plain.as_bytes().chunks(size)), plain);
        }
    }
}

#[test]
fn base64_of_a_longer_text_is_masked_across_its_lines() {
    let patterns = patterns(&["correct-horse-battery-staple-0123"]);
    for before in 30..80 {
        let whole = format!("{}correct-horse-battery-staple-0123{}", "x".repeat(before), "y".repeat(60));
        let encoded = base64::engine::general_purpose::STANDARD.encode(whole);
        for (width, end) in [(76, "\n"), (64, "\r\n"), (20, "\n")] {
            let lines: Vec<&str> = (0..encoded.len().div_ceil(width))
                .map(|line| &encoded[line * width..encoded.len().min((line + 1) * width)])
                .collect();
            let shown = lines.join(end);
            for size in [1, 7, 19, 1_000] {
                let seen = redact(&patterns, shown.as_bytes().chunks(size));
                // The secret's own characters are gone, except those shared with neighbours.
                let joined = seen.replace(end, "");
                assert!(joined.contains("[REDACTED]"), "{before} {width} {size}: {seen}");
                let left = joined.len() - "[REDACTED]".len();
                assert!(left <= encoded.len() - 40, "{before} {width} {size}: {seen}");
            }
        }
    }
    let words = "one line of words\nand the next line\r\nabcdefghijklmnopqrstuvwxyz\nanother\r\n";
    for size in 1..=words.len() {
        assert_eq!(redact(&patterns, words.as_bytes().chunks(size)), words);
    }
}
