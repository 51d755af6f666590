//! Parses a token endpoint's answer (RFC 6749 section 5.1, RFC 8693 section 2.2.1), which is untrusted.

use super::{Bearer, Credential, Issued};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use zeroize::Zeroizing;

/// The maximum lifetime of a token; a larger number is a mistake, and would overflow a clock.
const LONGEST: f64 = 10.0 * 366.0 * 86_400.0;

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<Zeroizing<String>>,
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Value,
    refresh_token: Option<Zeroizing<String>>,
    scope: Option<String>,
    issued_token_type: Option<String>,
}

/// Parses a token; the error says what is wrong without any of its content.
pub(crate) fn token(body: &[u8]) -> Result<Issued, String> {
    let TokenAnswer { access_token, token_type, expires_in, refresh_token, scope, issued_token_type } =
        serde_json::from_slice(body).map_err(|error| match error.is_data() {
            true => "a field is of another type than RFC 6749 has it".to_owned(),
            false => "it is not JSON".to_owned(),
        })?;
    let access_token = access_token.filter(|token| !token.is_empty()).ok_or("it has no access_token")?;
    usable(&access_token)?;
    // RFC 8693 section 2.2.1: "N_A" means that it is not an access token.
    if let Some(kind) =
        token_type.filter(|kind| !["bearer", "n_a"].iter().any(|known| kind.eq_ignore_ascii_case(known)))
    {
        let kind: String = kind.chars().filter(char::is_ascii_graphic).take(20).collect();
        return Err(format!("its token_type is {kind:?}, and only Bearer can be used"));
    }
    let lifetime = lifetime(&expires_in)?;
    Ok(Issued {
        credential: Credential::Bearer(Bearer {
            access_token,
            refresh_token: refresh_token.filter(|token| !token.is_empty()),
            scope,
            issued_token_type,
        }),
        lifetime,
    })
}

/// A token is sent in a header, so it must be visible ASCII (RFC 6750 section 2.1).
pub(crate) fn usable(token: &str) -> Result<(), String> {
    match token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(()),
        false => Err("its token contains characters that are not allowed in a header".to_owned()),
    }
}

/// `expires_in` is a number of seconds; some servers send it as a string.
pub(crate) fn lifetime(value: &Value) -> Result<Option<Duration>, String> {
    let seconds = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match seconds.filter(|seconds: &f64| seconds.is_finite()) {
        Some(seconds) if seconds > 0.0 => Ok(Some(Duration::from_secs_f64(seconds.min(LONGEST)))),
        Some(_) => Err("its expires_in is not positive: the token has already expired".to_owned()),
        None => Err("its expires_in is no number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expires_in_is_taken_as_servers_write_it() {
        let seconds = |value| lifetime(&value).map(|found| found.map(|found| found.as_secs()));
        assert_eq!(seconds(json!(3600)), Ok(Some(3600)));
        assert_eq!(seconds(json!("3600")), Ok(Some(3600)));
        assert_eq!(seconds(json!(null)), Ok(None));
        assert_eq!(seconds(json!(1e300)), Ok(Some(316_224_000)));
        for wrong in [json!(-5), json!(0), json!("soon"), json!([]), json!("NaN"), json!("inf")] {
            assert!(seconds(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_read_or_its_fault_named_and_never_shown() {
        let read = |value: Value| token(value.to_string().as_bytes());
        let fine =
            read(json!({"access_token": "t", "token_type": "bearer", "expires_in": "60", "new": 1})).unwrap();
        assert_eq!(fine.lifetime, Some(Duration::from_secs(60)));
        assert_eq!(fine.credential.bearer().unwrap().access_token.as_str(), "t");
        for (value, want) in [
            (json!({"token_type": "bearer"}), "no access_token"),
            (json!({"access_token": ""}), "no access_token"),
            (json!({"access_token": 7}), "another type"),
            (json!({"access_token": "s3cr3t\r\nX: y"}), "not allowed in a header"),
            (json!({"access_token": "s3cr3t", "token_type": "mac"}), "\"mac\""),
            (json!({"access_token": "s3cr3t", "expires_in": -1}), "not positive"),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.contains(want) && !error.contains("s3cr3t"), "{error}");
        }
        assert_eq!(token(b"<html>").unwrap_err(), "it is not JSON");
        assert_eq!(token(b"{\"access_token\": \"s3").unwrap_err(), "it is not JSON");
    }
}
