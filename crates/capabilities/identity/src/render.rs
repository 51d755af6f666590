//! Formats a credential for other programs.

use crate::exchange::{AwsCredential, Bearer, Credential};
use crate::keeper::{CachedCredential, Moment};
use jiff::{SignedDuration, Timestamp};
use postern_config::providers::{Provider, ProviderType};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The token and a newline.
    Raw,
    /// An object with all fields.
    Json,
    /// The header that an API requires.
    Header,
    /// The format of kubectl's exec plug-ins (`client.authentication.k8s.io`).
    ExecCredential,
    /// The format of AWS's `credential_process`.
    AwsProcess,
    /// `export NAME=VALUE`, for a shell.
    Env,
}

/// The error of a credential that has no such format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a credential of type {type} does not go into {form}: use {instead}")]
pub struct UnsupportedForm {
    r#type: &'static str,
    form: &'static str,
    instead: &'static str,
}

/// Returns its end, in RFC 3339 without fractions, which some programs cannot parse.
pub fn end(cached: &CachedCredential, now: Moment) -> Option<String> {
    let left = SignedDuration::try_from(cached.ends_in(now)?).ok()?;
    let end = Timestamp::now().checked_add(left).ok()?;
    Some(end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Formats a credential. `exec_info` is kubectl's `KUBERNETES_EXEC_INFO`.
pub fn render(
    form: Form,
    name: &str,
    provider: &Provider,
    cached: &CachedCredential,
    now: Moment,
    exec_info: Option<&str>,
) -> Result<Zeroizing<String>, UnsupportedForm> {
    let unfit = |form, instead| UnsupportedForm { r#type: provider.r#type.name(), form, instead };
    let text = match (form, &cached.credential) {
        (Form::Raw, Credential::Bearer(bearer)) => format!("{}\n", *bearer.access_token),
        (Form::Header, Credential::Bearer(bearer)) => {
            format!("Authorization: Bearer {}\n", *bearer.access_token)
        }
        (Form::ExecCredential, Credential::Bearer(bearer)) => {
            pretty(&exec_credential(bearer, cached, now, exec_info))
        }
        (Form::AwsProcess, Credential::Aws(session)) => pretty(&aws_process(session, cached, now)),
        (Form::Json, _) => pretty(&object(name, provider, cached, now)),
        (Form::Env, _) => {
            let lines = variables(name, provider, cached);
            lines.iter().fold(String::new(), |text, (name, value)| {
                text + &format!("export {name}={}\n", quoted(value))
            })
        }
        (Form::Raw | Form::Header, Credential::Aws(_)) => {
            return Err(unfit("one token", "-o json, aws-process or env"));
        }
        (Form::ExecCredential, Credential::Aws(_)) => {
            return Err(unfit("an ExecCredential", "-o aws-process"));
        }
        (Form::AwsProcess, Credential::Bearer(_)) => return Err(unfit("a credential_process", "-o json")),
    };
    Ok(Zeroizing::new(text))
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

fn object(name: &str, provider: &Provider, cached: &CachedCredential, now: Moment) -> Value {
    let mut value = match &cached.credential {
        Credential::Bearer(Bearer { access_token, refresh_token: _, scope, issued_token_type }) => json!({
            "accessToken": access_token.as_str(), "tokenType": "Bearer", "scope": scope,
            "issuedTokenType": issued_token_type,
        }),
        Credential::Aws(AwsCredential { access_key_id, secret_access_key, session_token }) => json!({
            "accessKeyId": access_key_id, "secretAccessKey": secret_access_key.as_str(),
            "sessionToken": session_token.as_str(),
        }),
    };
    value["provider"] = name.into();
    value["type"] = provider.r#type.name().into();
    value["expiresAt"] = end(cached, now).into();
    value["expiresIn"] = cached.ends_in(now).map(|left| left.as_secs()).into();
    value
}

/// KEP-541. The version is the requested one.
fn exec_credential(
    bearer: &Bearer,
    cached: &CachedCredential,
    now: Moment,
    exec_info: Option<&str>,
) -> Value {
    let info: Value = exec_info.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let version =
        info["apiVersion"].as_str().filter(|version| version.starts_with("client.authentication.k8s.io/"));
    // client-go runs the plug-in again only after this time. So that a credential can be renewed early, the time is
    // early.
    let end = cached.usable_for(now).and_then(|left| {
        let left = SignedDuration::try_from(left).ok()?;
        Some(Timestamp::now().checked_add(left).ok()?.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    });
    let mut status = json!({"token": bearer.access_token.as_str()});
    if let Some(end) = end {
        status["expirationTimestamp"] = end.into();
    }
    json!({
        "apiVersion": version.unwrap_or("client.authentication.k8s.io/v1"), "kind": "ExecCredential",
        "status": status,
    })
}

/// <https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-sourcing-external.html>
fn aws_process(session: &AwsCredential, cached: &CachedCredential, now: Moment) -> Value {
    let AwsCredential { access_key_id, secret_access_key, session_token } = session;
    json!({
        "Version": 1, "AccessKeyId": access_key_id, "SecretAccessKey": secret_access_key.as_str(),
        "SessionToken": session_token.as_str(), "Expiration": end(cached, now),
    })
}

/// Returns the answer of the container credentials endpoint.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>
pub fn aws_container(session: &AwsCredential, cached: &CachedCredential, now: Moment) -> Zeroizing<String> {
    let AwsCredential { access_key_id, secret_access_key, session_token } = session;
    let value = json!({
        "AccessKeyId": access_key_id, "SecretAccessKey": secret_access_key.as_str(),
        "Token": session_token.as_str(), "Expiration": end(cached, now),
    });
    Zeroizing::new(value.to_string())
}

/// Returns the prefix of a provider's variables.
pub fn variable_prefix(name: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let prefix: String = name.chars().map(upper).collect();
    // No shell accepts a name that begins with a digit.
    if prefix.starts_with(|c: char| c.is_ascii_digit()) { format!("_{prefix}") } else { prefix }
}

/// The variables for a region in AWS's SDKs: most of them read the first, botocore only the second.
pub(crate) const REGION: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// Returns the variables from which the provider's own tools read a credential without renewal.
pub fn variables(
    name: &str,
    provider: &Provider,
    cached: &CachedCredential,
) -> Vec<(String, Zeroizing<String>)> {
    let plain = |name: &str, value: &str| (name.to_owned(), Zeroizing::new(value.to_owned()));
    match &cached.credential {
        Credential::Aws(AwsCredential { access_key_id, secret_access_key, session_token }) => {
            let mut all = vec![
                plain("AWS_ACCESS_KEY_ID", access_key_id),
                plain("AWS_SECRET_ACCESS_KEY", secret_access_key),
                plain("AWS_SESSION_TOKEN", session_token),
            ];
            if let Some(region) = &provider.region {
                all.extend(REGION.map(|name| plain(name, region)));
            }
            all
        }
        Credential::Bearer(bearer) => {
            let own = format!("{}_ACCESS_TOKEN", variable_prefix(name));
            let known: &[&str] = match provider.r#type {
                // gcloud; Terraform and Google's own libraries for Go.
                ProviderType::Gcp => &["CLOUDSDK_AUTH_ACCESS_TOKEN", "GOOGLE_OAUTH_ACCESS_TOKEN"],
                // IBM Cloud's provider for Terraform.
                ProviderType::Ibm => &["IC_IAM_TOKEN"],
                ProviderType::Oauth2 | ProviderType::Azure | ProviderType::Aws => &[],
            };
            let names = known.iter().copied().chain([own.as_str()]);
            names.map(|name| plain(name, &bearer.access_token)).collect()
        }
    }
}

/// Quotes a word for a POSIX shell.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Issued;
    use std::time::Duration;

    fn moment() -> Moment {
        Moment { boot: 1, since_boot: Duration::from_secs(5), wall: Duration::ZERO }
    }

    fn bearer() -> CachedCredential {
        let bearer = Bearer {
            access_token: Zeroizing::new("t'k".to_owned()),
            refresh_token: Some(Zeroizing::new("never shown".to_owned())),
            scope: None,
            issued_token_type: None,
        };
        let lifetime = Some(Duration::from_secs(3_600));
        CachedCredential::new(Issued { credential: Credential::Bearer(bearer), lifetime }, moment())
    }

    fn aws() -> CachedCredential {
        let session = AwsCredential {
            access_key_id: "AKIA".to_owned(),
            secret_access_key: Zeroizing::new("secret".to_owned()),
            session_token: Zeroizing::new("session".to_owned()),
        };
        let lifetime = Some(Duration::from_secs(3_600));
        CachedCredential::new(Issued { credential: Credential::Aws(session), lifetime }, moment())
    }

    fn provider(r#type: &str) -> Provider {
        serde_json::from_value(json!({"type": r#type, "region": "eu-central-1"})).unwrap()
    }

    fn text(form: Form, r#type: &str, cached: &CachedCredential, info: Option<&str>) -> String {
        match render(form, "my-api", &provider(r#type), cached, moment(), info) {
            Ok(text) => text.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_form_is_what_its_reader_expects() {
        assert_eq!(text(Form::Raw, "oauth2", &bearer(), None), "t'k\n");
        assert_eq!(text(Form::Header, "oauth2", &bearer(), None), "Authorization: Bearer t'k\n");
        assert_eq!(text(Form::Env, "oauth2", &bearer(), None), "export MY_API_ACCESS_TOKEN='t'\\''k'\n");
        assert_eq!(
            text(Form::Env, "aws", &aws(), None),
            "export AWS_ACCESS_KEY_ID='AKIA'\nexport AWS_SECRET_ACCESS_KEY='secret'\n\
             export AWS_SESSION_TOKEN='session'\nexport AWS_REGION='eu-central-1'\n\
             export AWS_DEFAULT_REGION='eu-central-1'\n"
        );
        let process: Value = serde_json::from_str(&text(Form::AwsProcess, "aws", &aws(), None)).unwrap();
        assert_eq!(
            (process["Version"].as_u64(), process["SessionToken"].as_str()),
            (Some(1), Some("session"))
        );
        assert!(process["Expiration"].as_str().unwrap().ends_with('Z'));
        let beta = r#"{"apiVersion":"client.authentication.k8s.io/v1beta1","spec":{}}"#;
        for (info, version) in [(None, "v1"), (Some(beta), "v1beta1"), (Some("nonsense"), "v1")] {
            let made: Value =
                serde_json::from_str(&text(Form::ExecCredential, "oauth2", &bearer(), info)).unwrap();
            assert_eq!(made["apiVersion"], format!("client.authentication.k8s.io/{version}"));
            assert_eq!(
                (made["kind"].as_str(), made["status"]["token"].as_str()),
                (Some("ExecCredential"), Some("t'k"))
            );
        }
        let json: Value = serde_json::from_str(&text(Form::Json, "oauth2", &bearer(), None)).unwrap();
        assert_eq!((json["expiresIn"].as_u64(), json["provider"].as_str()), (Some(3_600), Some("my-api")));
        assert!(!json.to_string().contains("never shown"));
    }

    #[test]
    fn what_does_not_fit_says_what_does() {
        assert_eq!(
            text(Form::Raw, "aws", &aws(), None),
            "a credential of type aws does not go into one token: use -o json, aws-process or env"
        );
        assert!(text(Form::AwsProcess, "oauth2", &bearer(), None).contains("use -o json"));
        assert_eq!(variable_prefix("1.x-y"), "_1_X_Y");
    }
}
