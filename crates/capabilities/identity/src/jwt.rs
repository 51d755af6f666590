//! What a token says of itself (RFC 7519), read without verifying it: that is for whom it is shown to. Never printed.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

/// The longest token that is looked at, in bytes.
pub const LONGEST: usize = 64 * 1024;

/// A token that says nothing we can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAJwt {
    /// Not three parts between dots.
    #[error("it has not three parts between dots")]
    Parts,
    /// Five parts: encrypted (RFC 7516).
    #[error("it is encrypted (a JWE), so that only the provider can read it")]
    Encrypted,
    /// A part is not base64url.
    #[error("a part of it is not base64url")]
    Base64,
    /// The claims are no JSON object.
    #[error("its claims are no JSON object")]
    Claims,
    /// Beyond [`LONGEST`].
    #[error("it is longer than 64 KiB")]
    TooLong,
}

/// The claims that matter to us.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Who issued it.
    pub iss: Option<String>,
    /// Whom it is about.
    pub sub: Option<String>,
    /// Whom it is for; one or several.
    #[serde(deserialize_with = "audiences")]
    pub aud: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub exp: Option<f64>,
    /// When it was issued.
    pub iat: Option<f64>,
    /// From when it holds.
    pub nbf: Option<f64>,
    /// What Kubernetes adds.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Value,
}

/// A token's header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Header {
    /// How it is signed.
    pub alg: String,
    /// By which key.
    pub kid: Option<String>,
}

/// Header and claims of a token.
pub fn decode(token: &str) -> Result<(Header, Claims), NotAJwt> {
    if token.len() > LONGEST {
        return Err(NotAJwt::TooLong);
    }
    let parts: Vec<_> = token.split('.').collect();
    let (header, claims) = match parts.as_slice() {
        [header, claims, _signature] => (*header, *claims),
        [_, _, _, _, _] => return Err(NotAJwt::Encrypted),
        _ => return Err(NotAJwt::Parts),
    };
    Ok((part(header)?, part(claims)?))
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, NotAJwt> {
    // Some issuers pad.
    let bytes =
        URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|_| NotAJwt::Base64)?;
    serde_json::from_slice(&bytes).map_err(|_| NotAJwt::Claims)
}

fn audiences<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(one) => vec![one],
        Value::Array(many) => many.into_iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    })
}

impl Claims {
    /// The `ServiceAccount`'s name, when it is one's.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.sub.as_deref()?.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// For how many seconds more it holds at `now`; negative when it has ended.
    pub fn remaining(&self, now: f64) -> Option<f64> {
        self.exp.map(|end| end - now)
    }
}

#[cfg(test)]
pub(crate) fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(&serde_json::json!({"alg": "RS256", "kid": "k"})), part(claims))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_read_whether_the_audience_is_one_or_many() {
        let token =
            unsigned(&json!({"iss": "i", "sub": "system:serviceaccount:ns:runner", "aud": "a", "exp": 9}));
        let (header, claims) = decode(&token).unwrap();
        assert_eq!((header.alg.as_str(), header.kid.as_deref()), ("RS256", Some("k")));
        assert_eq!(
            (claims.aud.as_slice(), claims.service_account()),
            (&["a".to_owned()][..], Some(("ns", "runner")))
        );
        assert_eq!(claims.remaining(4.0), Some(5.0));
        let (_, many) = decode(&unsigned(&json!({"aud": ["a", "b"]}))).unwrap();
        assert_eq!(many.aud, ["a", "b"]);
    }

    #[test]
    fn what_is_no_jwt_is_told_apart() {
        for (token, want) in [
            ("", NotAJwt::Parts),
            ("a.b", NotAJwt::Parts),
            ("a.b.c.d.e", NotAJwt::Encrypted),
            ("*.e30.x", NotAJwt::Base64),
            ("e30.bnVsbA.x", NotAJwt::Claims),
        ] {
            assert_eq!(decode(token), Err(want), "{token}");
        }
        assert_eq!(decode(&"a".repeat(LONGEST + 1)), Err(NotAJwt::TooLong));
    }
}
