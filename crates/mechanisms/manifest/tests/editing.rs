//! Edits: what changes, and that nothing else does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "a test may panic, and reads better so"
)]

use postern_manifest::{Change, Editor, Limits, parse, parse_plain};
use serde_json::{Value, json};

fn edit(text: &str, path: &str, change: Change) -> Result<String, String> {
    let mut editor = Editor::new("test.yaml", text, Limits::default());
    let done = editor.change_at(0, &path.parse().unwrap(), &change);
    match done {
        Ok(()) => Ok(editor.into_text()),
        Err(error) => {
            assert_eq!(editor.text(), text, "an error changes nothing");
            let mut said = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                said.push_str(&format!(": {error}"));
                source = error.source();
            }
            Err(said)
        }
    }
}

fn set(text: &str, path: &str, value: Value) -> String {
    edit(text, path, Change::Set(value)).unwrap_or_else(|error| panic!("{text}\n{path}: {error}"))
}

fn remove(text: &str, path: &str) -> String {
    edit(text, path, Change::Remove).unwrap_or_else(|error| panic!("{text}\n{path}: {error}"))
}

fn append(text: &str, path: &str, value: Value) -> String {
    edit(text, path, Change::Append(value)).unwrap_or_else(|error| panic!("{text}\n{path}: {error}"))
}

fn insert(text: &str, path: &str, index: usize, value: Value) -> String {
    edit(text, path, Change::Insert(index, value)).unwrap_or_else(|error| panic!("{text}\n{path}: {error}"))
}

#[test]
fn a_scalar_is_replaced_where_it_stands() {
    for (before, value, after) in [
        ("a:   x # c\nb: 1\n", json!("q"), "a:   q # c\nb: 1\n"),
        ("a: 'x' # c\n", json!("q"), "a: 'q' # c\n"),
        ("a: 'x'\n", json!("it's"), "a: 'it''s'\n"),
        ("a: \"x\"\n", json!("q"), "a: \"q\"\n"),
        ("a: \"x\"\n", json!(5), "a: 5\n"),
        ("a: x\n", json!("yes"), "a: \"yes\"\n"),
        ("a: x\n", json!("0644"), "a: \"0644\"\n"),
        ("a: x\n", json!(null), "a: null\n"),
        ("a: x", json!("q"), "a: q"),
        ("a:\nb: 1\n", json!("q"), "a: q\nb: 1\n"),
        ("a: # c\nb: 1\n", json!("q"), "a: q # c\nb: 1\n"),
        ("a: ~\n", json!("q"), "a: q\n"),
        ("a: {x: 1} # c\n", json!("q"), "a: q # c\n"),
        ("a: x q\n  z # c\nb: 1\n", json!("w"), "a: w # c\nb: 1\n"),
        ("a: | # c\n  x\n\n  q\n\n# t\nb: 1\n", json!("w"), "a: w # c\n\n# t\nb: 1\n"),
        ("a: |+\n  x\n\nb: 1\n", json!("w"), "a: w\nb: 1\n"),
        ("a: |\n  x\n  q\nb: 1\n", json!("x\nz\n"), "a: |\n  x\n  z\nb: 1\n"),
        ("a: x # c\nb: 1\n", json!("x\nz"), "a: |- # c\n  x\n  z\nb: 1\n"),
        ("a: \"x\"\n", json!("x\nz"), "a: \"x\\nz\"\n"),
        ("a: !!str 5\n", json!("6"), "a: \"6\"\n"),
        ("a: &x 5\nb: 1\n", json!(6), "a: 6\nb: 1\n"),
        ("a:\n  x\nb: 1\n", json!(6), "a:\n  6\nb: 1\n"),
        ("a: # c\n  # d\n  x: 1\n  q: 2 # e\n# f\nb: 1\n", json!(5), "a: 5 # c\n  # d\n# f\nb: 1\n"),
        ("a:\n  # d\n  x: 1\nb: 1\n", json!("l\nm"), "a: \"l\\nm\"\n  # d\nb: 1\n"),
        ("a:\n- x\n- q # c\nb: 1\n", json!("l\nm"), "a: |-\n  l\n  m\nb: 1\n"),
        ("a:\n- x\n- q\nb: 1\n", json!(5), "a: 5\nb: 1\n"),
        ("a:\n- x\n- q", json!(5), "a: 5"),
    ] {
        assert_eq!(set(before, "a", value), after, "{before}");
    }
}

