//! The report as a table for a terminal, in the manner of kubectl.

use crate::chart::Chart;
use crate::clean;
use crate::error::ReportError;
use crate::finding::{Evidence, Finding};
use crate::report::Report;
use crate::severity::Severity;
use std::fmt::Write;
use unicode_width::UnicodeWidthStr as _;

/// How the text looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether severities have colours (ANSI escape codes).
    pub colour: bool,
    /// Whether findings that are ok are listed. Otherwise they are counted.
    pub all: bool,
    /// Where lines are wrapped, in columns. Without it they are not.
    pub width: Option<usize>,
}

/// Spaces between columns.
const GAP: usize = 3;
/// Wider cells do not widen their column: one long name would push all messages off the screen.
const WIDEST: usize = 48;
/// With less room than this, text is not wrapped: it would be a column of single words.
const NARROWEST: usize = 24;
/// Where the details of a finding begin, and where their text does.
const DETAIL: (usize, usize) = (4, 14);

/// Writes the report as text.
pub fn text(report: &Report, style: Style, out: &mut impl Write) -> Result<(), ReportError> {
    let Report {
        tool: _,
        title,
        command: _,
        started_at: _,
        generated_at: _,
        findings,
        rules: _,
        charts,
        notes,
    } = report;
    writeln!(out, "{}", clean::line(title))?;
    // One context is told once, not in every row.
    let context = report.only_context();
    if let Some(context) = context {
        writeln!(out, "context: {}", clean::line(context))?;
    }
    let listed = findings.iter().filter(|finding| style.all || finding.severity != Severity::Ok);
    let rows: Vec<(&Finding, [String; 4])> =
        listed.map(|finding| (finding, cells(finding, context.is_none()))).collect();
    if !rows.is_empty() {
        writeln!(out)?;
        table(&rows, style, out)?;
    }
    for chart in charts {
        writeln!(out)?;
        numbers(chart, out)?;
    }
    writeln!(out)?;
    for note in notes {
        wrapped("note: ", &clean::line(note), style, out)?;
    }
    let hidden = !style.all && report.counts().ok > 0;
    writeln!(out, "{}{}", report.summary(), if hidden { " (ok is not listed)" } else { "" })?;
    Ok(())
}

fn cells(finding: &Finding, with_context: bool) -> [String; 4] {
    [
        finding.severity.to_string(),
        clean::line(&finding.rule).into_owned(),
        clean::line(&finding.target(with_context)).into_owned(),
        clean::line(&finding.message).into_owned(),
    ]
}

fn table(rows: &[(&Finding, [String; 4])], style: Style, out: &mut impl Write) -> Result<(), ReportError> {
    let header = ["SEVERITY", "RULE", "SUBJECT", "MESSAGE"];
    let widths: [usize; 3] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|(_, cells)| cells[column].width()).filter(|width| *width <= WIDEST);
        cells.chain([header[column].width()]).max().unwrap_or_default()
    });
    let row =
        |cells: [&str; 4], severity: Option<Severity>, out: &mut dyn Write| -> Result<(), ReportError> {
            let mut start = String::new();
            for (cell, width) in cells.iter().zip(widths) {
                start.push_str(cell);
                start.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + GAP));
            }
            let mut text = String::new();
            wrapped(&start, cells[3], style, &mut text)?;
            let painted = severity.filter(|_| style.colour).map_or_else(
                || text.clone(),
                |severity| {
                    let (word, rest) = text.split_at(cells[0].len());
                    format!("{}{word}\x1b[0m{rest}", colour(severity))
                },
            );
            Ok(out.write_str(&painted)?)
        };
    row(header, None, out)?;
    for (finding, cells) in rows {
        row(cells.each_ref().map(String::as_str), Some(finding.severity), out)?;
        details(finding, style, out)?;
    }
    Ok(())
}

/// The ANSI code of a severity.
const fn colour(severity: Severity) -> &'static str {
    match severity {
        Severity::Problem => "\x1b[1;31m",
        Severity::Warning => "\x1b[33m",
        Severity::Inconclusive => "\x1b[35m",
        Severity::Skipped => "\x1b[2m",
        Severity::Ok => "\x1b[32m",
    }
}

fn details(finding: &Finding, style: Style, out: &mut impl Write) -> Result<(), ReportError> {
    let mut detail = |label: &str, text: &str, style: Style| -> Result<(), ReportError> {
        let mut label = label;
        for line in text.split('\n') {
            let (indent, column) = DETAIL;
            let start = format!("{:indent$}{label:<1$}", "", column - indent);
            wrapped(&start, line, style, out)?;
            label = "";
        }
        Ok(())
    };
    for (label, place) in finding.whereabouts() {
        detail(label, &clean::line(&place), style)?;
    }
    for evidence in &finding.evidence {
        match evidence {
            Evidence::Text(text) => detail("evidence", &clean::lines(text), style)?,
            // A command that is wrapped cannot be copied.
            Evidence::Command(command) => {
                detail("command", &clean::line(command), Style { width: None, ..style })?;
            }
        }
    }
    if let Some(fix) = &finding.fix {
        detail("fix", &clean::lines(fix), style)?;
    }
    if let Some(reference) = &finding.reference {
        detail("see", &clean::line(reference), style)?;
    }
    Ok(())
}

