//! Errors of requests to a server, and readable messages for other libraries' errors.

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The address is not allowed.
    #[error("{address}: {why}")]
    Address {
        /// The address as the user gave it.
        address: String,
        /// Why it is not allowed.
        why: String,
    },
    /// No connection, or it was lost.
    #[error("{server} cannot be reached: {cause}")]
    Unreachable {
        /// The server's address.
        server: String,
        /// The innermost cause.
        cause: String,
    },
    /// No complete answer within the time limit.
    #[error("{server} did not answer within {seconds} s")]
    NoAnswer {
        /// The server's address.
        server: String,
        /// The time limit.
        seconds: u64,
    },
}

/// Returns the messages of an error and its sources, each once, without the outermost wrappers of HTTP clients.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = own_tls_error(error) {
            return of_tls(error);
        }
        let text = plain(&error.to_string());
        let noise = ["ServiceError", "client error", "HyperError", "connection error"];
        if !noise.iter().any(|word| text.starts_with(word)) {
            parts.retain(|part| !part.contains(&text));
            parts.push(text);
        }
        next = error.source();
    }
    if parts.is_empty() { error.source().map_or_else(|| error.to_string(), chain) } else { parts.join(": ") }
}

/// Returns the TLS library's own error, if an error is one or contains one.
fn own_tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    // One may contain another without being its source.
    error.downcast_ref().or_else(|| own_tls_error(error.downcast_ref::<std::io::Error>()?.get_ref()?))
}

/// Returns the message of an error's last cause; TLS errors get a readable message.
pub fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(error) = tls_error(error) {
        return of_tls(error);
    }
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    plain(&error.to_string())
}

/// Whether a certificate has expired, according to the error or one of its causes. Alerts of the peer count.
pub fn is_expired(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::{AlertDescription, CertificateError, Error};
    matches!(
        tls_error(error),
        Some(
            Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })
                | Error::AlertReceived(AlertDescription::CertificateExpired)
        )
    )
}

/// Whether an error or one of its causes is a TLS error.
pub fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    tls_error(error).is_some()
}

fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = own_tls_error(error) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Shortens another library's message: removes the addresses of its documentation, and limits the length.
fn plain(text: &str) -> String {
    const LONGEST: usize = 400;
    let words: Vec<&str> = text.split(' ').filter(|word| !word.contains("docs.rs/")).collect();
    let text = words.join(" ");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Returns a readable reason for a failed TLS connection.
pub fn of_tls(error: &rustls::Error) -> String {
    use rustls::{CertificateError as Bad, Error};
    match error {
        Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer => {
                "the server's certificate is signed by an authority that is not trusted here".to_owned()
            }
            Bad::Expired | Bad::ExpiredContext { .. } => "the server's certificate has expired".to_owned(),
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet".to_owned()
            }
            Bad::Revoked => "the server's certificate was revoked".to_owned(),
            Bad::BadSignature => "the signature of the server's certificate is wrong".to_owned(),
            Bad::NotValidForNameContext { expected, presented } => {
                let expected = expected.to_str();
                let names: Vec<&str> = presented.iter().map(|name| name_of(name)).take(5).collect();
                let more = if presented.len() > names.len() { " and others" } else { "" };
                match names.is_empty() {
                    true => format!("the server's certificate names no server; expected {expected}"),
                    false => format!(
                        "the server's certificate is not for {expected} but for {}{more}",
                        names.join(", ")
                    ),
                }
            }
            Bad::NotValidForName => "the server's certificate is for another server".to_owned(),
            Bad::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                "the server's certificate is a CA certificate that is not trusted here".to_owned()
            }
            Bad::Other(other) if format!("{other:?}").contains("UnsupportedCertVersion") => {
                "the certificate is of X.509 version 1, which is too old".to_owned()
            }
            other => format!("the server's certificate cannot be used: {}", plain(&format!("{other:?}"))),
        },
        Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            "the server does not speak TLS; is it meant to be http://?".to_owned()
        }
        Error::AlertReceived(alert) => {
            format!(
                "the server refused our TLS connection (alert {alert:?}); it may require a client certificate"
            )
        }
        other => plain(&other.to_string()),
    }
}

/// Returns the name in `DnsName("a.example")` and the like.
fn name_of(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(presented, |name| name.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_errors_have_readable_messages() {
        use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
        let of = |error: Error| chain(&std::io::Error::new(std::io::ErrorKind::InvalidData, error));
        let said = of(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(said, "the server's certificate is signed by an authority that is not trusted here");
        let said = of(Error::InvalidMessage(InvalidMessage::InvalidContentType));
        assert!(said.contains("does not speak TLS"), "{said}");
        let said = of(Error::AlertReceived(AlertDescription::CertificateRequired));
        assert!(said.contains("client certificate"), "{said}");
        let expected = rustls::pki_types::ServerName::try_from("a.example").unwrap();
        let presented = (0..300).map(|each| format!("DnsName(\"b{each}.example\")")).collect();
        let bad = CertificateError::NotValidForNameContext { expected, presented };
        let said = of(Error::InvalidCertificate(bad));
        assert!(
            said.contains("not for a.example but for b0.example, b1.example") && said.len() < 300,
            "{said}"
        );
        assert!(!plain("see https://docs.rs/rustls for more").contains("docs.rs"));
    }
}
