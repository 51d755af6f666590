//! From text to trees: the parser's events, put together with the places of the signs between them.

use granit_parser::{
    ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, StructureStyle,
};
use serde::de::IgnoredAny;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::ManifestError;
use crate::limits::Limits;
use crate::place::{Lines, Location, Place, bom};
use crate::scalar;
use crate::splice::find_sign;
use crate::tree::{Anchor, Entry, Item, Key, Node, Shape, Style, Tag, Tree};

type Result<T> = std::result::Result<T, ManifestError>;

/// Reads every document of a text: a stream of YAML documents, or JSON values one after another.
pub(crate) fn trees(file: &Arc<str>, text: &str, limits: &Limits) -> Result<Vec<Tree>> {
    if text.len() > limits.bytes {
        return Err(ManifestError::TooLarge { file: file.clone(), limit: limits.bytes, unit: "bytes" });
    }
    let lines = Lines::new(text);
    let mut trees = Vec::new();
    let mut base = Base { byte: bom(text), place: Place { line: 1, column: 1 } };
    let mut read = |part: Range<usize>, json| {
        base = base.moved_to(text, part.start);
        Builder::new(file, text, &lines, base, part.end, limits).stream(json, &mut trees)
    };
    match json_values(text) {
        Some(values) => values.into_iter().try_for_each(|part| read(part, true))?,
        None => read(bom(text)..text.len(), false)?,
    }
    Ok(trees)
}

/// Where the values of a JSON stream are; nothing for a text that is no JSON. As in kubectl, it has to begin with a
/// bracket: `5` may be JSON, but `5: a` is not.
fn json_values(text: &str) -> Option<Vec<Range<usize>>> {
    let start = bom(text);
    let body = text.get(start..)?;
    if !body.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(body).into_iter::<IgnoredAny>();
    let (mut parts, mut from) = (Vec::new(), start);
    while let Some(value) = values.next() {
        value.ok()?;
        let end = start + values.byte_offset();
        let space = text.get(from..end)?;
        parts.push(end - space.trim_start().len()..end);
        from = end;
    }
    Some(parts)
}

/// What is added to the parser's offsets, as it sees only a part of the text.
#[derive(Clone, Copy)]
struct Base {
    byte: usize,
    place: Place,
}

impl Base {
    /// The same for a later byte.
    fn moved_to(self, text: &str, byte: usize) -> Self {
        let between = text.get(self.byte..byte).unwrap_or_default();
        let Place { line, column } = self.place;
        let place = match between.rsplit_once('\n') {
            Some((before, last)) => {
                Place { line: line + 1 + before.matches('\n').count(), column: last.chars().count() + 1 }
            }
            None => Place { line, column: column + between.chars().count() },
        };
        Self { byte, place }
    }
}

struct Builder<'a> {
    file: &'a Arc<str>,
    text: &'a str,
    lines: &'a Lines<'a>,
    base: Base,
    parser: Parser<'a, StrInput<'a>>,
    limits: &'a Limits,
    depth: usize,
    /// Anchors whose value is not complete yet.
    open: Vec<usize>,
    aliases: Vec<(usize, Range<usize>)>,
}

impl<'a> Builder<'a> {
    fn new(
        file: &'a Arc<str>,
        text: &'a str,
        lines: &'a Lines<'a>,
        base: Base,
        end: usize,
        limits: &'a Limits,
    ) -> Self {
        let part = text.get(base.byte..end).unwrap_or_default();
        let options = granit_parser::options! {
            emit_anchor_events: true,
            emit_comments: false,
            flow_nesting_limit: limits.nesting() + 1,
            block_nesting_limit: limits.nesting() + 1,
        };
        let parser = Parser::new_from_str_with_options(part, options);
        Self { file, text, lines, base, parser, limits, depth: 0, open: Vec::new(), aliases: Vec::new() }
    }

    fn stream(&mut self, json: bool, trees: &mut Vec<Tree>) -> Result<()> {
        let mut from = self.base.byte;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentStart(explicit, _), span) => {
                    if trees.len() >= self.limits.documents {
                        let limit = self.limits.documents;
                        return Err(ManifestError::TooManyDocuments { at: self.at(span.start), limit });
                    }
                    // Without `---`, the event stands on the first token of the document.
                    let after = self.byte(if explicit { span.end } else { span.start });
                    let root = self.node(after)?;
                    let between = self.text.get(from..root.start).unwrap_or_default();
                    let template = template(between);
                    from = root.content.end;
                    let aliases = std::mem::take(&mut self.aliases);
                    trees.push(Tree { index: trees.len(), root, json, template, aliases });
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span)> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// Takes the next event if `wanted` says so.
    fn next_if(&mut self, wanted: impl Fn(&Event<'a>) -> bool) -> Result<Option<(Event<'a>, Span)>> {
        match self.parser.peek() {
            Some(Ok((event, _))) if !wanted(event) => Ok(None),
            _ => self.next().map(Some),
        }
    }

    fn byte(&self, marker: Marker) -> usize {
        self.base.byte + marker.byte_offset().unwrap_or_default()
    }

    fn place(&self, marker: Marker) -> Place {
        let Place { line, column } = self.base.place;
        let skipped = if marker.line() == 1 { column - 1 } else { 0 };
        Place { line: line + marker.line() - 1, column: skipped + marker.col() + 1 }
    }

    fn location(&self, place: Place) -> Location {
        Location { file: self.file.clone(), place }
    }

    fn at(&self, marker: Marker) -> Location {
        self.location(self.place(marker))
    }

    fn syntax(&self, error: ScanError) -> ManifestError {
        let at = self.at(*error.marker());
        if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
            return ManifestError::TooDeep { at, limit: self.limits.nesting() };
        }
        let line = self.text.lines().nth(at.place.line - 1).unwrap_or_default();
        let tab = line.trim_start_matches(' ').starts_with('\t');
        ManifestError::Syntax { at, tab, source: Box::new(error) }
    }

