//! Manifests: read or refused, never a panic; and an edit makes exactly its change or none at all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_manifest::{Change, Editor, FieldPath, Limits, parse, parse_plain};
use serde_json::Value;

fuzz_target!(|input: (String, String, u8)| {
    let (text, word, choice) = input;
    if let Ok(path) = word.parse::<FieldPath>() {
        assert_eq!(path.to_string().parse(), Ok(path));
    }
    let limits = Limits { documents: 100, alias_nodes: 1000, ..Limits::default() };
    let _ = parse("fuzz", &text, &limits);
    let Ok(plains) = parse_plain("fuzz", &text, &limits) else { return };
    let Some(plain) = plains.first() else { return };
    assert!(text.get(plain.places.field().value.bytes.clone()).is_some());
    // The first field of the first document, or a new one.
    let path = match (&plain.value, choice & 1) {
        (Value::Object(map), 0) if !map.is_empty() => {
            FieldPath::root().key(map.keys().next().cloned().unwrap_or_default())
        }
        (Value::Array(items), 0) if !items.is_empty() => FieldPath::root().index(0),
        _ => FieldPath::root().key(word.as_str()),
    };
    let new = Value::from(word.as_str());
    let change = match choice >> 1 {
        0 => Change::Remove,
        1 => Change::Append(new),
        2 => Change::Set(Value::Array(vec![new])),
        _ => Change::Set(new),
    };
    let mut editor = Editor::new("fuzz", text.as_str(), limits);
    match editor.change_at(plain.index, &path, &change) {
        Err(_) => assert_eq!(editor.text(), text),
        Ok(()) => {
            let after = parse_plain("fuzz", editor.text(), &limits).unwrap_or_default();
            let others = |plains: &[postern_manifest::Plain]| -> Vec<Value> {
                plains.iter().filter(|it| it.index != plain.index).map(|it| it.value.clone()).collect()
            };
            assert_eq!(others(&plains), others(&after));
        }
    }
});
