//! Changes to values in block style.

use std::ops::Range;

use crate::find::{Kind, Plan, Planner, Spot, Stop};
use crate::render::Written;
use crate::splice::{Splice, has_comment, is_first_on_line, line_end, line_start, next_line, whole_lines};
use crate::tree::{Shape, Style};

impl Planner<'_> {
    /// Puts lines below the line that a byte is on.
    pub(crate) fn lines_below(&self, at: usize, lines: &[String]) -> Splice {
        let newline = self.layout.newline;
        let joined = lines.join(newline);
        // A block scalar that keeps its line breaks ends behind the last of them.
        if self.slice(0..at).ends_with('\n') {
            return Splice::insert(at, format!("{joined}{newline}"));
        }
        Splice::insert(line_end(self.text, at), format!("{newline}{joined}"))
    }

    /// Replaces a collection in block style.
    pub(crate) fn replace_block(&self, spot: Spot<'_>, new: &Written) -> Vec<Splice> {
        let (node, newline) = (spot.node, self.layout.newline);
        let below = new.below.join(newline);
        // A comment behind the last line goes too: behind a literal block it would become text.
        let ended = self.slice(node.content.clone()).ends_with('\n');
        let end = if ended { node.content.end } else { line_end(self.text, node.content.end) };
        let last = if ended { newline } else { "" };
        if !self.slice(spot.lead..node.content.start).contains('\n') {
            let lines = if below.is_empty() { String::new() } else { format!("{newline}{below}") };
            let start = if spot.kind == Kind::Root { node.start } else { spot.lead };
            return vec![Splice::replace(start..end, format!("{}{lines}{last}", new.rest))];
        }
        // Anchor and tag go; they stand on the line of the key or dash, where a comment may follow them.
        let properties = if node.start < node.content.start { node.inside } else { spot.lead };
        let head = Splice::replace(spot.lead..properties.max(spot.lead), new.rest.clone());
        let content = line_start(self.text, node.content.start)..end;
        let body = match below.is_empty() {
            true if ended => Splice::delete(content),
            true => Splice::delete(whole_lines(self.text, content)),
            false => Splice::replace(content, format!("{below}{last}")),
        };
        vec![head, body]
    }

    /// Replaces a value that starts on the line of its key or dash: a scalar, an alias, a collection in flow style.
    pub(crate) fn replace_line(&self, spot: Spot<'_>, new: &Written) -> Plan {
        let (node, newline) = (spot.node, self.layout.newline);
        let Written { rest, below } = new;
        let below = below.join(newline);
        if let Shape::Scalar { style: Style::Block, .. } = node.shape {
            // A comment behind the header stays, the text below it goes.
            let header_end = line_end(self.text, node.content.start);
            let header = self.slice(node.content.start..header_end);
            let comment = header.find(" #").map_or("", |at| header[at..].trim_end());
            let mut written = format!("{rest}{comment}");
            if !below.is_empty() {
                written.push_str(newline);
                written.push_str(&below);
            }
            let old = spot.lead..node.content.end;
            if self.slice(old.clone()).ends_with('\n') {
                written.push_str(newline);
            }
            return Ok(vec![Splice::replace(old, written)]);
        }
        if !below.is_empty() && self.slice(spot.lead..node.start).contains('\n') {
            // As in `securityContext:` with `{}` on the next line, which Helm charts often have.
            if !is_first_on_line(self.text, node.start) {
                return Err(Stop::Unable("the old value is on another line than its key"));
            }
            let lines = line_start(self.text, node.start)..node.content.end;
            return Ok(vec![Splice::insert(spot.lead, rest.clone()), Splice::replace(lines, below)]);
        }
        let value = rest.trim_start();
        let mut splices = vec![match (node.full().is_empty(), value.is_empty()) {
            (true, true) => Splice::insert(spot.lead, ""),
            (true, false) => {
                // A space that already stands there, as in `- `, is used.
                let spaces = self.slice(spot.lead..line_end(self.text, spot.lead));
                let blank = spaces.bytes().all(|byte| byte == b' ');
                Splice::replace(spot.lead..spot.lead + if blank { spaces.len() } else { 0 }, rest.clone())
            }
            (false, true) => Splice::delete(spot.lead..node.content.end),
            // The lines below are indented for the usual space behind a dash.
            (false, false) if spot.kind == Kind::Item && !below.is_empty() => {
                Splice::replace(spot.lead..node.content.end, rest.clone())
            }
            (false, false) => Splice::replace(node.full(), value),
        }];
        if !below.is_empty() {
            let end = line_end(self.text, node.content.end);
            splices.push(Splice::insert(end, format!("{newline}{below}")));
        }
        Ok(splices)
    }

    /// Removes one of several entries or items in block style, with its lines.
    pub(crate) fn remove_lines(&self, ranges: &[Range<usize>], at: usize) -> Vec<Splice> {
        let range = ranges[at].clone();
        // A block scalar that keeps its line breaks ends behind the last of them.
        let ended = self.slice(range.clone()).ends_with('\n');
        if is_first_on_line(self.text, range.start) {
            let lines = match ended {
                true => line_start(self.text, range.start)..range.end,
                false => whole_lines(self.text, range),
            };
            return vec![Splice::delete(lines)];
        }
        // Behind a dash, as in `- name: a`, the next one moves up; unless a comment stands between them.
        let end = if ended { range.end } else { line_end(self.text, range.end) };
        match ranges.get(at + 1) {
            Some(next) if !has_comment(self.text, next_line(self.text, end)..next.start) => {
                vec![Splice::delete(range.start..next.start)]
            }
            _ => vec![Splice::delete(range.start..end)],
        }
    }
}
