//! Servers that are too busy: 429 (RFC 6585 section 4) and 503, and the wait that they ask for.

use http::{HeaderMap, header};
use std::time::{Duration, SystemTime};

/// Returns the meaning of a status for "try later"; `None` for any other status.
pub fn busy_reason(status: u16) -> Option<&'static str> {
    match status {
        429 => Some("it limits the rate of our requests"),
        503 => Some("it is unavailable for now"),
        _ => None,
    }
}

/// Returns the number of tries in words.
pub fn times(tries: u32) -> String {
    if tries == 1 { "once".to_owned() } else { format!("{tries} times") }
}

/// Returns the wait that a server asks for: seconds, or until a date (RFC 9110 section 10.2.3).
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let until = SystemTime::from(date.timestamp());
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_asks_for_patience_in_seconds_or_until_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // 1994-11-06 08:49:37
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(asked("120"), Some(120));
        assert_eq!(asked("Sun, 06 Nov 1994 09:49:37 GMT"), Some(3_600));
        assert_eq!(asked("Sun, 06 Nov 1994 07:49:37 GMT"), Some(0));
        assert_eq!(asked("later"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
