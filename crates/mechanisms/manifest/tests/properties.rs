//! Random documents in random styles, and random edits: an edit makes exactly its change or none at all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic, and reads better so")]

use postern_manifest::{Change, Editor, FieldPath, Limits, Places, Segment, parse_plain};
use serde_json::{Map, Value, json};

/// xorshift64*, so that a failing seed can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

const KEYS: [&str; 14] = [
    "name",
    "image",
    "spec",
    "a/b",
    "x.y",
    "yes",
    "5",
    "",
    "key with space",
    "é",
    "it's",
    "<<",
    "#no",
    "env:",
];

const TEXTS: [&str; 26] = [
    "v1",
    "nginx:1.25",
    "yes",
    "0644",
    "",
    " a",
    "a ",
    "a: b",
    "a #b",
    "l1\nl2\n",
    "l1\n\nl2",
    "l\n\n",
    "  i\nj",
    "'q'",
    "\"d\"",
    "\\",
    "é\u{85}",
    "\u{1F600}",
    "a\tb",
    "[x]",
    "{x}",
    "*a",
    "-",
    "- a",
    "1:30",
    "null",
];

fn value(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 4 } else { 8 }) {
        0 => [json!(null), json!(true), json!(false)][random.below(3)].clone(),
        1 => [json!(0), json!(-5), json!(1.5), json!(1e30), json!(9_007_199_254_740_993_i64)]
            [random.below(5)]
        .clone(),
        2 | 3 => (*random.pick(&TEXTS)).into(),
        4 | 5 => (0..random.below(4)).map(|_| value(random, depth - 1)).collect(),
        _ => {
            let count = random.below(5);
            Value::Object(
                (0..count).map(|_| ((*random.pick(&KEYS)).to_owned(), value(random, depth - 1))).collect(),
            )
        }
    }
}

/// Writes values in ways that people do. It has nothing in common with the library's own writer.
struct Writer<'r> {
    random: &'r mut Random,
    newline: &'static str,
    step: usize,
    dashes: usize,
    comments: usize,
}

impl Writer<'_> {
    fn scalar(&mut self, value: &Value) -> String {
        match value {
            Value::String(text) => {
                let word = text.len() > 1
                    && text.bytes().all(|byte| byte.is_ascii_alphabetic())
                    && text != "yes"
                    && text != "null";
                let simple = !text.contains(['\n', '\t', '\u{85}']);
                match self.random.below(3) {
                    0 if word => text.clone(),
                    1 if simple => format!("'{}'", text.replace('\'', "''")),
                    _ => {
                        Value::from(text.replace('\u{85}', "\u{1}")).to_string().replace("\\u0001", "\\u0085")
                    }
                }
            }
            other => other.to_string(),
        }
    }

    fn flow(&mut self, value: &Value) -> String {
        match value {
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(|item| self.flow(item)).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Object(map) => {
                let entries: Vec<_> = map
                    .iter()
                    .map(|(key, value)| format!("{}: {}", self.scalar(&json!(key)), self.flow(value)))
                    .collect();
                format!("{{ {} }}", entries.join(", "))
            }
            scalar => self.scalar(scalar),
        }
    }

    fn comment(&mut self) -> String {
        self.comments += 1;
        format!("# c{}", self.comments)
    }

    /// The rest of a line behind a key or a dash, and everything below it.
    fn slot(&mut self, value: &Value, column: usize, out: &mut String) {
        let filled = match value {
            Value::Array(items) => !items.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => false,
        };
        if filled && !self.random.one_in(5) {
            let dashes = if value.is_array() { self.dashes } else { self.step };
            self.line_end(out);
            self.block(value, column + dashes, true, out);
            return;
        }
        if let Value::String(text) = value
            && text.starts_with('l')
            && text.contains('\n')
            && self.random.one_in(2)
        {
            let (body, header) = match text.strip_suffix("\n") {
                Some(body) if body.ends_with('\n') => (body.trim_end_matches('\n'), "|+"),
                Some(body) => (body, "|"),
                None => (text.as_str(), "|-"),
            };
            out.push_str(&format!(" {header}{}", self.newline));
            let breaks = text.len() - text.trim_end_matches('\n').len();
            for line in body.split('\n').chain(std::iter::repeat_n("", breaks.saturating_sub(1))) {
                let indent = if line.is_empty() { 0 } else { column + self.step };
                out.push_str(&format!("{}{line}{}", " ".repeat(indent), self.newline));
            }
            return;
        }
        if !(value.is_null() && self.random.one_in(2)) {
            let spaces = 1 + self.random.below(2);
            let written = self.flow(value);
            out.push_str(&format!("{}{written}", " ".repeat(spaces)));
        }
        self.line_end(out);
    }

    fn line_end(&mut self, out: &mut String) {
        if self.random.one_in(4) {
            let comment = self.comment();
            out.push_str(&format!(" {comment}"));
        }
        out.push_str(self.newline);
    }

    fn block(&mut self, value: &Value, column: usize, own_line: bool, out: &mut String) {
        let indent = " ".repeat(column);
        let start = |this: &mut Self, first: bool, out: &mut String| {
            if !first || own_line {
                if this.random.one_in(6) {
                    let comment = this.comment();
                    out.push_str(&format!("{indent}{comment}{}", this.newline));
                }
                out.push_str(&indent);
            }
        };
        match value {
            Value::Object(map) => {
                for (at, (key, value)) in map.iter().enumerate() {
                    start(self, at == 0, out);
                    let key = self.scalar(&json!(key));
                    out.push_str(&format!("{key}:"));
                    self.slot(value, column, out);
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    start(self, at == 0, out);
                    out.push('-');
                    let filled = item.as_object().is_some_and(|map| !map.is_empty())
                        || item.as_array().is_some_and(|items| !items.is_empty());
                    if filled && self.random.one_in(2) {
                        out.push(' ');
                        self.block(item, column + 2, false, out);
                    } else {
                        // Below a dash, a sequence has to be indented.
                        let dashes = self.dashes;
                        self.dashes = dashes.max(2);
                        self.slot(item, column, out);
                        self.dashes = dashes;
                    }
                }
            }
            _ => unreachable!("only collections are written in block style"),
        }
    }
}

