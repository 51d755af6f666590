//! Streams, errors and limits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and reads better so")]

use postern_manifest::{Limits, ManifestError, Place, parse, parse_plain};
use serde_json::{Value, json};

fn values(text: &str) -> Vec<(usize, Value)> {
    let plains =
        parse_plain("t.yaml", text, &Limits::default()).unwrap_or_else(|error| panic!("{text}: {error}"));
    plains.into_iter().map(|plain| (plain.index, plain.value)).collect()
}

fn error(text: &str) -> String {
    let error = parse_plain("t.yaml", text, &Limits::default()).unwrap_err();
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn a_stream_is_cut_into_documents() {
    for (text, expected) in [
        ("", vec![]),
        ("# only a comment\n", vec![]),
        ("---\n", vec![]),
        ("---\n# c\n---\n\n---\na: 1\n", vec![(2, json!({"a": 1}))]),
        ("a: 1\n---\nb: 2\n", vec![(0, json!({"a": 1})), (1, json!({"b": 2}))]),
        ("a: 1\n...\nb: 2\n...\n", vec![(0, json!({"a": 1})), (1, json!({"b": 2}))]),
        ("a: 1\n...\n---\n...\n---\nb: 2\n", vec![(0, json!({"a": 1})), (2, json!({"b": 2}))]),
        ("%YAML 1.2\n%TAG ! tag:x,2000:\n---\na: 1\n", vec![(0, json!({"a": 1}))]),
        ("--- # comment\na: 1\n", vec![(0, json!({"a": 1}))]),
        ("--- {a: 1}\n--- [b]\n", vec![(0, json!({"a": 1})), (1, json!(["b"]))]),
        (
            "\u{feff}a: 1\r\n---\r\nb: |\r\n  x\r\n  y\r\n",
            vec![(0, json!({"a": 1})), (1, json!({"b": "x\ny\n"}))],
        ),
        (
            "{\"a\": 1} {\"b\": \"\\u00e9\\/\"}\n[3]\n",
            vec![(0, json!({"a": 1})), (1, json!({"b": "é/"})), (2, json!([3]))],
        ),
        ("{\n\t\"a\": 1\n}\n", vec![(0, json!({"a": 1}))]),
        ("{a: 1}\n---\n{\"b\": 2}\n", vec![(0, json!({"a": 1})), (1, json!({"b": 2}))]),
        ("{\"a\": 1}\n---\n{\"b\": 2}\n", vec![(0, json!({"a": 1})), (1, json!({"b": 2}))]),
    ] {
        assert_eq!(values(text), expected, "{text:?}");
    }
}

#[test]
fn syntax_errors_name_the_place() {
    for (text, start) in [
        ("a: 1\nb: [1\n", "t.yaml:"),
        ("a:\n\tb: 1\n", "t.yaml:2:"),
        ("a: *none\n", "t.yaml:1:4"),
        ("a: 1\n b: 2\n", "t.yaml:2:"),
        ("{\"a\": 1} x\n", "t.yaml:1:"),
    ] {
        let said = error(text);
        assert!(said.starts_with(start), "{said}");
        assert_eq!(said.contains("starts with a tab"), text.contains('\t'), "{said}");
    }
    assert_eq!(error("a: &a [*a]"), "t.yaml:1:8: the alias is inside the value that it stands for");
}

#[test]
fn a_duplicate_key_is_named_with_both_places() {
    let said = error("spec:\n  a: 1\n  b: 2\n  a: 3\n");
    assert_eq!(said, "t.yaml:4:3: the key \"a\" is here a second time; the first is at 2:3");
    for text in ["{\"a\": 1, \"a\": 2}", "5: a\n'5': b\n", "yes: 1\ntrue: 2\n"] {
        assert!(error(text).contains("a second time"), "{text}");
    }
    // A merged key may come again: that is what merge keys are for.
    assert_eq!(values("a: {<<: {b: 1}, b: 2}")[0].1["a"], json!({"b": 2}));
}

#[test]
fn what_is_no_object_is_named() {
    let said = |text: &str| parse("t.yaml", text, &Limits::default()).unwrap_err().to_string();
    for (text, expected) in [
        ("---\nkind: Pod\n", "t.yaml:2:1: this is no Kubernetes object: apiVersion is missing"),
        ("apiVersion: v1\nkind: ''\n", "t.yaml:2:7: this is no Kubernetes object: kind is empty"),
        ("replicas: 1\n", "t.yaml:1:1: this is no Kubernetes object: apiVersion and kind are missing"),
        ("- a\n", "t.yaml:1:1: this is no Kubernetes object: it is a sequence, not a mapping"),
        (
            "apiVersion: 1\nkind: Pod\n",
            "t.yaml:1:13: this is no Kubernetes object: apiVersion is a number, not a string",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: 1234}\n",
            "t.yaml:3:18: this is no Kubernetes object: metadata.name is a number, not a string; put it in quotes",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n- kind: Pod\n",
            "t.yaml:6:3: this is no Kubernetes object: apiVersion is missing",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: {}\n",
            "t.yaml:3:8: this is no Kubernetes object: items of the List is a mapping, not a sequence",
        ),
    ] {
        assert_eq!(said(text), expected);
    }
    let plain = &parse_plain("t.yaml", "replicas: 1\n", &Limits::default()).unwrap()[0];
    assert!(!plain.is_object());
    assert_eq!(plain.place, Place { line: 1, column: 1 });
    // A kind that ends in List but has no items is an object, and an empty list has none.
    let count = |text: &str| parse("t.yaml", text, &Limits::default()).unwrap().len();
    assert_eq!(count("apiVersion: v1\nkind: AllowList\n"), 1);
    assert_eq!(count("apiVersion: v1\nkind: PodList\nitems: []\n"), 0);
    assert_eq!(count("apiVersion: v1\nkind: PodList\nitems:\n"), 0);
}

