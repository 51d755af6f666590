//! AWS STS: `AssumeRoleWithWebIdentity`, unsigned, and `AssumeRole` for each further role.
//! <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>

use super::refusal;
use super::sigv4::{self, Signing};
use super::token_endpoint::{Form, encode, parameter, post, refused, split};
use super::{Credential, ExchangeError, Exchanger, Issued};
use crate::jwt::Claims;
use http::header::{AUTHORIZATION, HeaderName};
use jiff::Timestamp;
use postern_config::parse_duration;
use postern_config::providers::{AssumeRole, Provider};
use postern_net::web::{Answer, Server};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use zeroize::Zeroizing;

const VERSION: &str = "2011-06-15";

/// The keys of a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsCredential {
    /// The key's ID.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: Zeroizing<String>,
    /// The session token.
    pub session_token: Zeroizing<String>,
}

/// Returns the address of STS for a region, in the region's partition.
fn address(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://sts.{region}.{suffix}")
}

pub(super) async fn exchange(exchanger: &Exchanger) -> Result<Issued, ExchangeError> {
    let provider = &exchanger.provider;
    let subject = exchanger.subject().await?;
    let region = provider.region.as_deref().unwrap_or("us-east-1");
    let url = provider.endpoint.clone().unwrap_or_else(|| address(region));
    let url = format!("{}/", url.trim_end_matches('/'));
    let session = session_name(provider, subject.claims.as_ref());
    let sts = Sts {
        exchanger,
        server: exchanger.server(split(&url).0)?,
        url,
        region,
        claims: subject.claims.as_ref(),
    };
    let mut form = request("AssumeRoleWithWebIdentity", provider.role_arn.as_deref(), &session);
    form.push(("WebIdentityToken".to_owned(), subject.token.clone()));
    // With a chain of roles, the duration applies to the last request.
    if let Some(seconds) = seconds(provider).filter(|_| provider.chain.is_empty()) {
        form.push(parameter("DurationSeconds", seconds.to_string()));
    }
    let mut issued = sts.ask(&form, None).await?;
    for (at, AssumeRole { role_arn, external_id, session_name }) in provider.chain.iter().enumerate() {
        let name = session_name.as_deref().unwrap_or(&session);
        let mut form = request("AssumeRole", Some(role_arn), name);
        if let Some(id) = external_id {
            form.push(parameter("ExternalId", id));
        }
        if let Some(seconds) = seconds(provider).filter(|_| at + 1 == provider.chain.len()) {
            form.push(parameter("DurationSeconds", seconds.to_string()));
        }
        issued = sts.ask(&form, Some(&issued)).await?;
    }
    Ok(issued)
}

fn seconds(provider: &Provider) -> Option<u64> {
    provider.lifetime.as_deref().and_then(|text| parse_duration(text).ok()).map(|lifetime| lifetime.as_secs())
}

fn request(action: &str, role: Option<&str>, session: &str) -> Form {
    vec![
        parameter("Action", action),
        parameter("Version", VERSION),
        parameter("RoleArn", role.unwrap_or_default()),
        parameter("RoleSessionName", session),
    ]
}

/// By default the name of the token's ServiceAccount, which `CloudTrail` shows.
fn session_name(provider: &Provider, claims: Option<&Claims>) -> String {
    if let Some(name) = &provider.session_name {
        return name.clone();
    }
    let found = claims.and_then(Claims::service_account);
    let name = found.map_or_else(|| "postern".to_owned(), |(namespace, name)| format!("{namespace}.{name}"));
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "_+=,.@-".contains(c) { c } else { '-' };
    name.chars().map(allowed).take(64).collect()
}

struct Sts<'a> {
    exchanger: &'a Exchanger,
    server: Server,
    url: String,
    region: &'a str,
    claims: Option<&'a Claims>,
}

impl Sts<'_> {
    async fn ask(&self, form: &Form, signer: Option<&Issued>) -> Result<Issued, ExchangeError> {
        let headers = match signer.map(|issued| &issued.credential) {
            Some(Credential::Aws(session)) => self.signed(form, session),
            _ => Vec::new(),
        };
        let busy =
            |answer: &Answer| error(&answer.body).is_some_and(|(code, _)| code == "IDPCommunicationError");
        let answer = post(&self.server, &self.url, form, &headers, false, busy).await?;
        let wrong = |why: &str| ExchangeError::Answer { server: self.url.clone(), why: why.to_owned() };
        if (200..300).contains(&answer.status) {
            let now = answer.date.as_deref().and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
            let now = now.map_or_else(Timestamp::now, |date| date.timestamp());
            return credentials(&answer.body, now).map_err(|why| wrong(&why));
        }
        let (code, message) = match error(&answer.body) {
            Some((code, message)) => (Some(refusal::clean(&code)), refusal::clean(&message)),
            None => refusal::read(answer.status, &answer.body),
        };
        let sent = (self.exchanger.provider.r#type, self.claims);
        Err(refused(&self.url, &answer, sent, code, message).into())
    }

    fn signed(&self, form: &Form, session: &AwsCredential) -> Vec<(HeaderName, Zeroizing<String>)> {
        let body = encode(form);
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let host = self.url.split("://").nth(1).unwrap_or_default().trim_end_matches('/');
        let AwsCredential { access_key_id, secret_access_key, session_token } = session;
        let signing =
            Signing { access_key_id, secret_access_key, time: &time, region: self.region, service: "sts" };
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", host),
            ("x-amz-date", &time),
            ("x-amz-security-token", session_token),
        ];
        let authorization = sigv4::authorization(&signing, &headers, body.as_bytes());
        vec![
            (HeaderName::from_static("x-amz-date"), Zeroizing::new(time.clone())),
            (HeaderName::from_static("x-amz-security-token"), session_token.clone()),
            (AUTHORIZATION, Zeroizing::new(authorization)),
        ]
    }
}