fn document(random: &mut Random) -> Value {
    let mut map = Map::from_iter([("kind".to_owned(), json!("Test"))]);
    for _ in 0..=random.below(4) {
        let key = (*random.pick(&KEYS)).to_owned();
        map.insert(key, value(random, 3));
    }
    Value::Object(map)
}

/// A text with its documents.
fn text(random: &mut Random) -> (String, Vec<Value>) {
    let documents: Vec<_> = (0..=random.below(3)).map(|_| document(random)).collect();
    if random.one_in(6) {
        let pretty = random.one_in(2);
        let write =
            |value| if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let texts: Vec<_> = documents.iter().map(|value| write(value).unwrap()).collect();
        return (texts.join("\n"), documents);
    }
    let newline = *random.pick(&["\n", "\n", "\r\n"]);
    let (step, dashes) = (*random.pick(&[2, 2, 3, 4]), *random.pick(&[0, 0, 2]));
    let mut writer = Writer { random, newline, step, dashes, comments: 0 };
    let mut out = String::new();
    for document in &documents {
        out.push_str(&format!("---{newline}"));
        writer.block(document, 0, true, &mut out);
    }
    (out, documents)
}

fn paths(value: &Value, path: &FieldPath, all: &mut Vec<FieldPath>) {
    all.push(path.clone());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| paths(value, &path.clone().key(key), all)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| paths(item, &path.clone().index(at), all));
        }
        _ => {}
    }
}

fn reach<'a>(value: &'a mut Value, path: &[Segment]) -> &'a mut Value {
    path.iter().fold(value, |value, segment| match segment {
        Segment::Key(key) => value.get_mut(key).unwrap(),
        Segment::Index(index) => value.get_mut(index).unwrap(),
    })
}

