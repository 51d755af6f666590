//! Who files belong to.

use std::fmt;
use std::str::FromStr;

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The UID.
    pub uid: u32,
    /// The GID.
    pub gid: u32,
}

/// A text is not `UID:GID`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not UID:GID, two numbers such as 1000:1000")]
pub struct InvalidOwner(pub String);

impl Owner {
    /// From the numbers of a security context; `None` if one is out of range. The largest number means "do not change"
    /// to chown(2), so it is none.
    pub fn new(uid: i64, gid: i64) -> Option<Self> {
        let id = |id: i64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        Some(Self { uid: id(uid)?, gid: id(gid)? })
    }
}

/// `UID:GID`, as chown(1) takes it.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, gid } = self;
        write!(f, "{uid}:{gid}")
    }
}

impl FromStr for Owner {
    type Err = InvalidOwner;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = |text: &str| {
            let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<i64>().ok().filter(|_| is_decimal)
        };
        let owner = text.split_once(':').and_then(|(uid, gid)| Self::new(id(uid)?, id(gid)?));
        owner.ok_or_else(|| InvalidOwner(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_two_numbers() {
        assert_eq!("1000:2000".parse(), Ok(Owner { uid: 1000, gid: 2000 }));
        assert_eq!("0:4294967294".parse::<Owner>().unwrap().to_string(), "0:4294967294");
        for wrong in ["", "1000", "1000:", ":1", "a:b", "+1:1", "-1:1", "1:4294967295", "1:1:1", " 1:1"] {
            assert_eq!(wrong.parse::<Owner>(), Err(InvalidOwner(wrong.to_owned())));
        }
    }
}
