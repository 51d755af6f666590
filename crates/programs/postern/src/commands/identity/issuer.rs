//! `postern identity issuer`.

use crate::cli::Reporting;
use crate::cli::identity::{Issuer as Args, Mirror};
use crate::commands::{Context, reports};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::signals;
use postern_identity::issuer::{self, Difference, Documents, IssuerError, Key};
use postern_ops::install::Reporter as _;
use serde_json::json;
use std::path::PathBuf;

pub(in crate::commands) async fn run(
    context: &Context,
    args: Args,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let cluster = context.cluster().await?;
    let documents = issuer::of_cluster(&cluster).await.map_err(failure)?;
    match args {
        Args::Show => {
            show(&documents, printer);
            Ok(0)
        }
        Args::Mirror(args) => mirror(context, args, documents, printer).await,
        Args::Diff { at, ca_file, reporting } => {
            diff(&documents, at.as_deref(), ca_file.as_ref(), &reporting, printer).await
        }
    }
}

fn failure(error: IssuerError) -> Failure {
    match error {
        IssuerError::Cluster(error) => error.into(),
        other => Failure::denied(&other, None),
    }
}

fn line(Key { kid, alg, kty }: &Key) -> String {
    format!("{kid} ({})", if alg.is_empty() { kty } else { alg })
}

fn show(documents: &Documents, printer: &mut Printer) {
    let (keys, problem) = (documents.keys(), documents.unreachable_outside());
    let value = json!({
        "issuer": documents.issuer(), "jwksUri": documents.jwks_uri(), "keys": keys, "problem": problem,
        "discovery": documents.discovery, "jwks": documents.keys,
    });
    printer.result(&value, || {
        let mut text = format!("issuer    {}\nkeys at   {}\n", documents.issuer(), documents.jwks_uri());
        keys.iter().for_each(|key| text.push_str(&format!("key       {}\n", line(key))));
        text
    });
    if let Some(problem) = problem {
        printer.warn(&problem);
    }
}

async fn mirror(
    context: &Context,
    args: Mirror,
    first: Documents,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let Mirror { to, watch, interval, dry_run } = args;
    let mut stop = std::pin::pin!(signals::stop()?);
    let mut documents = first;
    let issuer = documents.issuer().to_owned();
    loop {
        let copy = documents.for_publishing();
        let changed = issuer::write(&copy, &to, dry_run).map_err(failure)?;
        let shown: Vec<_> = changed.iter().map(|path: &PathBuf| path.display().to_string()).collect();
        if !watch || !changed.is_empty() {
            let value = json!({"issuer": issuer, "changed": shown, "dryRun": dry_run});
            printer.result(&value, || match (shown.is_empty(), dry_run) {
                (true, _) => format!("unchanged: {}\n", to.display()),
                (false, true) => format!("would write {}\n", shown.join("\nwould write ")),
                (false, false) => format!("wrote {}\n", shown.join("\nwrote ")),
            });
        }
        if !watch {
            printer.note(&format!("serve {} at {issuer}", to.display()));
            return Ok(0);
        }
        documents = loop {
            tokio::select! {
                () = &mut stop => return Ok(0),
                () = tokio::time::sleep(interval) => {}
            }
            // A cluster that is away for a while has not changed its keys; what is published stays.
            match read(context).await {
                Ok(found) if found.issuer() == issuer => break found,
                Ok(found) => printer.warn(&format!(
                    "the cluster's issuer is now {}: the copy of {issuer} is left as it is",
                    found.issuer()
                )),
                Err(failure) => printer.warn(&failure.message),
            }
        };
    }
}

async fn read(context: &Context) -> Result<Documents, Failure> {
    let cluster = context.cluster().await?;
    issuer::of_cluster(&cluster).await.map_err(failure)
}

async fn diff(
    documents: &Documents,
    at: Option<&str>,
    ca_file: Option<&PathBuf>,
    reporting: &Reporting,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let published = issuer::published(documents.issuer(), at, ca_file).await.map_err(|error| {
        let hint = "publish a copy: `postern identity issuer mirror`; or name where it is with --at";
        let mut failure = failure(error);
        failure.hint = failure.hint.or_else(|| Some(hint.to_owned()));
        failure
    })?;
    let mut report = reports::new(format!("Published keys of {}", documents.issuer()));
    report.findings = Difference::between(documents, &published).findings(documents);
    reports::print(&report, reporting, printer)
}
