//! The webhook's certificate: made, renewed and announced by the leader, and read by every replica.
//!
//! The CA stays for ten years, so that renewing the certificate changes nothing for the API server. When the CA is
//! renewed, the API server trusts both for a while: the new one first signs a certificate when the API server was told.

use crate::cli::Run;
use crate::error::chain;
use crate::leader::Leadership;
use crate::watches::config_of;
use crate::webhook::server::Certificates;
use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::Notify;

/// The Secret of our own certificate, and the name of the webhook configuration.
pub(crate) const SECRET: &str = "postern-webhook";
/// The name of the Service.
const SERVICE: &str = "postern-controller";
/// Until when the certificate is valid, in seconds since 1970.
const NOT_AFTER: &str = "postern.dev/certificate-not-after";
/// Until when the CA is valid.
const CA_NOT_AFTER: &str = "postern.dev/ca-not-after";

const DAY: i64 = 24 * 60 * 60;
const CA_DAYS: i64 = 3650;
const CERTIFICATE_DAYS: i64 = 90;
/// A certificate is renewed when it has a third of its time left.
const RENEWAL_DAYS: i64 = 30;
/// A CA is renewed when it has a year left.
const CA_RENEWAL_DAYS: i64 = 365;

/// How often the leader looks, besides whenever the Secret changes. So long API servers have to learn a new CA before it
/// signs.
const INTERVAL: Duration = Duration::from_secs(30);
/// Changes of the Secret within this time are taken together.
const TOGETHER: Duration = Duration::from_secs(1);

/// The certificate could not be made or stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    /// The library refuses.
    #[error("making a certificate")]
    Make(#[from] rcgen::Error),
    /// The API server refuses.
    #[error("{attempt}")]
    Store { attempt: &'static str, source: Box<kube::Error> },
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    /// A new certificate by the CA there is.
    Certificate,
    /// A new CA beside the old one; the certificate follows when the API server knows it.
    Authority,
    /// Everything: there is none, or it has expired.
    All,
}

fn due(secret: &Secret, now: i64) -> Due {
    let has = |key: &str| {
        secret.data.as_ref().is_some_and(|data| data.get(key).is_some_and(|data| !data.0.is_empty()))
    };
    let until =
        |name: &str| secret.annotations().get(name).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let (certificate, authority) = (until(NOT_AFTER) - now, until(CA_NOT_AFTER) - now);
    if !["ca.crt", "ca.key", "tls.crt", "tls.key"].iter().all(|key| has(key)) || authority <= 0 {
        return Due::All;
    }
    if authority < CA_RENEWAL_DAYS * DAY {
        return Due::Authority;
    }
    if certificate < RENEWAL_DAYS * DAY { Due::Certificate } else { Due::Nothing }
}

/// Keeps the certificate valid and announced, while this replica leads. Runs for ever.
pub(crate) async fn renew(client: Client, args: Run, mut leadership: Leadership, changed: Arc<Notify>) {
    loop {
        leadership.gained().await;
        let renewed = renew_once(&client, &args).await;
        if let Err(error) = &renewed {
            tracing::warn!(error = chain(error), "the webhook's certificate could not be renewed");
        }
        if matches!(renewed, Ok(Due::Authority)) {
            tokio::time::sleep(INTERVAL).await;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = changed.notified() => tokio::time::sleep(TOGETHER).await,
        }
    }
}

/// Returns what was due.
async fn renew_once(client: &Client, args: &Run) -> Result<Due, CertificateError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &args.namespace);
    let store =
        |attempt| move |error: kube::Error| CertificateError::Store { attempt, source: Box::new(error) };
    let found = secrets.get_opt(SECRET).await.map_err(store("reading the certificate's Secret"))?;
    let exists = found.is_some();
    let mut secret = found.unwrap_or_default();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let due = due(&secret, now);
    if due != Due::Nothing {
        secret.metadata.name = Some(SECRET.to_owned());
        secret.metadata.namespace = Some(args.namespace.clone());
        make(&mut secret, due, &args.namespace, now)?;
        let params = PostParams::default();
        // With the resource version that was read: of two leaders, one fails.
        let stored = match exists {
            true => secrets.replace(SECRET, &params, &secret).await,
            false => secrets.create(&params, &secret).await,
        };
        secret = stored.map_err(store("writing the certificate's Secret"))?;
        tracing::info!(?due, "renewed the webhook's certificate");
    }
    if let Some(authority) = secret.data.as_ref().and_then(|data| data.get("ca.crt")) {
        announce(client, authority).await.map_err(store("announcing the CA to the API server"))?;
    }
    Ok(due)
}

/// Tells the API server which CA to trust.
async fn announce(client: &Client, authority: &ByteString) -> Result<(), kube::Error> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let Some(found) = api.get_opt(SECRET).await? else { return Ok(()) };
    let webhooks = found.webhooks.iter().flatten();
    let wrong: Vec<_> = webhooks
        .enumerate()
        .filter(|(_, one)| one.client_config.ca_bundle.as_ref() != Some(authority))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let mut patch = vec![json!({
        "op": "test", "path": "/metadata/resourceVersion", "value": found.metadata.resource_version,
    })];
    patch.extend(wrong.iter().map(|(index, _)| {
        json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": authority})
    }));
    let patch: json_patch::Patch = serde_json::from_value(json!(patch)).map_err(kube::Error::SerdeError)?;
    api.patch(SECRET, &PatchParams::default(), &Patch::<()>::Json(patch)).await.map(|_| ())
}

