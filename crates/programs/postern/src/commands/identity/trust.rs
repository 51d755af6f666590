//! `postern identity trust`.

use crate::cli::identity::{Subject, Trust as Args};
use crate::commands::Context;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_identity::issuer::{self, Documents};
use postern_identity::setup::{self, Document, Setup, Side};
use postern_ops::install::Reporter as _;

pub(in crate::commands) async fn run(
    context: &Context,
    args: Args,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let cluster = context.cluster().await?;
    let documents = issuer::of_cluster(&cluster).await.map_err(|error| Failure::denied(&error, None))?;
    let setup = setup(context, &args, &documents)?;
    printer.result(&setup, || text(&setup));
    setup.notes.iter().for_each(|note| printer.warn(note));
    Ok(0)
}

fn setup(context: &Context, args: &Args, cluster: &Documents) -> Result<Setup, Failure> {
    let side = |subject: &'_ Subject| -> (String, String, Option<String>) {
        let Subject { service_account: (namespace, name), audience } = subject;
        (namespace.clone(), name.clone(), audience.clone())
    };
    let (Args::Aws { subject, .. }
    | Args::Ibm { subject, .. }
    | Args::Gcp { subject, .. }
    | Args::Azure { subject, .. }
    | Args::Keycloak { subject, .. }
    | Args::Dex { subject, .. }) = args;
    let (namespace, name, audience) = side(subject);
    let side = Side { cluster, namespace: &namespace, name: &name, audience: audience.as_deref() };
    let label = format!("{namespace}-{name}");
    Ok(match args {
        Args::Aws { subject: _, account, role } => {
            setup::aws(&side, account, role.as_deref().unwrap_or(&label))
        }
        Args::Ibm { subject: _, cluster, openshift, profile } => {
            let crn = cluster.clone().or_else(|| context.config.ibm.cluster.clone()).ok_or_else(|| {
                Failure::usage(
                    "a link names the cluster by its CRN",
                    Some("give --cluster CRN, or set `ibm.cluster` in the config".to_owned()),
                )
            })?;
            setup::ibm(&side, &crn, *openshift, profile.as_deref().unwrap_or(&label))
        }
        Args::Gcp { subject: _, project_number, pool, provider, impersonate } => {
            setup::gcp(&side, project_number, pool, provider, impersonate.as_deref())
        }
        Args::Azure { subject: _, tenant, client } => setup::azure(&side, tenant, client),
        Args::Keycloak { subject: _, realm, client } => {
            setup::keycloak(&side, realm, client.as_deref().unwrap_or(&label))
        }
        Args::Dex { subject: _, issuer, connector, client } => {
            setup::dex(&side, issuer, connector, client.as_deref().unwrap_or(&label))
        }
    })
}

fn text(setup: &Setup) -> String {
    let Setup { provider, issuer, subject, audience, documents, commands, config, notes: _ } = setup;
    let mut text =
        format!("# {provider}: trust {subject}\n# of the issuer {issuer}, with tokens for {audience}\n");
    for Document { file, content } in documents {
        let content = serde_json::to_string_pretty(content).unwrap_or_default();
        text.push_str(&format!("\ncat > {file} <<'EOF'\n{content}\nEOF\n"));
    }
    text.push('\n');
    commands.iter().for_each(|command| text.push_str(&format!("{command}\n")));
    text.push_str("\n# in postern's config, below `providers`:\n");
    let entry = serde_saphyr::to_string(&serde_json::json!({ *provider: config })).unwrap_or_default();
    entry.lines().for_each(|line| text.push_str(&format!("#   {line}\n")));
    text
}
