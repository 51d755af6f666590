//! Verification of servers' certificates.
//!
//! A certificate that is listed as an authority is a valid chain by itself, whether it may sign others or not. Go and
//! OpenSSL accept that, and webpki does not (`CaUsedAsEndEntity` for one that may sign, `UnknownIssuer` for one that
//! may not). webpki reports both only after it has checked the dates; the name is checked here.

use crate::error::of_tls;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// Returns a configuration that trusts these certificates (DER), or the platform's; without a client certificate. The
/// error is for display.
pub fn client_config(certificates: Option<&[Vec<u8>]>) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| of_tls(&error))?;
    let mut tls = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    pin(&mut tls, certificates)?;
    Ok(tls)
}

/// Sets the trusted certificates (DER) of a configuration, or the platform's. A listed certificate is also accepted
/// as the server's own. An empty list trusts nothing.
pub fn pin(tls: &mut ClientConfig, certificates: Option<&[Vec<u8>]>) -> Result<(), String> {
    let provider = Arc::clone(tls.crypto_provider());
    let verifier = match certificates {
        Some([]) => return Ok(()), // the empty roots trust nothing
        Some(certificates) => Pinned::to(certificates, provider)?,
        None => Pinned::platform(provider)?,
    };
    tls.dangerous().set_certificate_verifier(Arc::new(verifier));
    Ok(())
}

/// Parses the certificates of a PEM file, as DER; the error says what is wrong with it.
pub fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    use rustls_pki_types::pem::PemObject as _;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found.into_iter().map(|one| one.as_ref().to_vec()).collect()),
        Ok(_) => Err("it holds no certificate in PEM".to_owned()),
        Err(error) => Err(format!("it is damaged: {error}")),
    }
}

#[derive(Debug)]
struct Pinned {
    usual: Arc<dyn ServerCertVerifier>,
    /// The configured certificates; `None` for the platform's.
    certificates: Option<Vec<CertificateDer<'static>>>,
}

impl Pinned {
    fn to(certificates: &[Vec<u8>], provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let certificates: Vec<_> = certificates.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| of_tls(&error))?;
        }
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let usual = usual.map_err(|error| error.to_string())?;
        Ok(Self { usual, certificates: Some(certificates) })
    }

    fn platform(provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let usual = rustls_platform_verifier::Verifier::new(provider).map_err(|error| of_tls(&error))?;
        Ok(Self { usual: Arc::new(usual), certificates: None })
    }

    fn holds(&self, certificate: &CertificateDer<'_>) -> bool {
        match &self.certificates {
            Some(certificates) => certificates.contains(certificate),
            None => platform_holds(certificate),
        }
    }
}

/// Whether the platform's own list, or `SSL_CERT_FILE`, contains this certificate.
#[cfg(target_os = "linux")]
fn platform_holds(certificate: &CertificateDer<'_>) -> bool {
    rustls_native_certs::load_native_certs().certs.contains(certificate)
}

/// On other platforms the system decides.
#[cfg(not(target_os = "linux"))]
fn platform_holds(_: &CertificateDer<'_>) -> bool {
    false
}

