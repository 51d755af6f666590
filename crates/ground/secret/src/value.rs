//! A secret value that is never printed and is zeroed when dropped.

use std::fmt;
use zeroize::Zeroizing;

/// The shortest accepted secret, in bytes: redacting anything shorter would mask ordinary output.
pub const MIN_SECRET_BYTES: usize = 8;

/// The value is too short to be redacted safely. Contains the credential's name, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the value of {name} has {length} bytes; a secret needs at least {MIN_SECRET_BYTES} to be redacted safely"
)]
pub struct TooShort {
    /// The credential's name.
    pub name: String,
    /// Its length in bytes.
    pub length: usize,
}

/// The bytes of a secret. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Creates a secret from the value of credential `name`. One trailing newline, as added by editors or
    /// `echo`, is removed.
    pub fn new(name: &str, value: impl Into<Vec<u8>>) -> Result<Self, TooShort> {
        let mut value = Zeroizing::new(value.into());
        if value.ends_with(b"\n") {
            value.pop();
            if value.ends_with(b"\r") {
                value.pop();
            }
        }
        if value.len() < MIN_SECRET_BYTES {
            return Err(TooShort { name: name.to_owned(), length: value.len() });
        }
        Ok(Self(value))
    }

    /// The bytes of the secret. Only for code that has to pass them on.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_value() {
        assert_eq!(format!("{:?}", Secret::new("K", "hunter2hunter2").unwrap()), "Secret(…)");
    }

    #[test]
    fn a_final_newline_is_removed_and_short_values_are_refused() {
        assert_eq!(Secret::new("K", "12345678\r\n").unwrap().expose(), b"12345678");
        assert_eq!(Secret::new("K", "1234567\n"), Err(TooShort { name: "K".to_owned(), length: 7 }));
    }
}
