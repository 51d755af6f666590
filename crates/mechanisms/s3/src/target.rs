//! Resolves the target of a copy in a bucket, as close to cp(1) as keys allow: a prefix of any key is a
//! directory.

use crate::error::{Kind, RequestError};
use crate::link::EndError;
use crate::store::Store;
use postern_wire::copy::{Entry, Kind as What, ReceiveSpec};

/// Maximum length of a key, in bytes
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>).
const KEY_MAX: usize = 1_024;

/// The prefix of all entries of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeyTarget {
    /// Empty, or with a trailing slash.
    pub(crate) prefix: String,
    /// The new name of a single source, if it does not keep its own.
    pub(crate) rename: Option<String>,
    /// Whether the contents of a directory go below the prefix.
    pub(crate) contents: bool,
    /// Whether objects may already exist, so that each has to be checked.
    pub(crate) occupied: bool,
}

impl KeyTarget {
    /// The key of an entry; the error is for users.
    pub(crate) fn key(&self, path: &[u8]) -> Result<String, String> {
        let path = std::str::from_utf8(path).map_err(|_| "S3 requires names in UTF-8".to_owned())?;
        let key = match (&self.rename, path.split_once('/')) {
            (None, _) => format!("{}{path}", self.prefix),
            (Some(rename), None) => format!("{}{rename}", self.prefix),
            (Some(rename), Some((_, rest))) => format!("{}{rename}/{rest}", self.prefix),
        };
        match key.len() {
            0..=KEY_MAX => Ok(key),
            long => Err(format!("its key would have {long} bytes, and S3 allows {KEY_MAX}")),
        }
    }
}

/// Resolves the target of a copy with this first entry.
pub(crate) async fn resolve(
    store: &Store,
    spec: &ReceiveSpec,
    roots: u32,
    first: &Entry,
) -> Result<KeyTarget, EndError> {
    let target = std::str::from_utf8(&spec.target);
    let target = target.map_err(|_| EndError::Fatal("S3 requires names in UTF-8".to_owned()))?;
    let contents = first.path.is_empty();
    let into = spec.directory || roots > 1 || contents;
    // A key is literal, including its trailing slash: `p//` is not `p/`, and `/` is not the whole bucket.
    let slash = target.is_empty() || target.ends_with('/');
    let below = if slash { target.to_owned() } else { format!("{target}/") };
    let named = |occupied| {
        let (parent, last) =
            target.rsplit_once('/').map_or((None, target), |(parent, last)| (Some(parent), last));
        let prefix = parent.map(|parent| format!("{parent}/")).unwrap_or_default();
        KeyTarget { prefix, rename: Some(last.to_owned()), contents: false, occupied }
    };
    if spec.named {
        return Ok(named(true));
    }
    let there = store.has_keys(&below).await?;
    if into || slash || there == Some(true) {
        if into && !slash && there != Some(true) && object(store, target).await? {
            return Err(EndError::Fatal(format!(
                "{} is an object, and this copy needs a prefix; write {}/ for a prefix",
                store.show(target),
                store.show(target)
            )));
        }
        return Ok(KeyTarget { prefix: below, rename: None, contents, occupied: there != Some(false) });
    }
    let is_object = object(store, target).await?;
    if is_object && first.kind == What::Directory {
        let shown = store.show(target);
        return Err(EndError::Fatal(format!("{shown} is an object: a directory cannot replace it")));
    }
    Ok(named(is_object || there.is_none()))
}

async fn object(store: &Store, key: &str) -> Result<bool, EndError> {
    match store.head(key).await {
        Ok(found) => Ok(found.is_some()),
        Err(RequestError { kind: Kind::Denied, message: _ }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_gets_its_key_below_the_prefix() {
        let at = |prefix: &str, rename: Option<&str>| KeyTarget {
            prefix: prefix.to_owned(),
            rename: rename.map(str::to_owned),
            contents: false,
            occupied: false,
        };
        assert_eq!(at("a/b/", None).key(b"c/d").unwrap(), "a/b/c/d");
        assert_eq!(at("", Some("x")).key(b"c").unwrap(), "x");
        assert_eq!(at("a/", Some("x")).key(b"c/d/e").unwrap(), "a/x/d/e");
        assert!(at("", None).key(b"\xff").is_err());
        assert!(at("", None).key(&[b'k'; KEY_MAX]).is_ok());
        assert!(at("p/", None).key(&[b'k'; KEY_MAX]).is_err());
    }
}