#[test]
fn hostile_input_is_refused_by_name() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(error(&laughs).contains("expand to more than 100000 values"), "{}", error(&laughs));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 1000].join(", "));
    assert!(error(&long).contains("expand to more than"), "long strings count more");
    // Depth that only aliases give.
    let mut deep = "a0: &a0 {k: v}\n".to_owned();
    for level in 1..60 {
        deep.push_str(&format!("a{level}: &a{level} {{k: {{k: *a{}}}}}\n", level - 1));
    }
    assert!(error(&deep).contains("nested more than 100 deep"), "{}", error(&deep));
    let nested = |sign: &str| {
        (0..200).map(|level| format!("{}{sign}\n", " ".repeat(level))).collect::<Vec<_>>().concat()
    };
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(5000),
        "- ".repeat(5000),
        "{\"a\":".repeat(5000),
        nested("-"),
        nested("a:"),
    ] {
        assert!(error(&text).contains("nested more than 100 deep"), "{}", error(&text));
    }
    assert!(error(&"---\n".repeat(10_001)).contains("more than 10000 documents"));
    let limits = Limits { bytes: 10, ..Limits::default() };
    let large = parse_plain("t.yaml", "a: 12345678", &limits).unwrap_err();
    assert!(matches!(large, ManifestError::TooLarge { limit: 10, .. }), "{large}");
}

#[test]
fn large_files_are_read_in_time_that_grows_with_their_size() {
    let one_line = format!("{{\"a\": [{}]}}", vec!["{\"b\": \"c\"}"; 50_000].join(","));
    assert_eq!(values(&one_line)[0].1["a"].as_array().unwrap().len(), 50_000);
    let unwritten = (0..50_000).map(|at| format!("k{at}: , ")).collect::<Vec<_>>().concat();
    assert_eq!(values(&format!("{{{unwritten}}}"))[0].1.as_object().unwrap().len(), 50_000);
    let stream = format!("{{\"a\": \"{}\"}}", "b".repeat(2000)).repeat(5000);
    assert_eq!(values(&stream).len(), 5000);
    let comments = format!("{}a: 1\n", "# comment\n".repeat(50_000));
    assert_eq!(values(&comments), [(0, json!({"a": 1}))]);
    let block = (0..50_000).map(|at| format!("k{at}:\n")).collect::<Vec<_>>().concat();
    assert_eq!(values(&block)[0].1.as_object().unwrap().len(), 50_000);
}