    /// Reads one node. Between `from` and the node there are only spaces, comments, its dash if it is the first item
    /// of a block sequence, its anchor and its tag.
    fn node(&mut self, from: usize) -> Result<Node> {
        let (event, span) = self.next()?;
        self.node_of(event, span, from)
    }

    fn node_of(&mut self, event: Event<'a>, span: Span, from: usize) -> Result<Node> {
        let tag_span = span.tag_span();
        let tag = event.tag().map(|tag| match tag.suffix_in_namespace("tag:yaml.org,2002:") {
            Some(suffix) => Tag::Core(suffix.into_owned()),
            None => Tag::Other,
        });
        let anchor = self.next_if(|event| matches!(event, Event::Anchor(..)))?;
        let mut content = self.byte(span.start)..self.byte(span.end);
        let (mut start, mut after) = (content.start, from);
        let properties = [tag_span, anchor.as_ref().map(|(_, span)| *span)];
        for property in properties.into_iter().flatten() {
            start = start.min(self.byte(property.start));
            after = after.max(self.byte(property.end));
        }
        let anchor = match anchor {
            Some((Event::Anchor(id, name), _)) => Some(Anchor { id, name: name.into_owned() }),
            _ => None,
        };
        let mut place = self.place(span.start);
        let bare = start == content.start;
        let shape = match event {
            Event::Alias(id) => {
                if self.open.contains(&id) {
                    return Err(ManifestError::Recursive { at: self.at(span.start) });
                }
                self.aliases.push((id, content.clone()));
                Shape::Alias(id)
            }
            Event::Scalar(value, style, ..) => self.scalar(&value, style, &mut content, &mut place, after),
            Event::MappingStart(style, ..) => {
                let flow = style == StructureStyle::Flow;
                let inside = if flow { content.end } else { after };
                let (entries, end) =
                    self.collection(anchor.as_ref(), span.start, |this| this.entries(flow, inside))?;
                // Without a key, a flow mapping of one pair such as `[a: b]` has no bracket of its own.
                content.end = if flow { self.byte(end) } else { entries.last().map_or(after, Entry::end) };
                Shape::Map { flow, entries }
            }
            Event::SequenceStart(style, ..) => {
                let flow = style == StructureStyle::Flow;
                let inside = if flow { content.end } else { after };
                let (items, end) =
                    self.collection(anchor.as_ref(), span.start, |this| this.items(flow, inside))?;
                content.end = if flow { self.byte(end) } else { items.last().map_or(after, Item::end) };
                if let Some(dash) = items.first().and_then(|item| item.dash) {
                    content.start = dash;
                    place = self.lines.place(dash);
                }
                Shape::Seq { flow, items }
            }
            // No other event stands where a node has to be.
            _ => Shape::Scalar { text: String::new(), style: Style::Plain },
        };
        // The parser puts a value that is not written somewhere behind the sign that asks for it.
        if matches!(&shape, Shape::Scalar { style: Style::Plain, .. }) && content.is_empty() {
            place = self.unwritten_place(after, content.start, place);
            content = after..after;
        }
        let start = if bare { content.start } else { start };
        Ok(Node { shape, start, inside: after, content, place, anchor, tag })
    }

    /// The place of a value that is not written, from the nearby place that the parser names. To count from the start
    /// of the line each time would take the square of its length.
    fn unwritten_place(&self, after: usize, known: usize, place: Place) -> Place {
        match self.text.get(after..known) {
            Some(between) if !between.contains('\n') => {
                Place { line: place.line, column: place.column.saturating_sub(between.chars().count()) }
            }
            _ => self.lines.place(after),
        }
    }

