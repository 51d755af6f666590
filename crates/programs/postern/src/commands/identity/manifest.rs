//! `postern identity manifest`.

use super::provider;
use crate::cli::Format;
use crate::cli::identity::{Manifest as Args, Way, Workload as WorkloadArgs};
use crate::commands::Context;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_config::providers::Provider;
use postern_identity::atomic_file;
use postern_identity::workload::{self, Kind, Workload, WorkloadError};
use postern_ops::names;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

pub(in crate::commands) fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let (kind, args) = match args {
        Args::Cronjob { schedule, time_zone, workload } => (Kind::CronJob { schedule, time_zone }, workload),
        Args::Job { workload } => (Kind::Job, workload),
        Args::Deployment { replicas, workload } => (Kind::Deployment { replicas }, workload),
    };
    let WorkloadArgs {
        name,
        image,
        namespace,
        service_account,
        providers: named,
        way,
        postern_image,
        command,
    } = args;
    for (key, value) in [("NAME", &name), ("--namespace", &namespace)] {
        postern_ops::settings::dns_name(key, value, 52)?;
    }
    let mut providers = BTreeMap::new();
    if named.is_empty() {
        // Says it when there is none.
        provider(context, context.config.providers.keys().next().map(String::as_str))?;
        providers = context.config.providers.clone();
    }
    for one in &named {
        let (name, found) = provider(context, Some(one))?;
        providers.insert(name.to_owned(), found.clone());
    }
    let postern_image = postern_image.unwrap_or_else(|| {
        let reference = names::default_image(names::PROGRAM_REPOSITORY, env!("CARGO_PKG_VERSION"));
        match &context.config.image_mirror {
            Some(mirror) => names::mirrored(&reference, mirror),
            None => reference,
        }
    });
    let authorities = authorities(&providers)?;
    let workload = Workload {
        kind,
        name: &name,
        namespace: &namespace,
        service_account: service_account.as_deref().unwrap_or(&name),
        image: &image,
        postern_image: &postern_image,
        way: match way {
            Way::Sidecar => workload::Way::Sidecar,
            Way::Exec => workload::Way::Exec,
        },
        command: &command,
        providers: &providers,
        authorities: &authorities,
    };
    let made = workload::manifests(&workload).map_err(|error| {
        let hint = match &error {
            WorkloadError::Audience(_) => Some("name it: subject_token: {type: kubernetes_sa, audience: …}"),
            WorkloadError::NoApi(_) => Some("give it api: {base_url: …}, or use --way exec"),
            WorkloadError::NoCommand => Some("give it after --, or use --way sidecar"),
            WorkloadError::Person { .. } | WorkloadError::Source { .. } => {
                Some("leave it out with --provider")
            }
        };
        Failure::usage(error.to_string(), hint.map(str::to_owned))
    })?;
    if printer.format() == Format::Json {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": made});
        printer.result(&list, String::new);
    } else {
        let documents = made.iter().map(|one| serde_saphyr::to_string(one).unwrap_or_default());
        printer.raw(&documents.collect::<Vec<_>>().join("---\n"));
    }
    Ok(0)
}

/// The contents of the providers' `ca_file`s, because pods do not have these files.
fn authorities(providers: &BTreeMap<String, Provider>) -> Result<BTreeMap<PathBuf, String>, Failure> {
    let mut found = BTreeMap::new();
    for (name, provider) in providers {
        let of_api = provider.api.as_ref().and_then(|api| api.ca_file.as_ref());
        for (key, path) in [("ca_file", provider.ca_file.as_ref()), ("api.ca_file", of_api)] {
            let Some(path) = path else { continue };
            let read = std::fs::read_to_string(path).map_err(|error| error.to_string());
            let pem = read.and_then(|pem| postern_net::tls::certificates(pem.as_bytes()).map(|_| pem));
            let pem = pem.map_err(|why| {
                let message = format!("providers.{name}.{key}: {}: {why}", path.display());
                Failure::usage(message, Some("the certificates go into the ConfigMap".to_owned()))
            })?;
            found.insert(path.clone(), pem);
        }
    }
    Ok(found)
}

/// Copies this program for another container of the pod.
pub(in crate::commands) fn install(to: &Path) -> Result<u8, Failure> {
    let copied = || -> io::Result<()> {
        let mut from = std::fs::File::open("/proc/self/exe")?;
        atomic_file::replace(to, 0o755, |file| io::copy(&mut from, file).map(|_| ()))
    };
    copied().map(|()| 0).map_err(|error| {
        let mut failure = Failure::denied(&error, Some("the directory must be writable".to_owned()));
        failure.message = format!("installing to {}: {}", to.display(), failure.message);
        failure
    })
}