/// A random change that can be made, with what it does to the value.
fn change(random: &mut Random, value: &mut Value) -> (FieldPath, Change) {
    let mut all = Vec::new();
    paths(value, &FieldPath::root(), &mut all);
    loop {
        let path = random.pick(&all).clone();
        let new = super_value(random);
        let target = reach(value, path.segments());
        match (random.below(4), target) {
            (0, target) if !path.is_root() => {
                *target = new.clone();
                return (path, Change::Set(new));
            }
            (1, Value::Object(map)) => {
                let key = format!("new{}", random.below(3));
                map.insert(key.clone(), new.clone());
                return (path.key(key), Change::Set(new));
            }
            (2, Value::Array(items)) => {
                let at = random.below(items.len() + 1);
                items.insert(at, new.clone());
                let last = at + 1 == items.len() && random.one_in(2);
                return (path, if last { Change::Append(new) } else { Change::Insert(at, new) });
            }
            (3, _) if !path.is_root() => {
                let parent = path.parent().unwrap();
                match (reach(value, parent.segments()), path.segments().last().unwrap()) {
                    (Value::Object(map), Segment::Key(key)) => drop(map.remove(key)),
                    (Value::Array(items), Segment::Index(index)) => drop(items.remove(*index)),
                    _ => unreachable!("the path is one of the value"),
                }
                return (path, Change::Remove);
            }
            _ => {}
        }
    }
}

fn super_value(random: &mut Random) -> Value {
    let depth = random.below(3);
    value(random, depth)
}

fn read(text: &str) -> Vec<(Value, Places)> {
    let plains = parse_plain("test", text, &Limits::default());
    plains
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
        .into_iter()
        .map(|it| (it.value, it.places))
        .collect()
}

fn comments(text: &str) -> Vec<&str> {
    text.split_whitespace().filter(|word| word.starts_with('c') && word[1..].parse::<u32>().is_ok()).collect()
}

#[test]
fn an_edit_makes_exactly_its_change() {
    let (mut refused, mut count) = (Vec::new(), 0);
    for seed in 1..=4000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (mut text, mut documents) = text(&mut random);
        let as_read: Vec<_> = read(&text).into_iter().map(|(value, _)| value).collect();
        assert_eq!(as_read, documents, "seed {seed}\n{text}");
        for _ in 0..3 {
            count += 1;
            let index = random.below(documents.len());
            let places = read(&text)[index].1.clone();
            let mut expected = documents.clone();
            let (path, change) = change(&mut random, &mut expected[index]);
            let mut all = Vec::new();
            paths(&documents[index], &FieldPath::root(), &mut all);
            let scalar = all.contains(&path) && {
                let old = reach(&mut documents[index], path.segments());
                !old.is_object() && !old.is_array()
            };
            let mut editor = Editor::new("test", text.as_str(), Limits::default());
            let before = editor.text().to_owned();
            if let Err(error) = editor.change_at(index, &path, &change) {
                assert_eq!(editor.text(), before, "seed {seed}: an error changes nothing");
                refused.push((seed, format!("{error}\n{path} {change:?}\n{before}")));
                break;
            }
            let after = editor.into_text();
            let found: Vec<_> = read(&after).into_iter().map(|(value, _)| value).collect();
            assert_eq!(found, expected, "seed {seed} {path} {change:?}\n{before}\n=>\n{after}");
            // A scalar that is set changes no byte outside of it.
            let field = places.get(&path);
            if let (Change::Set(new), Some(field)) = (&change, field)
                && scalar
                && !new.is_object()
                && !new.is_array()
                && !new.as_str().is_some_and(|text| text.contains('\n'))
                && !field.value.bytes.is_empty()
                && !before[field.value.bytes.clone()].contains('\n')
            {
                let (head, tail) = (&before[..field.value.bytes.start], &before[field.value.bytes.end..]);
                assert!(
                    after.starts_with(head) && after.ends_with(tail),
                    "seed {seed} {path}\n{before}\n=>\n{after}"
                );
            }
            // Where nothing is taken away, every comment stays, in its order; and so does every line break.
            if matches!(change, Change::Append(_) | Change::Insert(..)) || field.is_none() {
                assert_eq!(
                    comments(&before),
                    comments(&after),
                    "seed {seed} {path} {change:?}\n{before}\n=>\n{after}"
                );
            }
            let bare = after.replace("\r\n", "").contains('\n');
            assert!(!before.contains("\r\n") || !bare, "seed {seed}: {after:?}");
            (text, documents) = (after, expected);
        }
    }
    let shown: Vec<_> = refused.iter().take(6).map(|(seed, said)| format!("seed {seed}: {said}")).collect();
    assert!(
        refused.len() * 200 < count,
        "{} of {count} edits were refused\n{}",
        refused.len(),
        shown.join("\n----\n")
    );
}