/// Whether a certificate is rejected only because no trusted authority has signed it.
fn is_unknown_issuer(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => true,
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            format!("{other:?}").contains("CaUsedAsEndEntity")
        }
        _ => false,
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(error) if is_unknown_issuer(&error) && self.holds(end_entity) => {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject as _;

    // Self-signed for localhost until 2126, the first as an authority: openssl req -x509 -newkey ec -pkeyopt
    // ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=NAME -addext subjectAltName=DNS:localhost
    // -addext basicConstraints=critical,CA:TRUE (or FALSE)
    const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBljCCATugAwIBAgIUUWHczi7R3d3YGJrr+q691ss5qM0wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJYXV0aG9yaXR5MCAXDTI2MTEzMDA3NTgwNFoYDzIxMjYxMTA2
MDc1ODA0WjAUMRIwEAYDVQQDDAlhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASsA3OmiM+Z0K2S6DKH0bBDGOISxoVukTUhAZod5myyLlg3PZkerSlz
kec/FQ25VxykuwpAqlFi9jNnSpBVTqcMo2kwZzAdBgNVHQ4EFgQUcWIPmq+zGF9b
i1MJBgesOCUYF2wwHwYDVR0jBBgwFoAUcWIPmq+zGF9bi1MJBgesOCUYF2wwFAYD
VR0RBA0wC4IJbG9jYWxob3N0MA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0EAwID
SQAwRgIhAKQf9TvflMZ72h07+uetn/pdghYoPbiiSWgxfYINNMPvAiEAh4TJd2+q
Nm6xIJisGj63rOMKdYLkWAhPaNfDT5wxiiA=
-----END CERTIFICATE-----\n";
    const LEAF: &str = "-----BEGIN CERTIFICATE-----
MIIBiDCCAS6gAwIBAgIUPHtZCb+JsPxV4D+Jam1gDoT9uLEwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEbGVhZjAgFw0yNjExMzAwNzU4MDRaGA8yMTI2MTEwNjA3NTgw
NFowDzENMAsGA1UEAwwEbGVhZjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABKo+
RDVtfu4Q6yotfEcx2efwOXXjkQXXtq9yOBhDtzlM4R7EEEyKG9KU0gI4yVAVTV27
dEwSz3azVRtv8fyr8ISjZjBkMB0GA1UdDgQWBBTf5u9KpNgrOzkpeXlnqsAoG0Za
RjAfBgNVHSMEGDAWgBTf5u9KpNgrOzkpeXlnqsAoG0ZaRjAUBgNVHREEDTALggls
b2NhbGhvc3QwDAYDVR0TAQH/BAIwADAKBggqhkjOPQQDAgNIADBFAiEAm65zQbvx
VctJRszY4J6pE6lR9f93mD4p7+kJ3O5mqoYCIFLOxraLp8hACjDmwYVun+xl/vGO
VxmUbtXrBDsgZk8M
-----END CERTIFICATE-----\n";
    const OTHER: &str = "-----BEGIN CERTIFICATE-----
MIIBiTCCATCgAwIBAgIUb75ROfKr+SLfgGyl2zY8Mfh1weUwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFb3RoZXIwIBcNMjYxMTMwMDc1ODA0WhgPMjEyNjExMDYwNzU4
MDRaMBAxDjAMBgNVBAMMBW90aGVyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
b4vjQDdeQbe5Fg1SnVn0VVyJ9MVaUA/sdmZOsApITnfXdjwgX+i9ZJdk+kU1BtSe
6wUm5qS40oduEyuppSbaU6NmMGQwHQYDVR0OBBYEFMvbtf4gI5GTJd6yLG59rfP0
UrFIMB8GA1UdIwQYMBaAFMvbtf4gI5GTJd6yLG59rfP0UrFIMBQGA1UdEQQNMAuC
CWxvY2FsaG9zdDAMBgNVHRMBAf8EAjAAMAoGCCqGSM49BAMCA0cAMEQCIF3lt2Vo
IdVTo+eaIwLeWuBFJcXWP5B/h3TkDfTmS5jlAiBlLeyUazdiXBbIBM2kiu51ze3y
NQWqYYEnibOllw9+2A==
-----END CERTIFICATE-----\n";

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn verified(pinned: &[&str], server: &str, name: &str, year: u64) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates: Vec<Vec<u8>> = pinned.iter().map(|pem| der(pem).as_ref().to_vec()).collect();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs((year - 1970) * 31_557_600));
        let name = ServerName::try_from(name).unwrap();
        let pinned = Pinned::to(&certificates, provider).unwrap();
        pinned.verify_server_cert(&der(server), &[], &name, &[], now).map(|_| ())
    }

    #[test]
    fn a_servers_own_certificate_vouches_for_it() {
        for certificate in [AUTHORITY, LEAF] {
            assert_eq!(verified(&[OTHER, certificate], certificate, "localhost", 2030), Ok(()));
        }
    }

    #[test]
    fn name_dates_and_the_certificate_itself_have_to_be_right() {
        for certificate in [AUTHORITY, LEAF] {
            assert!(verified(&[certificate], certificate, "example.com", 2030).is_err());
            assert!(verified(&[certificate], certificate, "localhost", 2150).is_err(), "it has expired");
            assert!(verified(&[OTHER], certificate, "localhost", 2030).is_err());
        }
    }
}
