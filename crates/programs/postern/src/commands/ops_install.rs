//! `postern ops install`.

use super::{Context, credentials, trusted_profile};
use crate::cli::Format;
use crate::cli::ops::Install as Args;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_ops::install::{install, manifests};
use postern_ops::{Access, OpsPod, Settings};
use postern_secret::resolve::Resolved;
use std::time::Duration;

pub(super) async fn run(context: &Context, args: Args, printer: &mut Printer) -> Result<u8, Failure> {
    let Args {
        pod,
        image,
        image_pull_secret,
        credential,
        cluster_access,
        trusted_profile,
        stream,
        timeout,
        force,
        dry_run,
    } = args;
    let found = credentials::from_flags(context, &credential, printer)?;
    let mut settings = Settings {
        access: access(cluster_access)?,
        image_pull_secret: image_pull_secret.or_else(|| context.config.image_pull_secret.clone()),
        credentials: found
            .into_iter()
            .map(|Resolved { credential, secret, from: _ }| (credential, secret))
            .collect(),
        stream,
        timeout,
        force,
        ..defaults(context, context.ops_pod(pod)?, image.as_deref())
    };
    settings.validate()?;
    let identity = trusted_profile::obtain(context, &settings, trusted_profile, dry_run, printer).await?;
    settings.trust(identity);
    if dry_run && printer.format() != Format::Text {
        let manifests = manifests(&settings).map_err(|error| Failure::denied(&error, None))?;
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": manifests});
        printer.result(&list, String::new);
        return Ok(0);
    }
    let cluster = context.cluster().await?;
    let report = Box::pin(install(&cluster, &settings, dry_run, printer)).await?;
    printer.result(&report, || {
        if dry_run {
            "Nothing was changed (--dry-run).\n".to_owned()
        } else {
            let trusted =
                settings.identity.iter().map(|identity| format!("{} {}", identity.noun, identity.name));
            let keys = settings.credentials.iter().map(|(credential, _)| credential.name.clone());
            let held: Vec<String> = trusted.chain(keys).collect();
            let held = if held.is_empty() { "no static key".to_owned() } else { held.join(", ") };
            format!("✓ Pod {} is ready ({held})\n", settings.pod)
        }
    });
    Ok(0)
}

/// The settings without any flag except the image's.
pub(super) fn defaults(context: &Context, pod: OpsPod, image: Option<&str>) -> Settings {
    Settings {
        pod,
        image: context.image(image),
        image_pull_secret: context.config.image_pull_secret.clone(),
        access: Access::None,
        credentials: Vec::new(),
        identity: None,
        stream: false,
        timeout: Duration::from_secs(60),
        force: false,
    }
}

fn access(flags: Vec<String>) -> Result<Access, Failure> {
    match flags.as_slice() {
        [] => Ok(Access::None),
        [one] if one == "all" => Ok(Access::All),
        some if some.iter().any(|name| name == "all") => Err(Failure::usage(
            "--cluster-access all already holds every namespace",
            Some("name either".to_owned()),
        )),
        _ => Ok(Access::Namespaces(flags.into_iter().collect())),
    }
}