/// Returns the text of the first element of this name that contains only text. STS answers with a fixed form of XML
/// without attributes, comments or CDATA; for any other form this returns `None`.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let start = xml.find(&format!("<{name}>"))? + name.len() + 2;
    let text = &xml[start..start + xml[start..].find('<')?];
    xml[start + text.len()..].starts_with(&format!("</{name}>")).then_some(text.trim())
}

/// Replaces the five entities of XML.
fn unescape(text: &str) -> String {
    let pairs =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

fn error(body: &[u8]) -> Option<(String, String)> {
    let xml = std::str::from_utf8(body).ok()?;
    let code = element(xml, "Code")?;
    Some((unescape(code), unescape(element(xml, "Message").unwrap_or(code))))
}

pub(super) fn credentials(body: &[u8], now: Timestamp) -> Result<Issued, String> {
    let xml = std::str::from_utf8(body).map_err(|_| "it is not UTF-8".to_owned())?;
    let start = xml.find("<Credentials>").ok_or("it has no Credentials")?;
    let field = |name: &str| {
        let found = element(&xml[start..], name).filter(|text| !text.is_empty());
        let found = found.ok_or_else(|| format!("its Credentials have no {name}"))?;
        super::answer::usable(found).map(|()| Zeroizing::new(unescape(found)))
    };
    let end: Timestamp =
        field("Expiration")?.parse().map_err(|_| "its Expiration is not a time".to_owned())?;
    let lifetime = Duration::try_from(end.duration_since(now)).ok().filter(|left| !left.is_zero());
    let credential = AwsCredential {
        access_key_id: field("AccessKeyId")?.to_string(),
        secret_access_key: field("SecretAccessKey")?,
        session_token: field("SessionToken")?,
    };
    Ok(Issued {
        credential: Credential::Aws(credential),
        lifetime: Some(lifetime.ok_or("its Expiration has passed")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
        <AssumeRoleWithWebIdentityResult><SubjectFromWebIdentityToken>x</SubjectFromWebIdentityToken><Credentials>\
        <SessionToken>AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE</SessionToken>\
        <SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY</SecretAccessKey>\
        <Expiration>2014-10-24T23:00:23Z</Expiration><AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId></Credentials>\
        </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

    #[test]
    fn credentials_are_read_as_the_api_reference_has_them() {
        let now: Timestamp = "2014-10-24T22:00:23Z".parse().unwrap();
        let issued = credentials(ANSWER.as_bytes(), now).unwrap();
        assert_eq!(issued.lifetime, Some(Duration::from_secs(3_600)));
        let Credential::Aws(AwsCredential { access_key_id, secret_access_key, session_token }) =
            issued.credential
        else {
            panic!("no session")
        };
        assert_eq!(access_key_id, "ASgeIAIOSFODNN7EXAMPLE");
        assert!(secret_access_key.ends_with("EXAMPLEKEY") && session_token.starts_with("AQoD"));
        let late: Timestamp = "2014-10-24T23:00:24Z".parse().unwrap();
        assert_eq!(credentials(ANSWER.as_bytes(), late).unwrap_err(), "its Expiration has passed");
        for cut in [0, 100, 200, 300, 400] {
            assert!(credentials(&ANSWER.as_bytes()[..cut], now).is_err());
        }
    }

    #[test]
    fn an_error_is_read_with_its_code() {
        let body = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>\
                    <Message>No OpenIDConnect provider found for &quot;x&quot;</Message></Error></ErrorResponse>";
        let (code, message) = error(body.as_bytes()).unwrap();
        assert_eq!(
            (code.as_str(), message.as_str()),
            ("InvalidIdentityToken", "No OpenIDConnect provider found for \"x\"")
        );
        assert_eq!(error(b"<html><Code>"), None);
    }

    #[test]
    fn regions_of_other_partitions_have_their_own_hosts() {
        assert_eq!(address("eu-central-1"), "https://sts.eu-central-1.amazonaws.com");
        assert_eq!(address("cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn");
    }
}