#[test]
fn a_collection_takes_the_place_of_a_scalar() {
    for (before, value, after) in [
        (
            "a: 1 # c\nb: 1\n",
            json!({"x": 1, "q": [1, {"z": {}}]}),
            "a: # c\n  q:\n  - 1\n  - z: {}\n  x: 1\nb: 1\n",
        ),
        (
            "q:\n    w: 1\nz:\n    -   1\na: {}\n",
            json!({"x": [1]}),
            "q:\n    w: 1\nz:\n    -   1\na:\n    x:\n        -   1\n",
        ),
        ("a: [1, 2] # c\n", json!([1, 3, {"x": "a,b"}]), "a: [1, 3, {x: \"a,b\"}] # c\n"),
        ("a:\n", json!(["x"]), "a:\n- x\n"),
        ("a:\n  x: 1\nb: 2\n", json!(["x"]), "a:\n- x\nb: 2\n"),
        ("a:\n- x\nb: 2\n", json!({"x": "l1\nl2\n"}), "a:\n  x: |\n    l1\n    l2\nb: 2\n"),
        ("a: |\n  x\nb: 2\n", json!({"x": 1}), "a:\n  x: 1\nb: 2\n"),
    ] {
        assert_eq!(set(before, "a", value), after, "{before}");
    }
    assert_eq!(set("a:\n- 1 # c\n- 2\n", "a[0]", json!({"q": 1, "x": 2})), "a:\n- q: 1 # c\n  x: 2\n- 2\n");
    assert_eq!(set("a:\n- x: 1\n  q: 2\n- 2\n", "a[0]", json!(5)), "a:\n- 5\n- 2\n");
    let wide = "a:\n-   1\n- []\n";
    assert_eq!(set(wide, "a[1]", json!({"q": 1, "x": 2})), "a:\n-   1\n-   q: 1\n    x: 2\n");
    assert_eq!(set("a:\n-\n- 2\n", "a[0]", json!(5)), "a:\n- 5\n- 2\n");
    assert_eq!(set("a:\n- \n- 2\n", "a[0]", json!(5)), "a:\n- 5\n- 2\n");
}

#[test]
fn what_two_values_have_in_common_stays_as_it_is() {
    let before = "a:\n  x: 1 # one\n  # two\n  q: [1, 2]  # list\n  z:\n  - 1 # first\n  - 2\n";
    let value = json!({"x": 2, "q": [1, 2], "z": [1, 3, 4], "m": true});
    let after =
        "a:\n  x: 2 # one\n  # two\n  q: [1, 2]  # list\n  z:\n  - 1 # first\n  - 3\n  - 4\n  m: true\n";
    assert_eq!(set(before, "a", value), after);
    assert_eq!(set(before, "a.q", json!([1, 2])), before);
    assert_eq!(set("a: 0644\n", "a", json!(420)), "a: 0644\n");
    let before = "a:\n- x # 1\n- q # 2\n- z # 3\n";
    assert_eq!(set(before, "a", json!(["x"])), "a:\n- x # 1\n");
}

