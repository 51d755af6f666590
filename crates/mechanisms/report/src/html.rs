//! The report as one HTML page that needs no network.
//!
//! The template is compiled by askama: a wrong name in it does not compile, every value is escaped unless the
//! template says otherwise, and no template engine is in the program. The page's policy allows no request at all and
//! only the one script and the one style sheet whose hashes it names. So a finding that held markup would not run even
//! if escaping failed.

use crate::chart::{Chart, number};
use crate::clean::{line, lines, web_url};
use crate::error::ReportError;
use crate::finding::{Evidence, Finding};
use crate::report::{Report, utc};
use crate::severity::Severity;
use crate::svg;
use askama::Template;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fmt::Write;

const STYLE: &str = include_str!("../templates/report.css");
const SCRIPT: &str = include_str!("../templates/report.js");
/// The hashes of both, as a Content-Security-Policy names them. A test computes them.
const STYLE_HASH: &str = "sha256-ZM43MLj869KigMBkHNfxoSep2Q91HQeDBC4TCDTKEeM=";
const SCRIPT_HASH: &str = "sha256-gkNJjzMPG1zDM7vsUXJEt+C2M810simhbLhHWKWlpMY=";

/// Evidence longer than this is closed at first, also that of a problem.
const SHORT: usize = 600;

/// Writes the report as an HTML page.
pub fn html(report: &Report, out: &mut impl Write) -> Result<(), ReportError> {
    let page = Page::of(report);
    page.render_into(out).map_err(|error| ReportError::Html(error.to_string()))?;
    Ok(writeln!(out)?)
}

/// What the template shows. All text in it is [`line`] or [`lines`].
#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    style: &'static str,
    script: &'static str,
    style_hash: &'static str,
    script_hash: &'static str,
    title: String,
    tool: String,
    command: Option<String>,
    context: Option<String>,
    /// When it began, or else when it was done: for programs, and for people.
    checked: (String, String),
    took: Option<String>,
    summary: String,
    counts: Vec<Tally>,
    namespaces: BTreeSet<String>,
    rule_ids: BTreeSet<String>,
    rows: Vec<Row>,
    charts: Vec<Figure>,
    rules: Vec<RuleRow>,
    notes: Vec<String>,
}

/// A severity and how often it is there.
struct Tally {
    severity: Severity,
    count: usize,
    /// Its name, in the plural where there is one.
    word: String,
}

/// A finding.
struct Row {
    severity: Severity,
    rank: usize,
    rule: String,
    namespace: String,
    kind: String,
    name: String,
    context: Option<String>,
    places: Vec<String>,
    message: Vec<Part>,
    /// What rows are sorted by: the beginning of the message.
    message_key: String,
    evidence: Vec<Shown>,
    open: bool,
    fix: Option<Vec<Part>>,
    reference: Option<Link>,
}

/// A part of a text: what is between backticks is code.
#[derive(Debug, PartialEq)]
struct Part {
    code: bool,
    text: String,
}

/// Evidence.
struct Shown {
    command: bool,
    text: String,
}

/// Text that is a link if a browser may open it.
struct Link {
    text: String,
    url: Option<String>,
}

/// A chart.
struct Figure {
    id: String,
    title: String,
    svg: Option<String>,
    series: Vec<(String, String)>,
    rows: Vec<Vec<String>>,
}

/// A rule that is described.
struct RuleRow {
    id: String,
    description: String,
    help: Option<Link>,
    findings: usize,
}

