//! `postern identity status`.

use super::{exchanger, one_or_all};
use crate::cli::identity::Status as Args;
use crate::commands::Context;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_config::providers::{Cache, Provider};
use postern_identity::exchange::{Browser, Exchange as _};
use postern_identity::keeper::{Clock as _, Directory, SystemClock};
use postern_identity::source::{Source, SourceError};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// The state of one provider, from local data only.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    provider: String,
    r#type: &'static str,
    grant: Option<&'static str>,
    source: Option<String>,
    subject: Option<String>,
    audience: Vec<String>,
    /// The remaining lifetime of the subject token in seconds; negative if it has expired.
    source_expires_in: Option<i64>,
    source_error: Option<String>,
    cache: &'static str,
    /// The remaining lifetime of the cached token in seconds.
    token_expires_in: Option<u64>,
    token_renewal_in: Option<u64>,
    last_error: Option<String>,
}

pub(in crate::commands) fn run(context: &Context, args: &Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args { provider: named } = args;
    let rows: Vec<_> = one_or_all(context, named.as_deref())?
        .into_iter()
        .map(|(name, provider)| row(context, name, provider))
        .collect();
    printer.result(&rows, || rows.iter().map(text).collect::<Vec<_>>().join("\n"));
    Ok(0)
}

#[allow(clippy::cast_possible_truncation, reason = "seconds, for people; `as` saturates")]
fn row(context: &Context, name: &str, provider: &Provider) -> Row {
    let exchanger = exchanger(context, name, provider, Browser::Leave);
    let source = exchanger.source();
    let seen = source.as_ref().and_then(Source::look);
    let claims = seen.as_ref().and_then(|seen| seen.as_ref().ok()).and_then(|token| token.claims.clone());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let kept = match provider.cache() {
        Cache::Memory => None,
        Cache::Disk => Directory::of_user().zip(exchanger.identity().ok()),
    };
    let clock = SystemClock::new().now();
    let kept = kept.map(|(directory, identity)| directory.peek(&identity, clock));
    let (held, failed) = kept.unwrap_or_default();
    Row {
        provider: name.to_owned(),
        r#type: provider.r#type.name(),
        grant: provider.grant().map(postern_config::providers::Grant::name),
        source: source.map(|source| source.place()),
        subject: claims.as_ref().and_then(|claims| claims.sub.clone()),
        audience: claims.as_ref().map(|claims| claims.aud.clone()).unwrap_or_default(),
        source_expires_in: claims.and_then(|claims| claims.remaining(now)).map(|left| left as i64),
        source_error: seen.and_then(Result::err).map(|error: SourceError| error.to_string()),
        cache: match provider.cache() {
            Cache::Memory => "memory",
            Cache::Disk => "disk",
        },
        token_expires_in: held.as_ref().and_then(|held| held.ends_in(clock)).map(|left| left.as_secs()),
        token_renewal_in: held.as_ref().and_then(|held| held.renewal_in(clock)).map(|left| left.as_secs()),
        last_error: failed,
    }
}

fn text(row: &Row) -> String {
    let Row {
        provider,
        r#type,
        grant,
        source,
        subject,
        audience,
        source_expires_in,
        source_error,
        cache,
        token_expires_in,
        token_renewal_in,
        last_error,
    } = row;
    let grant = grant.map(|grant| format!(", {grant}")).unwrap_or_default();
    let mut text = format!("{provider} ({type}{grant})\n");
    let mut line = |key: &str, value: String| text.push_str(&format!("  {key:<10}{value}\n"));
    if let Some(source) = source {
        line("source", source.clone());
    }
    if let Some(subject) = subject {
        line("subject", subject.clone());
    }
    if !audience.is_empty() {
        line("audience", audience.join(", "));
    }
    match source_expires_in {
        Some(left) if *left > 0 => line("expires", format!("the subject token in {left} s")),
        Some(left) => line("expires", format!("the subject token {} s ago", -left)),
        None => {}
    }
    if let Some(error) = source_error {
        line("problem", error.clone());
    }
    let kept = match (token_expires_in, token_renewal_in) {
        (Some(0), _) => "on disk, has ended".to_owned(),
        (Some(left), Some(renewal)) => format!("on disk, ends in {left} s, renewed in {renewal} s"),
        _ if *cache == "memory" => "in each process's memory only (`cache: disk` shares it)".to_owned(),
        _ => "none".to_owned(),
    };
    line("token", kept);
    if let Some(error) = last_error {
        line("failed", error.clone());
    }
    text
}