/// Puts into the Secret what is due.
fn make(secret: &mut Secret, due: Due, namespace: &str, now: i64) -> Result<(), CertificateError> {
    let data = secret.data.get_or_insert_default();
    let text = |data: &BTreeMap<String, ByteString>, key: &str| {
        data.get(key).map(|data| String::from_utf8_lossy(&data.0).into_owned()).unwrap_or_default()
    };
    let annotations = secret.metadata.annotations.get_or_insert_default();
    let put = |data: &mut BTreeMap<String, ByteString>, key: &str, text: String| {
        data.insert(key.to_owned(), ByteString(text.into_bytes()));
    };
    if matches!(due, Due::All | Due::Authority) {
        let key = KeyPair::generate()?;
        let params = authority_params(now)?;
        let mut bundle = params.self_signed(&key)?.pem();
        if due == Due::Authority {
            bundle.push_str(first(&text(data, "ca.crt")));
        }
        put(data, "ca.crt", bundle);
        put(data, "ca.key", key.serialize_pem());
        annotations.insert(CA_NOT_AFTER.to_owned(), (now + CA_DAYS * DAY).to_string());
        // The certificate follows by the next look: the API server has to know the CA first.
        annotations.insert(NOT_AFTER.to_owned(), now.to_string());
    }
    if matches!(due, Due::All | Due::Certificate) {
        let issuer = Issuer::new(authority_params(now)?, KeyPair::from_pem(&text(data, "ca.key"))?);
        let key = KeyPair::generate()?;
        let names =
            vec![format!("{SERVICE}.{namespace}.svc"), format!("{SERVICE}.{namespace}.svc.cluster.local")];
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, SERVICE);
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(now, CERTIFICATE_DAYS);
        let certificate = params.signed_by(&key, &issuer)?;
        put(data, "tls.crt", certificate.pem());
        put(data, "tls.key", key.serialize_pem());
        annotations.insert(NOT_AFTER.to_owned(), (now + CERTIFICATE_DAYS * DAY).to_string());
    }
    Ok(())
}

/// The first certificate of a bundle.
fn first(bundle: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----\n";
    bundle.find(END).map_or(bundle, |at| &bundle[..at + END.len()])
}

fn authority_params(now: i64) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "postern webhook CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    (params.not_before, params.not_after) = validity(now, CA_DAYS);
    Ok(params)
}

/// From an hour ago, for clocks that differ.
fn validity(now: i64, days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (at(now - 60 * 60), at(now + days * DAY))
}

/// Reads the certificate whenever its Secret changes, and notifies `changed`. Runs for ever.
pub(crate) async fn load(client: Client, args: Run, certificates: Arc<Certificates>, changed: Arc<Notify>) {
    let name = args.certificate_secret.as_deref().unwrap_or(SECRET);
    let api: Api<Secret> = Api::namespaced(client, &args.namespace);
    let config = config_of(name);
    let mut events = pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        changed.notify_one();
        match event {
            Ok(Event::InitApply(secret) | Event::Apply(secret)) => {
                let data =
                    |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|data| &data.0[..]);
                let (Some(certificate), Some(key)) = (data("tls.crt"), data("tls.key")) else { continue };
                match certificates.set(certificate, key) {
                    Ok(()) => tracing::info!(name, "the webhook has a certificate"),
                    Err(error) => tracing::warn!(name, error, "the certificate cannot be used"),
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(name, error = chain(&error), "the certificate cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn text(secret: &Secret, key: &str) -> String {
        String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
    }

    #[test]
    fn a_certificate_is_renewed_before_it_expires() {
        let mut secret = Secret::default();
        assert_eq!(due(&secret, NOW), Due::All);
        make(&mut secret, Due::All, "ns", NOW).unwrap();
        let after = |days: i64| NOW + days * DAY;
        assert_eq!(due(&secret, NOW), Due::Nothing);
        assert_eq!(due(&secret, after(59)), Due::Nothing);
        assert_eq!(due(&secret, after(61)), Due::Certificate);
        let (authority, before) = (text(&secret, "ca.crt"), text(&secret, "tls.crt"));
        make(&mut secret, Due::Certificate, "ns", after(61)).unwrap();
        assert_eq!(text(&secret, "ca.crt"), authority);
        assert_ne!(text(&secret, "tls.crt"), before);
        assert_eq!(due(&secret, after(61)), Due::Nothing);
    }

    #[test]
    fn a_new_ca_is_announced_before_it_signs() {
        let mut secret = Secret::default();
        make(&mut secret, Due::All, "ns", NOW).unwrap();
        let later = NOW + (CA_DAYS - 300) * DAY;
        assert_eq!(due(&secret, later), Due::Authority);
        let (old, certificate) = (text(&secret, "ca.crt"), text(&secret, "tls.crt"));
        make(&mut secret, Due::Authority, "ns", later).unwrap();
        let both = text(&secret, "ca.crt");
        assert!(both.ends_with(&old) && both.len() > old.len());
        assert_eq!(text(&secret, "tls.crt"), certificate);
        assert_eq!(due(&secret, later), Due::Certificate);
        make(&mut secret, Due::Certificate, "ns", later).unwrap();
        assert_eq!(due(&secret, later), Due::Nothing);
        // A third one replaces the first.
        make(&mut secret, Due::Authority, "ns", later).unwrap();
        assert_eq!(text(&secret, "ca.crt").matches("BEGIN").count(), 2);
    }
}
