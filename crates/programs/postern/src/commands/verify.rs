//! `postern verify`.

mod probe;

use super::{Context, reports};
use crate::cli::verify::{Images, Source, Volumes};
use crate::failure::Failure;
use crate::printer::Printer;
use jiff::Timestamp;
use postern_manifest::{Input, Limits, ReadOptions};
use postern_ops::install::Reporter as _;
use postern_report::Report;
use postern_verify::manifests::{self, InvalidManifest, Manifests};
use postern_verify::pull::{self, Access};
use postern_verify::{images, observe, volumes};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `postern verify images`.
pub(super) async fn images(context: &Context, args: Images, printer: &mut Printer) -> Result<u8, Failure> {
    let Images { source, offline, plain_http, ca_file, reporting } = args;
    let authorities = ca_file.iter().map(read_file).collect::<Result<_, _>>()?;
    let access = Access { plain: plain_http, authorities };
    let (pods, credentials) = if source.filename.is_empty() {
        let cluster = context.cluster().await?;
        printer.progress("reading the cluster");
        let namespace = source.namespace.as_deref();
        (observe::pods(&cluster, namespace, false).await?, observe::credentials(&cluster, namespace).await?)
    } else {
        let Manifests { pods, storage: _, credentials } = read(&source)?;
        (pods, credentials)
    };
    let answers = if offline {
        BTreeMap::new()
    } else {
        let requests = images::requests(&pods, &credentials);
        printer.progress(&format!("asking registries for {} images", requests.len()));
        pull::ask(&requests, &access).await
    };
    let mut report = report("Images", &source);
    report.rule(images::SECRET, "Pull Secrets that are named exist and can be read.", None);
    report.rule(images::EXPIRED, "Credentials for registries have not expired.", None);
    report.rule(images::PULL, "The registry gives the image for the credential.", None);
    report.rule(images::UNUSED, "Each pull Secret is named by a Pod or a ServiceAccount.", None);
    report.findings = images::judge(&pods, &credentials, &answers, Timestamp::now().as_second());
    if offline {
        report.notes.push("no registry was asked (--offline)".to_owned());
    }
    report.sort();
    reports::print(&report, &reporting, printer)
}

/// `postern verify volumes`.
pub(super) async fn volumes(context: &Context, args: Volumes, printer: &mut Printer) -> Result<u8, Failure> {
    let Volumes { source, probe, reporting } = args;
    let (pods, storage) = if source.filename.is_empty() {
        let cluster = context.cluster().await?;
        printer.progress("reading the cluster");
        let namespace = source.namespace.as_deref();
        let pods = observe::pods(&cluster, namespace, probe).await?;
        let mut storage = observe::storage(&cluster, namespace).await?;
        if probe {
            printer.progress("looking at the directories");
            storage.owners = probe::look(&cluster, &pods).await;
        }
        (pods, storage)
    } else {
        let Manifests { pods, storage, credentials: _ } = read(&source)?;
        (pods, storage)
    };
    let mut report = report("Volumes", &source);
    report.rule(volumes::RULE, "Whoever writes a volume is permitted to.", None);
    report.findings = volumes::judge(&pods, &storage);
    report.sort();
    reports::print(&report, &reporting, printer)
}

fn report(what: &str, source: &Source) -> Report {
    let files: Vec<_> = source.filename.iter().map(|path| path.display().to_string()).collect();
    reports::new(match (&source.namespace, files.as_slice()) {
        (_, files @ [_, ..]) => format!("{what} of {}", files.join(", ")),
        (Some(namespace), []) => format!("{what} of namespace {namespace}"),
        (None, []) => format!("{what} of the cluster"),
    })
}

fn read(source: &Source) -> Result<Manifests, Failure> {
    let Source { namespace, filename, recursive } = source;
    let inputs: Vec<_> = filename.iter().map(|file| Input::from(file.as_path())).collect();
    let options = ReadOptions { recursive: *recursive, limits: Limits::default() };
    let texts =
        postern_manifest::read(&inputs, &options, &mut std::io::stdin()).map_err(InvalidManifest::from)?;
    Ok(manifests::read(&texts, namespace.as_deref().unwrap_or("default"))?)
}

fn read_file(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| {
        let mut failure = Failure::denied(&error, None);
        failure.message = format!("reading {}: {}", path.display(), failure.message);
        failure
    })
}

impl From<InvalidManifest> for Failure {
    fn from(error: InvalidManifest) -> Self {
        Self::denied(&error, None)
    }
}
