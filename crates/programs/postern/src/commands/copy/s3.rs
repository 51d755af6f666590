//! The S3 client, from flags, a provider of the config, or the SDK's defaults.

use crate::cli::copy::How;
use crate::commands::{Context, identity};
use crate::failure::Failure;
use crate::printer::Printer;
use postern_identity::exchange::{Browser, Credential};
use postern_identity::keeper::{Clock as _, SystemClock};
use postern_ops::install::Reporter as _;
use postern_s3::{AskKeys, Keys, Settings};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub(super) fn settings(context: &Context, how: &How, printer: &mut Printer) -> Result<Settings, Failure> {
    if let Some(host) = in_the_clear(how) {
        printer.warn(&format!(
            "S3 at {host} is spoken to without TLS: files can be read and changed on their way"
        ));
    }
    let keys = match how.s3_identity.as_deref() {
        Some(name) => Some(keys(context, name)?),
        None => None,
    };
    Ok(Settings {
        endpoint: how.s3_endpoint.clone(),
        region: how.s3_region.clone(),
        keys,
        certificates: certificates()?,
        retries: how.retries,
        journals: journals(),
    })
}

/// The host of an `http://` server, unless it is on loopback.
fn in_the_clear(how: &How) -> Option<String> {
    let named =
        ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find_map(|name| std::env::var(name).ok());
    let url = how.s3_endpoint.clone().or(named)?;
    let rest = url.strip_prefix("http://")?;
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    };
    (!postern_net::address::is_loopback(host)).then(|| host.to_owned())
}

/// Where unfinished uploads are recorded (XDG Base Directory Specification).
fn journals() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base =
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(base.join("postern/uploads"))
}

/// The certificates of `AWS_CA_BUNDLE`, as in the AWS CLI.
fn certificates() -> Result<Option<Vec<Vec<u8>>>, Failure> {
    let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let read = std::fs::read(&path).map_err(|error| error.to_string());
    let found = read.and_then(|pem| postern_net::tls::certificates(&pem));
    found.map(Some).map_err(|why| {
        Failure::usage(format!("AWS_CA_BUNDLE: {}: {why}", PathBuf::from(&path).display()), None)
    })
}

fn keys(context: &Context, name: &str) -> Result<AskKeys, Failure> {
    let (name, provider) = identity::provider(context, Some(name))?;
    let keeper = identity::keeper(context, name, provider, Browser::Leave);
    let name = name.to_owned();
    Ok(Arc::new(move || {
        let (keeper, name) = (Arc::clone(&keeper), name.clone());
        Box::pin(async move {
            let held = keeper.credential().await.map_err(|error| format!("{name}: {error}"))?;
            let left = held.ends_in(SystemClock::new().now());
            match held.credential.clone() {
                Credential::Aws(session) => Ok(Keys {
                    access_key_id: session.access_key_id,
                    secret_access_key: session.secret_access_key,
                    session_token: Some(session.session_token),
                    expires: left.map(|left| SystemTime::now() + left),
                }),
                Credential::Bearer(_) => {
                    Err(format!("{name} gives a token, and S3 takes keys; name a provider of type aws"))
                }
            }
        })
    }))
}