#[test]
fn a_key_is_added_behind_the_last_one() {
    for (before, path, after) in [
        ("a: 1 # c\n\n# end\n", "b", "a: 1 # c\nb: v\n\n# end\n"),
        ("a: 1", "b", "a: 1\nb: v"),
        ("a:\n  x: 1\n# end\n", "a.b", "a:\n  x: 1\n  b: v\n# end\n"),
        ("a:\n  x: 1\n", "b.c.d", "a:\n  x: 1\nb:\n  c:\n    d: v\n"),
        ("a:\n", "a.b.c", "a:\n  b:\n    c: v\n"),
        ("a: # c\nz: 1\n", "a.b", "a: # c\n  b: v\nz: 1\n"),
        ("a: {} # c\nz: 1\n", "a.b", "a: # c\n  b: v\nz: 1\n"),
        ("a: {x: 1}\n", "a.b", "a: {x: 1, b: v}\n"),
        ("a: {x: 1,}\n", "a.b", "a: {x: 1, b: v,}\n"),
        ("a: { x }\n", "a.b", "a: { x, b: v }\n"),
        ("a: {\n  x: 1, # one\n  q: 2 # two\n}\n", "a.b", "a: {\n  x: 1, # one\n  q: 2, # two\n  b: v\n}\n"),
        ("a: {\n  x: 1, # one\n}\n", "a.b", "a: {\n  x: 1, # one\n  b: v,\n}\n"),
        ("a: {\n  x: 1,\n  q: 2}\n", "a.b", "a: {\n  x: 1,\n  q: 2,\n  b: v}\n"),
        ("a: # c\n  {} # d\nz: 1\n", "a.b", "a: # c\n  b: v # d\nz: 1\n"),
        ("a: [{}]\n", "a[0].b", "a: [{b: v}]\n"),
        ("a:\n- x: 1\n  q:\n  - 1 # c\n- 2\n", "a[0].b", "a:\n- x: 1\n  q:\n  - 1 # c\n  b: v\n- 2\n"),
        ("a:\n  x: |\n    t\n\n\nz: 1\n", "a.b", "a:\n  x: |\n    t\n  b: v\n\n\nz: 1\n"),
        ("a:\n  x: |+\n    t\n\nz: 1\n", "a.b", "a:\n  x: |+\n    t\n\n  b: v\nz: 1\n"),
        ("a:\n  - - k: 1\n", "a[0][0].b", "a:\n  - - k: 1\n      b: v\n"),
        ("a:\r\n  x: 1 # c\r\nz: 1\r\n", "a.b.c", "a:\r\n  x: 1 # c\r\n  b:\r\n    c: v\r\nz: 1\r\n"),
        ("a:\n  x:\n", "a.b", "a:\n  x:\n  b: v\n"),
        ("\u{feff}a: 1\n", "b", "\u{feff}a: 1\nb: v\n"),
        ("--- # doc\na: 1\n...\n", "b", "--- # doc\na: 1\nb: v\n...\n"),
        ("{}\n", "b", "{\"b\": \"v\"}\n"),
        ("--- {}\n", "b", "--- b: v\n"),
    ] {
        match edit(before, path, Change::Set(json!("v"))) {
            Ok(found) => assert_eq!(found, after, "{before}"),
            // A block mapping cannot start behind `---`, and so nothing is changed.
            Err(error) => assert!(before.starts_with("--- {"), "{before}: {error}"),
        }
    }
    let annotated = set("metadata:\n  name: a\n", "metadata.annotations[example.com/a]", json!("true"));
    assert_eq!(annotated, "metadata:\n  name: a\n  annotations:\n    example.com/a: \"true\"\n");
}

#[test]
fn items_are_added_in_the_style_of_the_sequence() {
    for (before, after) in [
        ("a:\n- x # c\n# end\n", "a:\n- x # c\n- m\n# end\n"),
        ("a:\n  -   x\n", "a:\n  -   x\n  -   m\n"),
        ("a:\n- x", "a:\n- x\n- m"),
        ("a: [x, q] # c\n", "a: [x, q, m] # c\n"),
        ("a: [\n  x,\n  q # c\n]\n", "a: [\n  x,\n  q, # c\n  m\n]\n"),
        ("a: [x,\n    q]\n", "a: [x,\n    q,\n    m]\n"),
        ("a: []\n", "a:\n- m\n"),
        ("a:\n", "a:\n- m\n"),
        ("a: null # c\n", "a: # c\n- m\n"),
        ("b: 1\n", "b: 1\na:\n- m\n"),
        ("a:\n- x:\n  - q\n", "a:\n- x:\n  - q\n- m\n"),
        ("a:\r\n- x\r\n", "a:\r\n- x\r\n- m\r\n"),
    ] {
        assert_eq!(append(before, "a", json!("m")), after, "{before}");
    }
    let before = "a:\n# first\n- x\n# second\n- q\n";
    assert_eq!(
        insert(before, "a", 0, json!({"k": 1, "l": 2})),
        "a:\n# first\n- k: 1\n  l: 2\n- x\n# second\n- q\n"
    );
    assert_eq!(insert(before, "a", 1, json!(1)), "a:\n# first\n- x\n- 1\n# second\n- q\n");
    assert_eq!(insert(before, "a", 2, json!(1)), "a:\n# first\n- x\n# second\n- q\n- 1\n");
    assert_eq!(insert("a: [x, q]", "a", 1, json!(1)), "a: [x, 1, q]");
    assert_eq!(insert("a: [\n  x\n]", "a", 0, json!(1)), "a: [\n  1,\n  x\n]");
    assert_eq!(insert("- x\n", "", 0, json!([1, 2])), "- - 1\n  - 2\n- x\n");
}