/// Writes text behind `start`, wrapped at spaces; the following lines are indented as far as the first. A word with no
/// room is left whole, so that addresses can be copied.
fn wrapped(start: &str, text: &str, style: Style, out: &mut dyn Write) -> Result<(), ReportError> {
    let indent = start.width();
    let room = style.width.map(|width| width.saturating_sub(indent)).filter(|room| *room >= NARROWEST);
    let mut line = start.to_owned();
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        let width = word.trim_end_matches(' ').width();
        if used > 0 && room.is_some_and(|room| used + width > room) {
            writeln!(out, "{}", line.trim_end())?;
            line = " ".repeat(indent);
            used = 0;
        }
        line.push_str(word);
        used += word.width();
    }
    Ok(writeln!(out, "{}", line.trim_end())?)
}

/// A chart's numbers as a table.
fn numbers(chart: &Chart, out: &mut impl Write) -> Result<(), ReportError> {
    let unit = if chart.unit.is_empty() { String::new() } else { format!(" ({})", chart.unit) };
    writeln!(out, "{}", clean::line(&format!("{}{unit}", chart.title)))?;
    let names = chart.series.iter().map(|series| clean::line(&series.name).to_uppercase());
    let mut rows: Vec<Vec<String>> = vec![std::iter::once(String::new()).chain(names).collect()];
    let clean = |row: Vec<String>| row.iter().map(|cell| clean::line(cell).into_owned()).collect();
    rows.extend(chart.rows().into_iter().map(clean));
    let widths: Vec<usize> = (0..=chart.series.len())
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
        })
        .collect();
    for row in rows {
        let mut line = String::from("  ");
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let space = " ".repeat(width - cell.width());
            // The label is on the left, numbers are on the right of their column.
            line.push_str(&if column == 0 { format!("{cell}{space}") } else { format!("   {space}{cell}") });
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn written(report: &Report, style: Style) -> String {
        let mut out = String::new();
        text(report, style, &mut out).unwrap();
        out
    }

    #[test]
    fn an_example_is_pinned() {
        insta::assert_snapshot!(written(&sample::report(), Style { width: Some(110), ..Style::default() }));
    }

    #[test]
    fn ok_is_listed_when_asked_for() {
        let report = sample::report();
        let ok = |text: &str| text.lines().any(|line| line.starts_with("ok "));
        assert!(!ok(&written(&report, Style::default())));
        assert!(ok(&written(&report, Style { all: true, ..Style::default() })));
    }

    #[test]
    fn only_what_is_asked_for_is_coloured() {
        let report = sample::report();
        assert!(!written(&report, Style { all: true, ..Style::default() }).contains('\x1b'));
        let coloured = written(&report, Style { all: true, colour: true, width: None });
        assert!(coloured.contains("\x1b[1;31mproblem\x1b[0m"));
        let plain = coloured
            .split('\x1b')
            .enumerate()
            .map(|(index, part)| if index == 0 { part } else { part.split_once('m').unwrap().1 });
        assert_eq!(plain.collect::<String>(), written(&report, Style { all: true, ..Style::default() }));
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        let text = written(&sample::hostile(), Style { all: true, ..Style::default() });
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()));
        assert!(!text.contains('\u{202e}'));
    }

    #[test]
    fn columns_are_aligned_by_what_is_seen() {
        let text = written(&sample::hostile(), Style { all: true, ..Style::default() });
        let rows = text.lines().filter(|line| line.contains("wide "));
        let columns: Vec<usize> = rows.map(|line| line[..line.find("wide ").unwrap()].width()).collect();
        assert!(columns.len() == 2 && columns[0] == columns[1], "{columns:?}\n{text}");
    }

    #[test]
    fn lines_are_wrapped_and_words_are_not() {
        let mut out = String::new();
        let style = Style { width: Some(29), ..Style::default() };
        wrapped("ab ", "one two three four five six https://example.org/long/and/longer", style, &mut out)
            .unwrap();
        assert_eq!(out, "ab one two three four five\n   six\n   https://example.org/long/and/longer\n");
    }

    #[test]
    fn nothing_is_a_report_too() {
        insta::assert_snapshot!(written(&sample::empty(), Style::default()), @r"
        Nothing to check

        no findings
        ");
    }
}
