//! The usual causes of a provider's refusal.

use crate::jwt::Claims;
use crate::source::now;
use jiff::fmt::rfc2822;
use postern_config::providers::ProviderType;
use serde_json::Value;

/// The difference between two clocks that is reported, in seconds. Providers tolerate about a minute.
const SKEW: f64 = 30.0;

/// The maximum length of a provider's message, in characters.
const WORDS: usize = 500;

/// The message if the provider sends none.
pub(super) const NO_REASON: &str = "it gave no reason";

/// A provider refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{server} refused: {message} (HTTP status {status}{code})", code = .code.as_ref().map(|code| format!(", {code}")).unwrap_or_default())]
pub struct Refusal {
    /// The server.
    pub server: String,
    /// The HTTP status.
    pub status: u16,
    /// The provider's own error code.
    pub code: Option<String>,
    /// The provider's message.
    pub message: String,
    /// The usual cause, and what helps.
    pub cause: Option<String>,
    /// The wait that it asks for, in seconds.
    pub retry_after: Option<u64>,
}

/// What was sent to the provider.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) r#type: ProviderType,
    pub(super) claims: Option<&'a Claims>,
    pub(super) skew: Option<f64>,
}

/// Returns by how many seconds this machine's clock is ahead of a server's, from the server's `Date` (RFC 9110
/// section 6.6.1).
pub(crate) fn skew(date: &str) -> Option<f64> {
    let theirs = rfc2822::parse(date).ok()?;
    #[allow(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in an f64")]
    let theirs = theirs.timestamp().as_second() as f64;
    Some(now() - theirs)
}

/// Returns code and message of a refusal in any of the providers' formats. Content of a web page or an unknown body
/// is never shown.
pub(super) fn read(status: u16, body: &[u8]) -> (Option<String>, String) {
    let nothing = || (None, NO_REASON.to_owned());
    if (300..400).contains(&status) {
        return (None, "it redirects elsewhere, and a token is not sent after it".to_owned());
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return nothing() };
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(clean);
    let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| text(pointer));
    // OAuth 2.0; IBM Cloud; Google; AWS with JSON.
    let code = first(&["/error", "/errorCode", "/error/status", "/errors/0/code", "/Error/Code"]);
    let message = first(&[
        "/error_description",
        "/errorMessage",
        "/error/message",
        "/errors/0/message",
        "/Error/Message",
        "/message",
    ]);
    match (code, message) {
        (None, None) => nothing(),
        (code, Some(message)) => (code, message),
        (Some(code), None) => (Some(code.clone()), code),
    }
}

/// Sanitizes an untrusted text: one line, a limited length, and no token that it may have echoed.
pub(super) fn clean(text: &str) -> String {
    let line = text.split_whitespace().map(without_tokens);
    let line: Vec<_> = line.collect();
    line.join(" ").chars().take(WORDS).collect()
}

/// Removes each JWT from a word: they begin with `{"`, which is `eyJ` in base64.
fn without_tokens(word: &str) -> String {
    let mut rest = word;
    let mut out = String::new();
    while let Some(at) = rest.find("eyJ") {
        out.push_str(&rest[..at]);
        out.push_str("[a token]");
        let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=');
        rest = rest[at..].trim_start_matches(of_token);
    }
    out + rest
}

