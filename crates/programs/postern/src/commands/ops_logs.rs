//! `postern ops logs`.

use super::Context;
use crate::cli::Format;
use crate::cli::ops::Logs as Args;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_kube::kube::api::LogParams;
use postern_kube::pods;
use postern_ops::names;
use serde_json::Value;

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args { pod, tail, since } = args;
    let pod = context.ops_pod(pod)?;
    let cluster = context.cluster().await?;
    let params = LogParams {
        container: Some(names::CONTAINER.to_owned()),
        tail_lines: tail,
        since_seconds: since.map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1)),
        ..LogParams::default()
    };
    let log = pods::log(&cluster, pod.namespace(), pod.name(), &params).await?;
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if printer.format() == Format::Text {
        lines.iter().for_each(|line| printer.line(&text(line)));
    } else {
        printer.result(&lines, String::new);
    }
    Ok(0)
}

/// One line: time, user, outcome, exit code, duration, bytes, command.
fn text(line: &Value) -> String {
    let field = |name: &str| match line.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    if field("event") != "run" {
        return format!("{} {} {}", field("time"), field("event"), field("agentVersion"));
    }
    let argv: Vec<_> = line.get("argv").and_then(Value::as_array).into_iter().flatten().map(quoted).collect();
    format!(
        "{} {} {} {} {} ms {}+{} bytes: {}",
        field("time"),
        field("claimedUser"),
        field("outcome"),
        field("code"),
        field("durationMs"),
        field("stdoutBytes"),
        field("stderrBytes"),
        argv.join(" ")
    )
}

/// An argument quoted for a shell.
fn quoted(argument: &Value) -> String {
    let text = argument.as_str().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
