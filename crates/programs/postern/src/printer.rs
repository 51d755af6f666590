//! The only place that writes to stdout and stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the only file that prints")]

use crate::cli::Format;
use crate::failure::Failure;
use postern_exec::fanout::{Colours, Tally};
use postern_identity::exchange::{Listener, Notice};
use postern_kube::apply::{Change, ObjectRef};
use postern_ops::install::Reporter;
use postern_report::{Evidence, Finding};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;

/// Results go to stdout, everything else to stderr.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    colour: bool,
    progress: bool,
    verbose: u8,
    in_progress: bool,
    /// The error of writing a result.
    lost: Option<io::Error>,
}

impl Printer {
    pub(crate) fn new(format: Format, verbose: u8) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            format,
            colour: io::stdout().is_terminal() && !plain,
            progress: io::stderr().is_terminal() && !plain,
            verbose,
            in_progress: false,
            lost: None,
        }
    }

    /// Whether stderr is a terminal that can show a progress line.
    pub(crate) fn shows_progress(&self) -> bool {
        self.progress
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Prints a result in the format of `-o`.
    pub(crate) fn result(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) {
        self.clear();
        let out = match self.format {
            Format::Text => text(),
            Format::Json => serde_json::to_string_pretty(value).unwrap_or_default() + "\n",
            Format::Yaml => yaml(value),
        };
        self.raw(&out);
    }

    /// Prints text without formatting.
    pub(crate) fn raw(&mut self, text: &str) {
        self.clear();
        // As a file: the library's own stdout takes one that is closed for one that takes everything.
        let out = io::stdout().as_fd().try_clone_to_owned().map(std::fs::File::from);
        let written = out.and_then(|mut out| out.write_all(text.as_bytes()));
        self.lost = self.lost.take().or(written.err());
    }

    /// Takes the error of writing results.
    pub(crate) fn lost(&mut self) -> Option<io::Error> {
        self.lost.take()
    }

    /// Prints a line of a text result; the other formats print everything at the end.
    pub(crate) fn line(&mut self, line: &str) {
        if self.format == Format::Text {
            self.raw(&format!("{}\n", clean(line)));
        }
    }

    /// Prints a note to stderr, in any format.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        eprintln!("{}", clean(text));
    }

    /// Prints a note to stderr with `-v`.
    pub(crate) fn verbose(&mut self, text: &str) {
        if self.verbose > 0 {
            self.note(&format!("postern: {text}"));
        }
    }

    /// Clears the progress line.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.in_progress) {
            eprint!("\r\x1b[K");
        }
    }

    /// Prints how a run ended, in JSON or YAML. It goes to stderr, because stdout has the tool's output.
    pub(crate) fn run_report(&mut self, value: &impl Serialize) {
        match self.format {
            Format::Text => {}
            Format::Json => eprintln!("{}", serde_json::to_string(value).unwrap_or_default()),
            Format::Yaml => eprint!("{}", yaml(value)),
        }
    }

    /// Prints the summary of a fan-out, after the output of its targets.
    pub(crate) fn summary(&mut self, tally: &Tally) {
        self.clear();
        let Tally { targets, ok, failed, exit_codes, not_reached, cancelled, named, exit_code } = tally;
        let named: Vec<_> =
            named.iter().map(|(name, how)| serde_json::json!({"target": name, "end": how})).collect();
        let value = serde_json::json!({"summary": {
            "targets": targets, "ok": ok, "failed": failed, "exitCodes": exit_codes,
            "notReached": not_reached, "cancelled": cancelled, "exitCode": exit_code, "firstFailed": named,
        }});
        match self.format {
            Format::Text => tally.lines().iter().for_each(|line| eprintln!("{}", clean(line))),
            Format::Json => eprintln!("{value}"),
            Format::Yaml => eprint!("{}", yaml(&value)),
        }
    }

    /// Which of stdout and stderr take colours.
    pub(crate) fn colours(&self) -> Colours {
        Colours { stdout: self.colour, stderr: self.progress }
    }

    /// Prints the error that ends the program.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        self.clear();
        let Failure { code, kind, message, causes, hint, diagnosis, pod, .. } = failure;
        if self.format != Format::Text {
            let cause = (!causes.is_empty()).then(|| causes.join(": "));
            let mut error = serde_json::json!({
                "kind": kind, "message": message, "cause": cause, "hint": hint,
                "exitCode": code, "diagnosis": diagnosis,
            });
            if let Some(pod) = pod {
                error["pod"] = (**pod).into();
            }
            let value = serde_json::json!({ "error": error });
            match self.format {
                Format::Yaml => eprint!("{}", yaml(&value)),
                _ => eprintln!("{value}"),
            }
            return;
        }
        eprintln!("{} {}", self.paint("error:", "1;31"), clean(message));
        for cause in causes {
            eprintln!("  because: {}", clean(cause));
        }
        if let Some(diagnosis) = diagnosis {
            let Finding { rule: _, severity: _, subject: _, place: _, message, evidence, fix, reference: _ } =
                &**diagnosis;
            for text in evidence {
                let (Evidence::Text(text) | Evidence::Command(text)) = text;
                for (number, line) in text.lines().enumerate() {
                    eprintln!("{}{}", if number == 0 { "  " } else { "    " }, clean(line));
                }
            }
            eprintln!("  likely cause: {}", clean(message));
            if let Some(fix) = fix {
                eprintln!("  {} {}", self.paint("fix:", "1"), clean(fix));
            }
        }
        if let Some(hint) = hint {
            eprintln!("{} {}", self.paint("hint:", "1"), clean(hint));
        }
    }

    fn paint(&self, text: &str, code: &str) -> String {
        if self.progress { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Reporter for Printer {
    fn changed(&mut self, change: Change, of: &ObjectRef, details: &[String]) {
        let tick = if self.colour { "\x1b[32m✓\x1b[0m" } else { "✓" };
        if self.format == Format::Text {
            self.raw(&format!("{tick} {change} {}\n", clean(&of.to_string())));
            for detail in details {
                self.raw(&format!("    {}\n", clean(detail)));
            }
        }
    }

    fn progress(&mut self, text: &str) {
        if self.progress {
            eprint!("\r\x1b[K→ {}", clean(text));
            let _ = io::stderr().flush();
            self.in_progress = true;
        } else if self.verbose > 0 {
            self.note(&format!("→ {text}"));
        }
    }

    fn receipt(&mut self, text: &str) {
        self.line(text);
    }

    fn warn(&mut self, text: &str) {
        self.clear();
        eprintln!("{} {}", self.paint("warning:", "1;33"), clean(text));
    }
}

/// Prints notices of credential providers. Control characters are escaped, because the text comes from them.
pub(crate) fn listener() -> Listener {
    Listener(Arc::new(|notice| {
        let line = match notice {
            Notice::Warning(text) => format!("warning: {}\n", clean(text)),
            Notice::Instruction(text) => format!("{}\n", clean(text)),
        };
        // A proxy outlives who read its log.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }))
}

/// One result of a stream: a line of JSON, or a YAML document.
pub(crate) fn record(format: Format, value: &impl Serialize) -> Vec<u8> {
    let text = match format {
        Format::Text | Format::Json => serde_json::to_string(value).unwrap_or_default() + "\n",
        Format::Yaml => format!("---\n{}", yaml(value)),
    };
    text.into_bytes()
}

pub(crate) fn yaml(value: &impl Serialize) -> String {
    // By way of JSON, so that both formats have the same fields.
    let value = serde_json::to_value(value).unwrap_or_default();
    serde_saphyr::to_string(&value).unwrap_or_default()
}

/// Escapes control characters in text from a cluster, so that it cannot control the terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' | '\t' => character.to_string(),
            control if control.is_control() => control.escape_default().to_string(),
            other => other.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes_from_a_cluster_are_shown_not_obeyed() {
        assert_eq!(super::clean("a\x1b[31mb\u{9b}c"), "a\\u{1b}[31mb\\u{9b}c");
    }
}