#[test]
fn places_point_at_keys_and_values() {
    for seed in 1..=500_u64 {
        let mut random = Random(seed.wrapping_mul(0xD1B5_4A32_D192_ED03));
        let (text, documents) = text(&mut random);
        for (document, (_, places)) in documents.iter().zip(read(&text)) {
            let mut all = Vec::new();
            paths(document, &FieldPath::root(), &mut all);
            for path in all {
                let field =
                    places.get(&path).unwrap_or_else(|| panic!("seed {seed}: {path} has no place\n{text}"));
                let mut copy = document.clone();
                let value = reach(&mut copy, path.segments());
                let written = &text[field.value.bytes.clone()];
                // A value that stands on one line can be read from its bytes alone.
                if !written.contains('\n') && !written.contains('#') {
                    let alone = parse_plain("part", &format!("v: {written}"), &Limits::default());
                    if let Ok(alone) = alone {
                        assert_eq!(&alone[0].value["v"], value, "seed {seed} {path} {written:?}\n{text}");
                    }
                }
                let line = text.split('\n').nth(field.value.place.line - 1).unwrap();
                let rest: String = line.chars().skip(field.value.place.column - 1).collect();
                assert!(
                    text[field.value.bytes.start..].starts_with(rest.as_str()),
                    "seed {seed} {path}\n{text}"
                );
                assert_eq!(path.to_string().parse::<FieldPath>().unwrap(), path);
            }
        }
    }
}

/// What YAML is made of, to be put in anywhere.
const PIECES: [&str; 40] = [
    "\n",
    "\r\n",
    " ",
    "  ",
    "\t",
    "- ",
    ": ",
    ":",
    ", ",
    "# c\n",
    " # c",
    "{",
    "}",
    "[",
    "]",
    "|",
    "|-\n",
    ">+\n",
    "'",
    "\"",
    "&a ",
    "*a",
    "*a ",
    "<<: *a\n",
    "!!str ",
    "!t ",
    "? ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "\u{feff}",
    "é",
    "~",
    "\n\n",
    "a: &a {b: 1}\n",
    "- &a\n",
    "\\",
    "a: b\n",
    "\n  ",
    "\u{85}",
];

#[test]
fn a_damaged_file_is_edited_rightly_or_not_at_all() {
    let (mut edited, mut refused) = (0, 0);
    for seed in 1..=20_000_u64 {
        let mut random = Random(seed.wrapping_mul(0xA24B_AED4_963E_E407));
        let (mut text, _) = text(&mut random);
        for _ in 0..=random.below(3) {
            let ends: Vec<_> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let (from, to) = (random.below(ends.len()), random.below(ends.len()));
            match random.below(4) {
                0 if from < to && to - from < 20 => text.replace_range(ends[from]..ends[to], ""),
                1 if from < to => {
                    let copy = text[ends[from]..ends[to]].to_owned();
                    text.insert_str(ends[from], &copy);
                }
                _ => text.insert_str(ends[from], PIECES[random.below(PIECES.len())]),
            }
        }
        let Ok(plains) = parse_plain("test", &text, &Limits::default()) else { continue };
        let Some(at) = (!plains.is_empty()).then(|| random.below(plains.len())) else { continue };
        let mut expected: Vec<_> = plains.iter().map(|plain| plain.value.clone()).collect();
        if !expected[at].is_object() && !expected[at].is_array() {
            continue;
        }
        let (path, change) = change(&mut random, &mut expected[at]);
        let mut editor = Editor::new("test", text.as_str(), Limits::default());
        if editor.change_at(plains[at].index, &path, &change).is_err() {
            assert_eq!(editor.text(), text, "seed {seed}");
            refused += 1;
            continue;
        }
        edited += 1;
        let found: Vec<_> = read(editor.text()).into_iter().map(|(value, _)| value).collect();
        assert_eq!(found, expected, "seed {seed} {path} {change:?}\n{text}\n=>\n{}", editor.text());
    }
    assert!(edited > 4000 && refused * 10 < edited, "{edited} edited, {refused} refused");
}
