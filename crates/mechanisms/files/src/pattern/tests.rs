use super::*;
use std::time::{Duration, Instant};

fn rules(patterns: &[(Kind, &str)]) -> Rules {
    Rules::parse(patterns.iter().map(|(kind, pattern)| (*kind, pattern.as_bytes()))).unwrap()
}

fn leaves_out(rules: &Rules, path: &str) -> bool {
    rules.excludes(path.trim_end_matches('/').as_bytes(), path.ends_with('/'))
}

#[test]
fn patterns_mean_what_they_mean_to_git() {
    // The pattern, what it leaves out, what it keeps; a slash at the end says that it is a directory.
    for (pattern, out, kept) in [
        ("a", "a a/ x/a x/y/a/", "ab xa b a/b"),
        ("/a", "a a/", "x/a"),
        ("a/", "a/ x/a/", "a x/a"),
        ("/a/", "a/", "a x/a/"),
        ("a/b", "a/b a/b/", "x/a/b a/b/c b"),
        ("*.log", "x.log d/x.log .log", "x.log.1 log"),
        ("d/*.log", "d/x.log", "x.log d/e/x.log"),
        ("*", "a .a a/b", ""),
        ("a/*", "a/b a/.b", "a a/b/c"),
        ("**/a", "a x/a x/y/a", "xa"),
        ("**/a/b", "a/b x/a/b", "b a/x/b"),
        ("a/**", "a/b a/b/c/", "a a/ x/a/b"),
        ("a/**/", "a/b/ a/b/c/", "a/ a/b"),
        ("a/**/b", "a/b a/x/b a/x/y/b", "b ab a/xb x/a/b"),
        ("a/**/**/b/**", "a/b/c a/x/b/c/d", "a/b"),
        ("/**", "a a/b", ""),
        ("**/", "a/ a/b/", "a a/b"),
        ("x**y", "xy xzy a/xzy", "x/y"),
        ("a/x**/b", "a/x/b a/xy/b", "a/xb a/x/y/b"),
        ("a?c", "abc aéc", "ac abbc a/c"),
        ("a[!b]c", "axc aéc", "abc a/c"),
        ("a[/x]c", "axc", "a/c x/axc"),
        ("[]-]", "] -", "a"),
        ("[a-c-e]", "a b c - e", "d"),
        ("[[:upper:]-z]", "A - z", "y"),
        (r"\*", "*", "a"),
        (r"\!a", "!a", "a"),
        ("#a", "#a", "a"),
        ("a  ", "a", ""),
    ] {
        let rules = rules(&[(Kind::Exclude, pattern)]);
        out.split_whitespace()
            .for_each(|path| assert!(leaves_out(&rules, path), "{pattern} leaves out {path}"));
        kept.split_whitespace().for_each(|path| assert!(!leaves_out(&rules, path), "{pattern} keeps {path}"));
    }
    let space = rules(&[(Kind::Exclude, r"a\  ")]);
    assert!(leaves_out(&space, "a ") && !leaves_out(&space, "a"));
}

#[test]
fn the_last_that_matches_decides() {
    let rules = rules(&[(Kind::Exclude, "*"), (Kind::Include, "*.rs"), (Kind::Exclude, "/x.rs")]);
    assert_eq!(
        ["a", "a.rs", "d/x.rs", "x.rs"].map(|path| leaves_out(&rules, path)),
        [true, false, false, true]
    );
    let turned = self::rules(&[(Kind::Exclude, "*"), (Kind::Exclude, "!a"), (Kind::Include, "!a/")]);
    assert_eq!(["a", "a/", "b"].map(|path| leaves_out(&turned, path)), [false, true, true]);
    assert!(!turned.is_empty() && Rules::default().is_empty() && !leaves_out(&Rules::default(), "a"));
}