impl Page {
    fn of(report: &Report) -> Self {
        let Report { tool, title, command, started_at, generated_at, findings, rules, charts, notes } =
            report;
        let counts = report.counts();
        let context = report.only_context();
        let rows: Vec<Row> = findings.iter().map(|finding| Row::of(finding, context.is_none())).collect();
        let of_rule = |id: &str| findings.iter().filter(|finding| finding.rule == id).count();
        Self {
            style: STYLE,
            script: SCRIPT,
            style_hash: STYLE_HASH,
            script_hash: SCRIPT_HASH,
            title: line(title).into_owned(),
            tool: line(&format!("{} {}", tool.name, tool.version)).into_owned(),
            command: command.as_deref().map(|command| line(command).into_owned()),
            context: context.map(|context| line(context).into_owned()),
            checked: time(started_at.unwrap_or(*generated_at)),
            took: started_at.map(|start| took(start, *generated_at)),
            summary: report.summary(),
            counts: Severity::ALL.map(|severity| Tally::of(severity, counts.of(severity))).into(),
            namespaces: rows.iter().map(|row| row.namespace.clone()).filter(|it| !it.is_empty()).collect(),
            rule_ids: rows.iter().map(|row| row.rule.clone()).collect(),
            rows,
            charts: charts.iter().enumerate().map(|(index, chart)| Figure::of(index, chart)).collect(),
            rules: rules
                .iter()
                .map(|(id, rule)| RuleRow {
                    id: line(id).into_owned(),
                    description: line(&rule.description).into_owned(),
                    help: rule.help_url.as_deref().map(Link::of),
                    findings: of_rule(id),
                })
                .collect(),
            notes: notes.iter().map(|note| lines(note)).collect(),
        }
    }
}

