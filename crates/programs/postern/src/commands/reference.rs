//! The command reference, generated from the command line's own definition.

use clap::{Arg, ArgAction, Command};
use std::fmt::Write as _;

/// Markdown of all commands that are not hidden.
pub(super) fn markdown(mut command: Command) -> String {
    command.build();
    let mut out =
        "# Command reference\n\nGenerated from the program (`cargo xtask docs`); do not edit.\n".to_owned();
    section(&mut out, &command, "");
    out
}

fn section(out: &mut String, command: &Command, parents: &str) {
    let name = format!("{parents}{}", command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about());
    let _ = write!(out, "\n## {name}\n\n{}\n", about.map(ToString::to_string).unwrap_or_default());
    let usage = command.clone().render_usage().to_string();
    let _ = write!(out, "\n```text\n{usage}\n```\n");
    let global = |argument: &&Arg| parents.is_empty() || !argument.is_global_set();
    let shown: Vec<_> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter(global)
        .filter(|argument| !matches!(argument.get_id().as_str(), "help" | "version"))
        .collect();
    if !shown.is_empty() {
        out.push_str("\n| argument | meaning |\n| --- | --- |\n");
    }
    for argument in shown {
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, "| `{}` | {} |", label(argument), help.replace('|', "\\|"));
    }
    if let Some(after) = command.get_after_help() {
        let _ = write!(out, "\n```text\n{after}\n```\n");
    }
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        section(out, sub, &format!("{name} "));
    }
}

fn label(argument: &Arg) -> String {
    let names: Vec<_> = argument
        .get_short()
        .map(|short| format!("-{short}"))
        .into_iter()
        .chain(argument.get_long().map(|long| format!("--{long}")))
        .collect();
    let takes = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
    let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    match (names.is_empty(), takes, value) {
        (true, _, value) => value.unwrap_or_else(|| argument.get_id().to_string()),
        (false, true, Some(value)) => format!("{} {value}", names.join(", ")),
        (false, ..) => names.join(", "),
    }
}
