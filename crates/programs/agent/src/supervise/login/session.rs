//! The session that `ibmcloud` stores in its configuration file.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A session is renewed when less than this fraction of its token's lifetime is left.
const LEFT: u64 = 5;

/// A valid session.
#[derive(Debug)]
pub(super) struct Session {
    /// Its access token.
    pub(super) token: String,
}

impl Session {
    /// The session in `home`, if it has this profile and does not expire soon.
    pub(super) fn of(home: &Path, profile: Option<&str>) -> Option<Self> {
        let config = std::fs::read_to_string(home.join(".bluemix/config.json")).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        Self::read(&config, profile, now)
    }

    fn read(config: &str, profile: Option<&str>, now: u64) -> Option<Self> {
        let token = string_after(config, "\"IAMToken\"")?;
        let token = token.strip_prefix("Bearer ").unwrap_or(token);
        let claims = token.split('.').nth(1)?;
        let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?).ok()?;
        let (expires, issued) =
            (number_after(&claims, "\"exp\"")?, number_after(&claims, "\"iat\"").unwrap_or(now));
        let margin = expires.saturating_sub(issued) / LEFT;
        let fresh = now < expires.saturating_sub(margin);
        let ours = profile.is_none_or(|profile| claims.contains(profile));
        (fresh && ours).then(|| Self { token: token.to_owned() })
    }
}

/// The string after a key of a JSON text, if it contains no escapes.
fn string_after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let rest = after(text, key)?.strip_prefix('"')?;
    let value = &rest[..rest.find('"')?];
    (!value.contains('\\')).then_some(value)
}

/// The integer after a key.
fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = after(text, key)?;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    Some(text[text.find(key)? + key.len()..].trim_start().strip_prefix(':')?.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(claims: &str) -> String {
        format!(
            "{{\"APIEndpoint\": \"x\",\n  \"IAMToken\": \"Bearer h.{}.sig\"}}",
            URL_SAFE_NO_PAD.encode(claims)
        )
    }

    #[test]
    fn a_session_is_valid_for_its_profile_until_a_fifth_is_left() {
        let config = config(r#"{"iam_id":"iam-Profile-1","iat":1000,"exp":4600}"#);
        let holds = |profile, now| Session::read(&config, profile, now).is_some();
        assert!(holds(Some("Profile-1"), 1_000) && holds(None, 3_879));
        assert!(!holds(Some("Profile-1"), 3_880) && !holds(Some("Profile-2"), 1_000));
        assert_eq!(Session::read(&config, None, 1_000).unwrap().token.rsplit('.').next(), Some("sig"));
    }

    #[test]
    fn malformed_config_files_are_harmless() {
        let whole = config(r#"{"iam_id":"iam-Profile-1ä","iat":1000,"exp":99999999999999999999}"#);
        for cut in (0..=whole.len()).filter(|&cut| whole.is_char_boundary(cut)) {
            for glue in ["", "\"", ":", "ä", "\"IAMToken\":\""] {
                let text = format!("{}{glue}{}", &whole[cut..], &whole[..cut]);
                assert!(Session::read(&text, Some("Profile-2"), u64::MAX).is_none());
            }
        }
    }

    #[test]
    fn malformed_sessions_are_ignored() {
        for text in [
            "",
            "{}",
            r#"{"IAMToken":""}"#,
            r#"{"IAMToken": 1}"#,
            r#"{"IAMToken":"Bearer a.b.c"}"#,
            r#"{"IAMToken":"a\"b"#,
        ] {
            assert!(Session::read(text, None, 0).is_none(), "{text}");
        }
        assert!(Session::read(&config("{}"), None, 0).is_none());
    }
}
