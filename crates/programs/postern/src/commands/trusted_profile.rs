//! IBM Cloud's trust in the ops pod, from the config and the credentials.

use super::{Context, credentials};
use crate::cli::ops::TrustedProfile;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_identity::TrustError;
use postern_identity::ibm::{self, Ibm};
use postern_ops::identity::{self, Identity, Mode};
use postern_ops::{OpsPod, Settings};
use postern_secret::Secret;
use postern_secret::resolve::Resolved;

/// The IBM Cloud client, from the config.
fn ibm(context: &Context, pod: &OpsPod, key: Secret) -> Result<Ibm, Failure> {
    let postern_config::Ibm { cluster, region, iam_endpoint, containers_endpoint, api_endpoint } =
        context.config.ibm.clone();
    // Each ops pod has a profile of its own, and the profile has the workspace's name.
    let workspace = context.config.workspace.as_ref().map(|workspace| match *pod == OpsPod::default() {
        true => workspace.clone(),
        false => format!("{workspace}-{}-{}", pod.namespace(), pod.name()),
    });
    let settings =
        ibm::Settings { workspace, cluster, region, iam_endpoint, containers_endpoint, api_endpoint };
    Ok(Ibm::new(settings, key)?)
}

/// Obtains the trusted profile of `ops install --trusted-profile`, with the credentials that were found.
pub(super) async fn obtain(
    context: &Context,
    settings: &Settings,
    flag: Option<TrustedProfile>,
    dry_run: bool,
    printer: &mut Printer,
) -> Result<Option<Identity>, Failure> {
    let key = settings
        .credentials
        .iter()
        .find(|(credential, _)| credential.name == ibm::CREDENTIAL)
        .map(|(_, secret)| secret);
    let mode = match (flag, key) {
        (Some(TrustedProfile::Off), _) | (None, None) => Mode::Off,
        (Some(TrustedProfile::On), _) => Mode::On,
        (Some(TrustedProfile::Auto) | None, _) => Mode::Auto,
    };
    match (mode, key) {
        (Mode::Off, _) => Ok(None),
        (Mode::Auto, None) => {
            printer.verbose(&format!("no trusted profile: {} was not found", ibm::CREDENTIAL));
            Ok(None)
        }
        (Mode::On, None) => Err(Failure::usage(
            format!("--trusted-profile=on takes an IBM Cloud API key, and {} was not found", ibm::CREDENTIAL),
            Some(format!("export {}=…, or put it into the config or the keychain", ibm::CREDENTIAL)),
        )),
        (_, Some(key)) => {
            let provider = ibm(context, &settings.pod, key.clone())?;
            Ok(identity::obtain(mode, &settings.pod, &provider, dry_run, printer).await?)
        }
    }
}

/// The IBM Cloud client for deleting a profile; the inner error says why there is none.
pub(super) fn provider(
    context: &Context,
    pod: &OpsPod,
    printer: &mut Printer,
) -> Result<Result<Ibm, String>, Failure> {
    let found = credentials::from_flags(context, &[], printer)?;
    match found.into_iter().next() {
        Some(Resolved { credential: _, secret, from: _ }) => ibm(context, pod, secret).map(Ok),
        None => Ok(Err(format!("{} was not found", ibm::CREDENTIAL))),
    }
}

/// An error of `ops uninstall`, with hints that fit it: it has no `--trusted-profile`.
pub(super) fn taking_away(error: &TrustError) -> Failure {
    let hint = match error {
        TrustError::NotRegistered(_) => "set `workspace` in the config: the profile goes by its name",
        TrustError::LookUp { .. } => "check `ibm.cluster` in the config and the API key",
        TrustError::Permission { .. } => "ask for the Operator role on the IAM Identity service",
        TrustError::Call { .. } => "run it again",
    };
    Failure::denied(error, Some(hint.to_owned()))
}