/// Returns the usual cause, with what helps.
pub(super) fn cause(sent: &Sent<'_>, status: u16, code: Option<&str>, message: &str) -> Option<String> {
    let Sent { r#type, claims, skew } = sent;
    if let Some(skew) = skew.filter(|skew| skew.abs() > SKEW) {
        let (seconds, way) = (skew.abs(), if skew > 0.0 { "ahead of" } else { "behind" });
        return Some(format!(
            "this machine's clock is {seconds:.0} s {way} the provider's: times in tokens do not fit; set the clock"
        ));
    }
    let words = format!("{} {message}", code.unwrap_or_default()).to_lowercase();
    let has = |any: &[&str]| any.iter().any(|word| words.contains(word));
    let issuer = claims.and_then(|claims| claims.iss.as_deref()).unwrap_or("the token's issuer");
    let subject = claims.and_then(|claims| claims.sub.as_deref()).unwrap_or("the token's subject");
    let audience = claims.map(|claims| claims.aud.join(", ")).unwrap_or_default();
    let wrong_audience = || {
        format!(
            "the audience: the token is for {audience:?}; the provider expects another, or the projected volume asks for \
             the wrong one"
        )
    };
    let wrong_issuer = || {
        format!(
            "the issuer {issuer} is not registered with the provider, or not exactly so: see `postern identity trust`"
        )
    };
    let wrong_subject =
        || format!("the provider trusts another subject than {subject}: see `postern identity trust`");
    let wrong_key = || {
        format!(
            "the key that signed the token is not published yet: the provider reads {issuer}'s keys, and keeps old ones \
             for a while; see `postern identity issuer diff`"
        )
    };
    let lag = || "a new trust takes a minute or two to take effect: try again".to_owned();
    let by_type = match r#type {
        ProviderType::Aws if has(&["no openidconnect provider"]) => Some(wrong_issuer()),
        ProviderType::Aws if has(&["incorrect token audience"]) => Some(wrong_audience()),
        ProviderType::Aws if has(&["accessdenied"]) => Some(format!(
            "the role's trust policy does not name {subject} in its :sub condition (or {audience:?} in :aud), or the role \
             is not there"
        )),
        ProviderType::Ibm if has(&["bxnim0398e"]) => Some(lag()),
        ProviderType::Ibm if has(&["link", "compute resource", "profile"]) => Some(format!(
            "the trusted profile is not linked to {subject} of this cluster, or the link is new: see `postern identity \
             trust ibm`"
        )),
        ProviderType::Gcp if has(&["getaccesstoken", "iam.serviceaccounts"]) => Some(format!(
            "the service account does not grant roles/iam.workloadIdentityUser to {subject}, or the grant is new"
        )),
        ProviderType::Gcp if has(&["attribute condition"]) => Some(wrong_subject()),
        ProviderType::Azure if has(&["aadsts700211"]) => Some(wrong_issuer()),
        ProviderType::Azure if has(&["aadsts700212"]) => Some(wrong_audience()),
        ProviderType::Azure if has(&["aadsts700213", "aadsts70021"]) => Some(wrong_subject()),
        ProviderType::Azure if has(&["aadsts50013"]) => Some(wrong_key()),
        ProviderType::Azure if has(&["aadsts700024"]) => Some(
            "the token has ended or is not valid yet for the provider: the kubelet's renewal, or a clock"
                .to_owned(),
        ),
        ProviderType::Azure if has(&["aadsts700016", "aadsts90002"]) => {
            Some("tenant_id or client_id is not that of the app registration".to_owned())
        }
        _ => None,
    };
    by_type.or_else(|| {
        Some(match code.unwrap_or_default() {
            _ if has(&["expired", "not active", "not before"]) => {
                "the token had ended when the provider saw it: a renewal that did not come, or a clock".to_owned()
            }
            _ if has(&["audience", "\"aud\""]) => wrong_audience(),
            _ if has(&["signature", "jwks", "public key", "verification key", "kid"]) => wrong_key(),
            _ if has(&["issuer"]) => wrong_issuer(),
            "invalid_scope" => "the client may not ask for one of `scopes`".to_owned(),
            "invalid_target" => "the provider does not know an `audience` or `resource`, or not for this client".to_owned(),
            "unauthorized_client" => "the grant is not enabled for this client at the provider".to_owned(),
            "unsupported_grant_type" => "the provider does not know this grant, or it is switched off there".to_owned(),
            "invalid_client" => format!(
                "the client is not known, or its secret or assertion is not accepted: client_id, issuer {issuer}, subject \
                 {subject}"
            ),
            "invalid_grant" | "access_denied" => format!(
                "the provider does not take this token: its issuer ({issuer}), subject ({subject}) or audience \
                 ({audience:?}) is not what it trusts"
            ),
            _ if status == 404 => "there is no token endpoint at this address".to_owned(),
            _ => return None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message_and_cause(r#type: ProviderType, skew: Option<f64>, body: &str) -> (String, String) {
        let claims = Claims {
            iss: Some("https://k8s".to_owned()),
            sub: Some("system:serviceaccount:a:b".to_owned()),
            aud: vec!["x".to_owned()],
            ..Claims::default()
        };
        let (code, message) = read(400, body.as_bytes());
        let sent = Sent { r#type, claims: Some(&claims), skew };
        let cause = cause(&sent, 400, code.as_deref(), &message).unwrap_or_default();
        (format!("{} {message}", code.unwrap_or_default()), cause)
    }

    #[test]
    fn refusals_are_read_as_each_provider_writes_them() {
        use ProviderType::{Azure, Gcp, Ibm, Oauth2};
        for (r#type, body, code, cause) in [
            (
                Oauth2,
                r#"{"error":"invalid_client","error_description":"Bad"}"#,
                "invalid_client Bad",
                "client_id",
            ),
            (
                Oauth2,
                r#"{"error":"invalid_grant","error_description":"Invalid token audience"}"#,
                "audience",
                "the audience",
            ),
            (Oauth2, r#"{"error":"unauthorized_client"}"#, "unauthorized_client", "not enabled"),
            (
                Ibm,
                r#"{"errorCode":"BXNIM0398E","errorMessage":"Not yet"}"#,
                "BXNIM0398E Not yet",
                "takes a minute",
            ),
            (
                Gcp,
                r#"{"error":{"status":"PERMISSION_DENIED","message":"Permission 'iam.serviceAccounts.getAccessToken' denied"}}"#,
                "PERMISSION_DENIED",
                "workloadIdentityUser",
            ),
            (
                Azure,
                r#"{"error":"invalid_client","error_description":"AADSTS700213: No match"}"#,
                "AADSTS700213",
                "another subject",
            ),
            (
                Azure,
                r#"{"error":"invalid_request","error_description":"AADSTS700211: No match"}"#,
                "AADSTS700211",
                "not registered",
            ),
        ] {
            let (message, why) = message_and_cause(r#type, None, body);
            assert!(message.contains(code) && why.contains(cause), "{message} / {why}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_named_with_the_measured_offset() {
        let (_, why) = message_and_cause(ProviderType::Oauth2, Some(-90.4), r#"{"error":"invalid_grant"}"#);
        assert_eq!(
            why,
            "this machine's clock is 90 s behind the provider's: times in tokens do not fit; set the clock"
        );
        assert!(skew("Sun, 06 Nov 1994 08:49:37 GMT").unwrap() > 1e9);
        assert_eq!(skew("yesterday"), None);
    }

    #[test]
    fn what_a_stranger_says_is_short_plain_and_holds_no_token() {
        let token = crate::jwt::unsigned(&serde_json::json!({"sub": "x"}));
        let body = serde_json::json!({"error": "invalid_grant", "error_description": format!("bad subject_token='{token}'\nhere")});
        let (_, message) = read(400, body.to_string().as_bytes());
        assert_eq!(message, "bad subject_token='[a token]' here");
        assert_eq!(read(502, b"<html>long").1, "it gave no reason");
        assert!(read(302, b"").1.contains("redirects elsewhere"));
        assert!(clean(&"x ".repeat(5_000)).chars().count() <= WORDS);
    }
}