    fn scalar(
        &self,
        value: &str,
        style: ScalarStyle,
        content: &mut Range<usize>,
        place: &mut Place,
        after: usize,
    ) -> Shape {
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted => Style::Single,
            ScalarStyle::DoubleQuoted => Style::Double,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        if style == Style::Plain && content.start == content.end {
            return Shape::Scalar { text: String::new(), style }; // the parser says `~`
        }
        if style == Style::Block {
            // The parser's span is the text below the header, with what follows it up to the next token.
            let header =
                find_sign(self.text, after, |sign| matches!(sign, '|' | '>')).unwrap_or(content.start);
            let start = content.start.max(header);
            let body = self.text.get(start..content.end).unwrap_or_default();
            let signs = self.text.get(header..).and_then(|rest| rest.split(char::is_whitespace).next());
            let keeps = signs.is_some_and(|signs| signs.contains('+'));
            let trimmed = match keeps {
                true => body.trim_end_matches([' ', '\t']),
                false => body.trim_end(),
            };
            let header_end = header + signs.map_or(1, str::len);
            content.start = header;
            content.end = if trimmed.is_empty() { header_end } else { start + trimmed.len() };
            *place = self.lines.place(header);
        }
        Shape::Scalar { text: value.to_owned(), style }
    }

    /// Reads the inside of a collection, and gives out the end of its closing event too.
    fn collection<T>(
        &mut self,
        anchor: Option<&Anchor>,
        start: Marker,
        read: impl FnOnce(&mut Self) -> Result<(T, Marker)>,
    ) -> Result<(T, Marker)> {
        self.depth += 1;
        if self.depth > self.limits.nesting() {
            return Err(ManifestError::TooDeep { at: self.at(start), limit: self.limits.nesting() });
        }
        self.open.extend(anchor.map(|anchor| anchor.id));
        let inside = read(self)?;
        if anchor.is_some() {
            self.open.pop();
        }
        self.depth -= 1;
        Ok(inside)
    }

    fn items(&mut self, flow: bool, mut from: usize) -> Result<(Vec<Item>, Marker)> {
        let mut items: Vec<Item> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok((items, span.end));
            }
            let sign = if flow { None } else { find_sign(self.text, from, |sign| sign == '-') };
            from = match (flow, sign) {
                (false, Some(dash)) => dash + 1,
                (false, None) => from,
                (true, _) if items.is_empty() => from,
                (true, _) => find_sign(self.text, from, |sign| sign == ',').map_or(from, |comma| comma + 1),
            };
            let item = Item { dash: sign, node: self.node_of(event, span, from)? };
            from = item.end().max(from);
            items.push(item);
        }
    }

    fn entries(&mut self, flow: bool, mut from: usize) -> Result<(Vec<Entry>, Marker)> {
        let (mut entries, mut seen): (Vec<Entry>, HashMap<String, Place>) = (Vec::new(), HashMap::new());
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok((entries, span.end));
            }
            let node = self.node_of(event, span, from)?;
            let key = self.key(&node)?;
            if !key.merge
                && let Some(first) = seen.insert(key.name.clone(), key.place)
            {
                let second = self.location(key.place);
                return Err(ManifestError::DuplicateKey { key: key.name, first, second });
            }
            let (next, next_span) = self.next()?;
            // `{a}` and `{a, b}` have no colon, and the null that the parser adds stands right behind the key.
            let bound = match flow && matches!(next, Event::Scalar(..)) && next_span.is_empty() {
                true => find_sign(self.text, key.content.end, |sign| matches!(sign, ':' | ',' | '}' | ']')),
                false => find_sign(self.text, key.content.end, |sign| sign == ':'),
            };
            let colon = bound.filter(|at| self.text.as_bytes().get(*at) == Some(&b':'));
            let behind = colon.map_or(key.content.end, |colon| colon + 1);
            let node = self.node_of(next, next_span, behind)?;
            let entry = Entry { key, colon, node };
            from = entry.end();
            entries.push(entry);
        }
    }

    fn key(&self, node: &Node) -> Result<Key> {
        let error = |what| ManifestError::Key { at: self.location(node.place), what };
        let Shape::Scalar { text, style } = &node.shape else { return Err(error(node.kind())) };
        let merge = *style == Style::Plain && text == "<<" && node.tag.is_none();
        let name = match (&node.tag, style) {
            (None, Style::Plain) => scalar::key(&scalar::resolve(text), text),
            (None, _) => Some(text.clone()),
            (Some(Tag::Core(tag)), _) if tag == "str" => Some(text.clone()),
            (Some(_), _) => return Err(error("a value with a tag")),
        };
        let name = name.ok_or_else(|| error(if node.is_null() { "null" } else { "a number this large" }))?;
        Ok(Key { name, merge, start: node.start, content: node.content.clone(), place: node.place })
    }
}

/// The path in Helm's comment `# Source: chart/templates/file.yaml`.
fn template(comments: &str) -> Option<String> {
    let mut sources = comments.lines().rev().filter_map(|line| line.strip_prefix("# Source: "));
    sources.next().map(|source| source.trim_end().to_owned())
}