/// A time for programs and for people.
fn time(at: Timestamp) -> (String, String) {
    (utc(at), at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// How long it took: below a minute, in seconds.
fn took(start: Timestamp, end: Timestamp) -> String {
    let seconds = end.duration_since(start).as_secs_f64().max(0.0);
    let whole = end.duration_since(start).as_secs().max(0);
    if whole < 60 {
        format!("{} s", number((seconds * 10.0).round() / 10.0))
    } else {
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

/// Splits a text at pairs of backticks. One without a partner is text.
fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, code, after)) = rest
        .split_once('`')
        .and_then(|(before, rest)| rest.split_once('`').map(|(code, after)| (before, code, after)))
    {
        parts.push(Part { code: false, text: before.to_owned() });
        parts.push(Part { code: true, text: code.to_owned() });
        rest = after;
    }
    parts.push(Part { code: false, text: rest.to_owned() });
    parts.retain(|part| !part.text.is_empty());
    parts
}

impl Tally {
    fn of(severity: Severity, count: usize) -> Self {
        let counted = severity.counted(count);
        Self { severity, count, word: counted.split_once(' ').map_or("", |(_, word)| word).to_owned() }
    }
}

impl Row {
    fn of(finding: &Finding, with_context: bool) -> Self {
        let Finding { rule, severity, subject, place: _, message, evidence, fix, reference } = finding;
        let position = match subject {
            crate::Subject::File(_) => line(&finding.target(with_context)).into_owned(),
            crate::Subject::Object(_) | crate::Subject::Named(_) => line(subject.name()).into_owned(),
        };
        let evidence: Vec<Shown> = evidence.iter().map(Shown::of).collect();
        let length: usize = evidence.iter().map(|shown| shown.text.len()).sum();
        Self {
            severity: *severity,
            rank: Severity::ALL.iter().position(|known| known == severity).unwrap_or_default(),
            rule: line(rule).into_owned(),
            namespace: line(subject.namespace().unwrap_or_default()).into_owned(),
            kind: line(subject.kind()).into_owned(),
            name: position,
            context: subject.context().filter(|_| with_context).map(|context| line(context).into_owned()),
            places: finding.whereabouts().iter().map(|(_, place)| line(place).into_owned()).collect(),
            message_key: line(&message.chars().take(60).collect::<String>()).into_owned(),
            message: parts(&lines(message)),
            evidence,
            open: *severity == Severity::Problem && length <= SHORT,
            fix: fix.as_deref().map(|fix| parts(&lines(fix))),
            reference: reference.as_deref().map(Link::of),
        }
    }
}

impl Shown {
    fn of(evidence: &Evidence) -> Self {
        match evidence {
            Evidence::Text(text) => Self { command: false, text: lines(text) },
            Evidence::Command(command) => Self { command: true, text: line(command).into_owned() },
        }
    }
}

impl Link {
    fn of(text: &str) -> Self {
        Self { text: line(text).into_owned(), url: web_url(text).map(str::to_owned) }
    }
}

impl Figure {
    fn of(index: usize, chart: &Chart) -> Self {
        let id = format!("chart-{index}");
        let title = if chart.title.trim().is_empty() { "Chart".into() } else { line(&chart.title) };
        let unit = line(&chart.unit);
        Self {
            svg: svg::draw(chart, &id),
            id,
            title: if unit.is_empty() { title.into_owned() } else { format!("{title} ({unit})") },
            series: (chart.series.iter().enumerate())
                .map(|(index, series)| (svg::class(index), line(&series.name).into_owned()))
                .collect(),
            rows: chart
                .rows()
                .into_iter()
                .map(|row| row.iter().map(|cell| line(cell).into_owned()).collect())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use base64::Engine as _;

    fn page(report: &Report) -> String {
        let mut out = String::new();
        html(report, &mut out).unwrap();
        out
    }

    #[test]
    fn the_policy_names_the_script_and_the_style_sheet() {
        for (text, hash, name) in [(STYLE, STYLE_HASH, "STYLE_HASH"), (SCRIPT, SCRIPT_HASH, "SCRIPT_HASH")] {
            let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            let digest = base64::engine::general_purpose::STANDARD.encode(digest);
            assert_eq!(hash, format!("sha256-{digest}"), "set {name} to the value on the right");
        }
    }

    #[test]
    fn nothing_is_requested() {
        for report in [sample::report(), sample::hostile(), sample::empty()] {
            let page = page(&report);
            assert!(page.contains("default-src 'none'"));
            for word in [" src=", "@import", "url(", "<link", "<iframe", "<object", "<img", "<base", "fetch("]
            {
                assert!(!tags(&page).contains(word), "{word}");
            }
        }
    }

    /// The tags of the page, without text and without the values of attributes.
    fn tags(page: &str) -> String {
        let tags = page.split('<').filter_map(|part| part.split_once('>'));
        let bare = |tag: &str| tag.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
        tags.flat_map(|(tag, _)| ["<".to_owned(), bare(tag), ">".to_owned()]).collect()
    }

    #[test]
    fn hostile_text_stays_text() {
        let page = page(&sample::hostile());
        assert_eq!(page.matches("<script").count(), 1);
        assert_eq!(page.matches("</script").count(), 1);
        let tags = tags(&page);
        for word in ["onerror", "onmouseover", "<img", "<x", "style="] {
            assert!(!tags.contains(word), "{word}");
        }
        let targets = page.split(" href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        assert!(targets.clone().count() > 0);
        for target in targets {
            assert!(target.starts_with('#') || target.starts_with("https://"), "{target}");
        }
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
        assert!(!page.contains('\u{202e}') && page.contains("\\u{202e}gnp.exe"));
    }

    #[test]
    fn every_finding_is_in_the_page() {
        for report in [sample::report(), sample::hostile(), sample::large(100)] {
            assert_eq!(page(&report).matches("<tr data-severity=").count(), report.findings.len());
        }
    }

    #[test]
    fn code_is_between_two_backticks() {
        let shown = |text: &str| -> Vec<String> {
            parts(text)
                .iter()
                .map(|part| format!("{}{}", if part.code { "code " } else { "" }, part.text))
                .collect()
        };
        assert_eq!(shown("run `a b` or `c`"), ["run ", "code a b", " or ", "code c"]);
        assert_eq!(shown("one ` only"), ["one ` only"]);
        assert_eq!(shown("``x`"), ["x`"]);
        assert!(shown("").is_empty());
    }

    #[test]
    fn the_page_stays_small() {
        let empty = page(&sample::empty()).len();
        assert!(empty < 24 * 1024, "{empty}");
    }
}