#[test]
fn a_field_is_removed_with_its_lines() {
    for (before, path, after) in [
        ("a: 1 # c\n# b\nb: 2\n", "a", "# b\nb: 2\n"),
        ("a: 1\nb: 2", "b", "a: 1"),
        ("a: 1\nb:\n  x: |\n    t\n\n# end\n", "b", "a: 1\n\n# end\n"),
        ("a:\n  x: 1\nb: 2\n", "a.x", "a: {}\nb: 2\n"),
        ("a:\n- x\nb: 2\n", "a[0]", "a: []\nb: 2\n"),
        ("a:\n- x: 1\n  q: 2\n", "a[0].x", "a:\n- q: 2\n"),
        ("a:\n- x: 1\n  # c\n  q: 2\n", "a[0].x", "a:\n- \n  # c\n  q: 2\n"),
        ("a:\n- x: 1\n- q: 2\n", "a[0].x", "a:\n- {}\n- q: 2\n"),
        ("a:\n- x # c\n- q\n", "a[0]", "a:\n- q\n"),
        ("a:\n- - x\n  - q\n- z\n", "a[0][0]", "a:\n- - q\n- z\n"),
        ("a: {x: 1, q: 2, z: 3}\n", "a.x", "a: {q: 2, z: 3}\n"),
        ("a: {x: 1, q: 2, z: 3}\n", "a.q", "a: {x: 1, z: 3}\n"),
        ("a: {x: 1, q: 2, z: 3}\n", "a.z", "a: {x: 1, q: 2}\n"),
        ("a: { x: 1 }\n", "a.x", "a: {}\n"),
        ("a: [\n  x, # one\n  q # two\n]\n", "a[1]", "a: [\n  x # one\n]\n"),
        ("a: [\n  x, # one\n  q # two\n]\n", "a[0]", "a: [\n  q # two\n]\n"),
        ("a: 1\r\nb: 2\r\nc: 3\r\n", "b", "a: 1\r\nc: 3\r\n"),
        ("a: 1\n", "a", "{}\n"),
        ("a: 1\nb: *x\n", "a", ""),
    ] {
        match edit(before, path, Change::Remove) {
            Ok(found) => assert_eq!(found, after, "{before}"),
            Err(error) => assert!(after.is_empty(), "{before}: {error}"),
        }
    }
}

#[test]
fn json_stays_json() {
    let before = "{\n\t\"a\": {\n\t\t\"b\": 1\n\t},\n\t\"l\": [],\n\t\"e\": {}\n}\n";
    assert_eq!(set(before, "a.b", json!("yes")), before.replace("1\n", "\"yes\"\n"));
    let added = set(before, "a.c", json!({"d": [1]}));
    let more = "1,\n\t\t\"c\": {\n\t\t\t\"d\": [\n\t\t\t\t1\n\t\t\t]\n\t\t}\n";
    assert_eq!(added, before.replace("1\n", more));
    assert_eq!(append(before, "l", json!("x")), before.replace("[]", "[\n\t\t\"x\"\n\t]"));
    assert_eq!(set(before, "e.f", json!(null)), before.replace("{}", "{\n\t\t\"f\": null\n\t}"));
    assert_eq!(remove(before, "e"), before.replace("[],\n\t\"e\": {}", "[]"));
    assert_eq!(remove(before, "a"), before.replace("\t\"a\": {\n\t\t\"b\": 1\n\t},\n", ""));
    assert_eq!(set("{\"a\": 1}", "b", json!("é\n")), "{\"a\": 1, \"b\": \"é\\n\"}");
    let mut editor = Editor::new("x.json", "{\"a\": 1}\n{\"a\": 2}", Limits::default());
    editor.change_at(1, &"a".parse().unwrap(), &Change::Set(json!(3))).unwrap();
    assert_eq!(editor.text(), "{\"a\": 1}\n{\"a\": 3}");
}

