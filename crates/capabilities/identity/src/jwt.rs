//! Decodes a token's claims (RFC 7519) without verifying it: the provider verifies it. Never printed.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

/// The maximum length of a token, in bytes.
pub const LONGEST: usize = 64 * 1024;

/// The error of a token that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not three dot-separated parts.
    #[error("expected three dot-separated parts")]
    Parts,
    /// Five parts: encrypted (RFC 7516).
    #[error("it is encrypted (a JWE), so that only the provider can read it")]
    Encrypted,
    /// A part is not base64url.
    #[error("a part of it is not base64url")]
    Base64,
    /// The claims are not a JSON object.
    #[error("its claims are not a JSON object")]
    Claims,
    /// Longer than [`LONGEST`].
    #[error("it is longer than 64 KiB")]
    TooLong,
}

/// The claims that Postern uses.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// The issuer.
    pub iss: Option<String>,
    /// The subject.
    pub sub: Option<String>,
    /// The audience; one or several.
    #[serde(deserialize_with = "audiences")]
    pub aud: Vec<String>,
    /// The expiration time, in seconds since 1970.
    pub exp: Option<f64>,
    /// When it was issued.
    pub iat: Option<f64>,
    /// The time from which it is valid.
    pub nbf: Option<f64>,
    /// The claims that Kubernetes adds.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Value,
}

/// A token's header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Header {
    /// The signature algorithm.
    pub alg: String,
    /// The key's ID.
    pub kid: Option<String>,
}

/// Decodes header and claims of a token.
pub fn decode(token: &str) -> Result<(Header, Claims), JwtError> {
    if token.len() > LONGEST {
        return Err(JwtError::TooLong);
    }
    let parts: Vec<_> = token.split('.').collect();
    let (header, claims) = match parts.as_slice() {
        [header, claims, _signature] => (*header, *claims),
        [_, _, _, _, _] => return Err(JwtError::Encrypted),
        _ => return Err(JwtError::Parts),
    };
    Ok((part(header)?, part(claims)?))
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, JwtError> {
    // Some issuers add padding.
    let bytes =
        URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text)).map_err(|_| JwtError::Base64)?;
    serde_json::from_slice(&bytes).map_err(|_| JwtError::Claims)
}

fn audiences<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(one) => vec![one],
        Value::Array(many) => many.into_iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    })
}

impl Claims {
    /// Returns the `ServiceAccount`'s namespace and name, if the token belongs to one.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.sub.as_deref()?.strip_prefix("system:serviceaccount:")?.split_once(':')
    }

    /// Returns the remaining seconds at `now`; negative if it has expired.
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
            ("", JwtError::Parts),
            ("a.b", JwtError::Parts),
            ("a.b.c.d.e", JwtError::Encrypted),
            ("*.e30.x", JwtError::Base64),
            ("e30.bnVsbA.x", JwtError::Claims),
        ] {
            assert_eq!(decode(token), Err(want), "{token}");
        }
        assert_eq!(decode(&"a".repeat(LONGEST + 1)), Err(JwtError::TooLong));
    }
}
