//! Values that Kubernetes would reject.

/// A value that Kubernetes would reject; names the setting, the value and what is valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {value:?}: {why}")]
pub struct InvalidSetting {
    /// The flag or key.
    pub setting: &'static str,
    /// The value.
    pub value: String,
    /// Why it is invalid, and what is valid.
    pub why: String,
}

/// Checks a DNS label (RFC 1123) of at most `limit` characters.
pub fn dns_name(setting: &'static str, value: &str, limit: usize) -> Result<(), InvalidSetting> {
    let invalid = |why: String| Err(InvalidSetting { setting, value: value.to_owned(), why });
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || (limit > 63 && byte == b'.')
    };
    if value.is_empty() {
        return invalid("the name is empty".to_owned());
    }
    if value.len() > limit {
        return invalid(format!("a name has at most {limit} characters, this one has {}", value.len()));
    }
    if !value.bytes().all(allowed) || value.starts_with(['-', '.']) || value.ends_with(['-', '.']) {
        return invalid(
            "use lower-case letters, digits and '-', beginning and ending with a letter or digit".to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kubernetes_refuses_are_refused_here() {
        assert!(dns_name("-n", "postern-ops", 63).is_ok());
        for wrong in ["", "Upper", "-a", "a-", "a_b", &"x".repeat(64)] {
            assert!(dns_name("-n", wrong, 63).is_err(), "{wrong:?}");
        }
    }
}