#[test]
fn shared_text_is_not_edited() {
    let text = "base: &b # anchor\n  k: {x: 1}\n  l: [1]\nuse: *b\nmerged:\n  <<: *b\n  own: 1\nlast: &unused {z: 1}\n";
    for (path, change) in [
        ("base.k.x", Change::Set(json!(2))),
        ("base.l", Change::Append(json!(2))),
        ("base.m", Change::Set(json!(2))),
        ("base", Change::Set(json!(2))),
        ("base", Change::Remove),
        ("use.k.x", Change::Set(json!(2))),
        ("use.l", Change::Append(json!(2))),
        ("use.m", Change::Set(json!(2))),
        ("merged.k.x", Change::Set(json!(2))),
        ("merged.k.m", Change::Set(json!(2))),
    ] {
        let error = edit(text, path, change).unwrap_err();
        assert!(error.contains("is shared through"), "{path}: {error}");
        assert!(error.contains("&b") || error.contains("*b") || error.contains("<<"), "{path}: {error}");
    }
    // These touch the text of one field only.
    assert_eq!(set(text, "use", json!(1)), text.replace("use: *b", "use: 1"));
    assert_eq!(remove(text, "use"), text.replace("use: *b\n", ""));
    assert_eq!(set(text, "merged.k", json!(1)), text.replace("own: 1\n", "own: 1\n  k: 1\n"));
    assert_eq!(set(text, "merged.own", json!(2)), text.replace("own: 1", "own: 2"));
    assert_eq!(set(text, "last.z", json!(2)), text.replace("z: 1", "z: 2"));
    // A merge key behind it would overwrite the new value, and `k` cannot be removed at all.
    assert!(edit("b: &b {k: 1}\nm: {k: 2, <<: *b}\n", "m.k", Change::Set(json!(3))).is_err());
    assert!(edit(text, "merged.k", Change::Remove).unwrap_err().contains("there is no key \"k\""));
}

#[test]
fn errors_name_the_field_and_the_place() {
    let text = "a:\n  b: 1\n  l: [1]\n";
    for (path, change, said) in [
        (
            "a.b.c",
            Change::Set(json!(1)),
            "test.yaml:2:6: changing a.b.c: a scalar is here, but the change needs a mapping",
        ),
        (
            "a[0]",
            Change::Set(json!(1)),
            "test.yaml:2:3: changing a[0]: a mapping is here, but the change needs a sequence",
        ),
        ("a.l[4]", Change::Set(json!(1)), "test.yaml:3:3: changing a.l[4]: there is no item 4; there are 1"),
        ("a.x", Change::Remove, "test.yaml:1:1: changing a.x: there is no key \"x\""),
        (
            "a.x[0]",
            Change::Set(json!(1)),
            "test.yaml:1:1: changing a.x[0]: there is no item 0; append to the sequence instead",
        ),
        (
            "a.b",
            Change::Append(json!(1)),
            "test.yaml:2:6: changing a.b: a scalar is here, but the change needs a sequence",
        ),
        (
            "a.l",
            Change::Insert(2, json!(1)),
            "test.yaml:3:3: changing a.l: there is no place 2; the sequence has 1 items",
        ),
        ("", Change::Remove, "test.yaml:1:1: changing : the whole document cannot be removed"),
    ] {
        assert_eq!(edit(text, path, change), Err(said.to_owned()));
    }
    let mut editor = Editor::new("test.yaml", text, Limits::default());
    let error = editor.change_at(3, &"a".parse().unwrap(), &Change::Remove).unwrap_err();
    assert_eq!(
        error.to_string(),
        "changing a in test.yaml: there is no document 3; the file has 1, counted from 0"
    );
}

#[test]
fn an_item_of_a_list_in_a_later_document_is_edited() {
    let text = "# first\nkind: A\napiVersion: v1\n---\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: B # b\n  metadata: {name: x}\n- kind: C\n  apiVersion: v1\n";
    let objects = parse("test.yaml", text, &Limits::default()).unwrap();
    assert_eq!(objects.len(), 3);
    let mut editor = Editor::new("test.yaml", text, Limits::default());
    editor.change(&objects[1], &"metadata.name".parse().unwrap(), &Change::Set(json!("q"))).unwrap();
    editor.change(&objects[2], &"metadata.name".parse().unwrap(), &Change::Set(json!("z"))).unwrap();
    assert_eq!(editor.text(), text.replace("{name: x}", "{name: q}") + "  metadata:\n    name: z\n");
    assert_eq!(parse_plain("test.yaml", editor.text(), &Limits::default()).unwrap().len(), 2);
}
