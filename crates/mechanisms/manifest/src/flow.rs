//! Changes to collections in flow style, JSON included.

use serde_json::Value;
use std::ops::Range;

use crate::find::{Kind, Planner, Spot};
use crate::render::{indentation, is_filled};
use crate::splice::{Splice, find_sign, has_comment, is_first_on_line, line_end, line_start, next_line};
use crate::tree::{Item, Node, Shape};

impl Planner<'_> {
    /// A value in flow style. `lines`: what stands beside it has a line of its own.
    pub(crate) fn flow_value(&self, value: &Value, lines: bool, beside: usize) -> String {
        match lines && self.layout.json {
            true => self.layout.lines(value, indentation(self.text, beside)),
            false => self.layout.inline(value, true, None),
        }
    }

    /// Adds a text behind the last entry or item of a collection in flow style.
    pub(crate) fn append_to_flow(&self, node: &Node, last: usize, end: usize, added: &str) -> Vec<Splice> {
        let close = node.content.end.saturating_sub(1);
        let own_line = is_first_on_line(self.text, last) && self.slice(end..close).contains('\n');
        let indent = format!("{}{}", self.layout.newline, indentation(self.text, last));
        match find_sign(self.text, end, |sign| sign == ',').filter(|comma| *comma < close) {
            Some(comma) if own_line => {
                vec![Splice::insert(line_end(self.text, comma), format!("{indent}{added},"))]
            }
            None if own_line => vec![
                Splice::insert(end, ","),
                Splice::insert(line_end(self.text, end), format!("{indent}{added}")),
            ],
            _ if is_first_on_line(self.text, last) => {
                vec![Splice::insert(end, format!(",{indent}{added}"))]
            }
            _ => vec![Splice::insert(end, format!(", {added}"))],
        }
    }

    pub(crate) fn insert_into_flow(
        &self,
        node: &Node,
        items: &[Item],
        last: &Item,
        index: usize,
        new: &Value,
    ) -> Vec<Splice> {
        let beside = items.get(index).unwrap_or(last);
        let own_line = is_first_on_line(self.text, beside.start());
        let added = self.flow_value(new, own_line, beside.start());
        if index == items.len() {
            return self.append_to_flow(node, last.start(), last.end(), &added);
        }
        let space = match own_line {
            true => format!("{}{}", self.layout.newline, indentation(self.text, beside.start())),
            false => " ".to_owned(),
        };
        vec![Splice::insert(beside.start(), format!("{added},{space}"))]
    }

    pub(crate) fn replace_in_flow(&self, spot: Spot<'_>, new: &Value) -> Splice {
        let (node, style) = match &spot.node.shape {
            Shape::Scalar { style, .. } => (spot.node, Some(*style)),
            _ => (spot.node, None),
        };
        let many_lines = self.slice(node.full()).contains('\n');
        let scalar = !matches!(&node.shape, Shape::Map { entries, .. } if !entries.is_empty())
            && !matches!(&node.shape, Shape::Seq { items, .. } if !items.is_empty());
        let lines = many_lines || (scalar && self.layout.multiline);
        let written = match is_filled(new) {
            true => self.flow_value(new, lines, node.start),
            false => self.layout.inline(new, true, style),
        };
        match spot.kind {
            Kind::Value { colon: false } => Splice::insert(spot.lead, format!(": {written}")),
            _ if node.is_unwritten() && node.start == node.content.start => {
                Splice::insert(spot.lead, format!(" {written}"))
            }
            _ => Splice::replace(node.full(), written),
        }
    }

    pub(crate) fn remove_from_flow(&self, parent: &Node, ranges: &[Range<usize>], at: usize) -> Vec<Splice> {
        let (range, inside) =
            (ranges[at].clone(), parent.content.start + 1..parent.content.end.saturating_sub(1));
        if ranges.len() == 1 {
            let rest = [self.slice(inside.start..range.start), self.slice(range.end..inside.end)];
            let blank = rest.iter().all(|rest| rest.trim_matches([' ', '\t', '\r', '\n', ',']).is_empty());
            if blank {
                return vec![Splice::delete(inside)];
            }
        }
        let comma_behind =
            |end| find_sign(self.text, end, |sign| sign == ',').filter(|comma| *comma < inside.end);
        let comma = comma_behind(range.end);
        let before = at.checked_sub(1).map(|before| ranges[before].end);
        let mut splices = Vec::new();
        // Of the commas, the one behind goes; at the end, where there is none, the one before.
        let end = match comma {
            Some(comma) if !has_comment(self.text, range.end..comma) => comma + 1,
            _ => {
                if let Some(comma) = before.and_then(comma_behind) {
                    splices.push(Splice::delete(comma..comma + 1));
                }
                range.end
            }
        };
        let behind = self.slice(end..line_end(self.text, end));
        let own_line = is_first_on_line(self.text, range.start)
            && (behind.trim_start().is_empty() || behind.trim_start().starts_with('#'));
        let part = match (own_line, before) {
            (true, _) => line_start(self.text, range.start)..next_line(self.text, end),
            (false, Some(before)) if end == range.end && !has_comment(self.text, before..range.start) => {
                splices.clear();
                before..end
            }
            (false, _) => {
                let spaces = behind.len() - behind.trim_start_matches(' ').len();
                range.start..end + if ranges.len() > at + 1 { spaces } else { 0 }
            }
        };
        splices.push(Splice::delete(part));
        splices
    }
}
