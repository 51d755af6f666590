//! The table of a bench run, and docs/benchmarks.md.

use std::fs;
use std::path::Path;

/// One line of the table.
pub(super) struct Row {
    pub(super) what: String,
    pub(super) kubectl: String,
    pub(super) postern: String,
    pub(super) ratio: String,
    pub(super) target: String,
    pub(super) met: Option<bool>,
}

/// What is wanted of a number.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    AtMost(f64),
    AtLeast(f64),
    /// Told for information.
    Nothing,
}

impl Wanted {
    pub(super) fn met(self, value: f64) -> Option<bool> {
        match self {
            Self::AtMost(limit) => Some(value <= limit),
            Self::AtLeast(limit) => Some(value >= limit),
            Self::Nothing => None,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit}{unit}"),
            Self::AtLeast(limit) => format!("≥ {limit}{unit}"),
            Self::Nothing => "–".to_owned(),
        }
    }
}

impl Row {
    /// The same against another peer than kubectl, whose values go where kubectl's stand.
    pub(super) fn against(
        peer: &str,
        what: &str,
        unit: &str,
        values: (f64, f64),
        ratio: f64,
        wanted: Wanted,
    ) -> Self {
        let row = Self::paired(&format!("{what}, against {peer}"), unit, values, ratio, wanted);
        Self { target: wanted.text(&format!(" of {peer}'s")), ..row }
    }

    /// Two medians and the median of the pairs' ratios, which is what the target is about.
    pub(super) fn paired(
        what: &str,
        unit: &str,
        (kubectl, postern): (f64, f64),
        ratio: f64,
        wanted: Wanted,
    ) -> Self {
        Self {
            what: what.to_owned(),
            kubectl: number(kubectl, unit),
            postern: number(postern, unit),
            ratio: format!("{ratio:.2}"),
            target: wanted.text(" of kubectl's"),
            met: wanted.met(ratio),
        }
    }

    /// A figure of postern's alone.
    pub(super) fn alone(what: &str, unit: &str, value: f64, wanted: Wanted) -> Self {
        Self {
            what: what.to_owned(),
            kubectl: "–".to_owned(),
            postern: number(value, unit),
            ratio: "–".to_owned(),
            target: wanted.text(&format!(" {unit}")),
            met: wanted.met(value),
        }
    }

    fn cells(&self) -> [&str; 6] {
        let met = match self.met {
            Some(true) => "met",
            Some(false) => "not met",
            None => "–",
        };
        [&self.what, &self.kubectl, &self.postern, &self.ratio, &self.target, met]
    }
}

fn number(value: f64, unit: &str) -> String {
    if value >= 100.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// The table as Markdown, aligned so that it also reads in a terminal.
pub(super) fn table(rows: &[Row]) -> String {
    let head = ["what", "peer", "postern", "ratio", "target", ""];
    let lines: Vec<[&str; 6]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!(" {cell:width$} |"));
        text.push_str(&format!("|{}\n", cells.collect::<String>()));
        if index == 0 {
            text.push_str(&format!("|{}\n", widths.map(|w| format!("{}|", "-".repeat(w + 2))).concat()));
        }
    }
    text
}

/// The machine in one line.
pub(super) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores ({model}), {} GiB of memory, Linux {}", (kib + (1 << 19)) >> 20, release(&kernel))
}

/// The kernel's version without what its builder put after it.
fn release(text: &str) -> &str {
    text.trim().split('-').next().unwrap_or_default()
}

/// How busy the machine was of late: its load averages over 1, 5 and 15 minutes.
pub(super) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(", ")
}

const HEAD: &str = "# Benchmarks

Written by `cargo xtask bench`; do not edit. These are figures of one machine at one time, not a test.
";

/// Writes a section of the document; the others stay.
pub(super) fn write(file: &Path, title: &str, text: &str) -> anyhow::Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    let before = fs::read_to_string(file).unwrap_or_default();
    Ok(fs::write(file, with_section(&before, title, text))?)
}

/// The document with this section in its place, or at its end.
fn with_section(document: &str, title: &str, text: &str) -> String {
    const MARK: &str = "\n## ";
    let ours = format!("{title}\n\n{}", text.trim_end());
    let mut sections: Vec<String> =
        document.split(MARK).skip(1).map(|section| section.trim_end().to_owned()).collect();
    match sections.iter_mut().find(|section| section.lines().next() == Some(title)) {
        Some(section) => *section = ours,
        None => sections.push(ours),
    }
    sections.iter().fold(HEAD.to_owned(), |document, section| format!("{document}{MARK}{section}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_others_stay() {
        let one = with_section("# Old head, no sections", "A", "first\n");
        assert_eq!(one, format!("{HEAD}\n## A\n\nfirst\n"));
        let two = with_section(&one, "B", "second");
        let three = with_section(&two, "A", "third");
        assert_eq!(three, format!("{HEAD}\n## A\n\nthird\n\n## B\n\nsecond\n"));
        assert_eq!(with_section(&three, "B", "second"), three);
    }

    #[test]
    fn a_row_says_whether_its_target_is_met() {
        let row = Row::paired("true", "ms", (160.0, 72.04), 0.449, Wanted::AtMost(0.45));
        assert_eq!(row.cells(), ["true", "160 ms", "72.0 ms", "0.45", "≤ 0.45 of kubectl's", "met"]);
        let row = Row::alone("size", "MiB", 21.0, Wanted::AtMost(20.0));
        assert_eq!(row.cells(), ["size", "–", "21.0 MiB", "–", "≤ 20 MiB", "not met"]);
        assert_eq!(Wanted::AtLeast(0.95).met(0.96), Some(true));
    }
}