#[test]
fn impossible_patterns_are_refused_with_a_hint() {
    let refused: [(&str, &[&str]); 5] = [
        ("has no name", &["", "  ", "!", "/"]),
        ("without a closing ']'", &["[a", "[]", r"[a\]"]),
        ("'[:letter:]', which is not a character class", &["[[:letter:]]"]),
        ("ends in a backslash", &[r"a\", r"a\/"]),
        ("an empty component, '.' or '..'", &["a//b", "./a", "a/.."]),
    ];
    for (says, pattern) in refused.iter().flat_map(|(says, all)| all.iter().map(move |one| (says, one))) {
        let error = Rules::parse([(Kind::Exclude, pattern.as_bytes())]).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(pattern), "{error}");
    }
    assert!(Glob::parse(b"").is_err() && Glob::parse(br"*\").is_err() && Glob::parse(b"[[:x:]]").is_err());
}

#[test]
fn a_name_matches_as_in_the_shell() {
    for (pattern, name) in [("*", ".a"), ("?a", ".a"), ("[.]a", ".a"), ("*.a", ".a"), ("[!b]a", ".a")] {
        let found = [false, true].map(|hidden| matches(pattern.as_bytes(), name.as_bytes(), hidden));
        assert_eq!(found, [false, true], "{pattern} {name}");
    }
    for (pattern, yes, no) in [
        (".*", ".a", "a"),
        (r"\.?", ".a", ".ab"),
        ("*.a", "x.a", "x.ab"),
        ("?", "é", "éé"),
        ("*??", "日本", "日"),
        ("[à-ü]", "é", "e"),
        ("[[:alpha:][:digit:]]*", "9a", "_9a"),
        (r"[\]]\*", "]*", "]a"),
        ("a[1*", "a[12", "a1"),
        ("**", "a", ".a"),
    ] {
        let [yes, no] = [yes, no].map(|name| matches(pattern.as_bytes(), name.as_bytes(), false));
        assert!(yes && !no, "{pattern}");
    }
    assert!(matches(b"a?[!b]\xff", b"a\xfe\xfd\xff", false));
}

#[test]
fn a_path_is_cut_into_steps() {
    let literal = |name: &str| Step::Literal(name.into());
    let pattern = |name: &str| Step::Pattern(name.into());
    let glob = Glob::parse(br"/a//\*b/**/**/x\/[!c]*/../**x/").unwrap();
    let last = [pattern("[!c]*"), literal(".."), pattern("**x")];
    assert_eq!(glob.steps()[..4], [literal("a"), literal("*b"), Step::Any, literal("x")]);
    assert_eq!(glob.steps()[4..], last);
    assert!(glob.absolute() && glob.directories());
    let plain = Glob::parse(b"a/\xff*").unwrap();
    assert_eq!(plain.steps(), [literal("a"), Step::Pattern(b"\xff*".into())]);
    assert!(!plain.absolute() && !plain.directories());
    assert!(["a*", "a/?/b", "[a]", "**", r"\\*"].iter().all(|path| is_glob(path.as_bytes())));
    assert!(["", "a/b", "a[1", "[a/b]", r"\*"].iter().all(|path| !is_glob(path.as_bytes())));
}

#[test]
fn a_hostile_pattern_does_not_hang() {
    let (began, path) = (Instant::now(), "a".repeat(4000));
    assert!(!matches(format!("{}b", "*a".repeat(1000)).as_bytes(), path.as_bytes(), true));
    let deep = "a/".repeat(2000) + "a";
    for pattern in ["**/a/".repeat(1000) + "b", "**/*a*/".repeat(500) + "*a*b"] {
        assert!(!leaves_out(&rules(&[(Kind::Exclude, &pattern)]), &deep));
    }
    for unit in ["[", "[[:", "[:", r"[\]", "[]"] {
        is_glob(unit.repeat(50_000).as_bytes());
        is_glob((unit.repeat(50_000) + "]").as_bytes());
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn no_pattern_panics() {
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let alphabet = b"**//[]!^-\\?. ab:\xc3\xa9\xff[:alpha:]";
    for _ in 0..50_000 {
        let mut bytes = |most| {
            let length = random(most);
            (0..length).map(|_| alphabet[random(alphabet.len())]).collect::<Vec<_>>()
        };
        let (pattern, path) = (bytes(12), bytes(9));
        if let Ok(rules) = Rules::parse([(Kind::Exclude, pattern.as_slice())]) {
            rules.excludes(&path, random(2) == 0);
        }
        matches(&pattern, &path, random(2) == 0);
        let literal = |step: &_| matches!(step, Step::Literal(_));
        let glob = Glob::parse(&pattern).is_ok_and(|glob| !glob.steps().iter().all(literal));
        assert!(!glob || is_glob(&pattern), "{pattern:?}");
    }
}

#[test]
fn a_quoted_path_means_itself() {
    assert_eq!(quoted(b"/a[1]/*"), b"/a\\[1]/\\*");
    for path in [&b"/a[1]/*"[..], b"plain", b"back\\slash", b"?"] {
        assert_eq!(unquoted(&quoted(path)).as_deref(), Some(path));
    }
}
