//! Where things go in a bucket, as near to cp(1) as keys allow: a prefix that any key has is a directory.

use crate::error::{Kind, Trouble};
use crate::link::Ended;
use crate::store::Store;
use postern_wire::copy::{Entry, Kind as What, ReceiveSpec};

/// Longest key, in bytes (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>).
const KEY_MAX: usize = 1_024;

/// The prefix that everything gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Empty, or with a slash at its end.
    pub(crate) prefix: String,
    /// What the one thing that was asked for is called, where not by its own name.
    pub(crate) rename: Option<String>,
    /// A directory's content goes below the prefix.
    pub(crate) contents: bool,
    /// Whether there may be objects already: each has to be looked at.
    pub(crate) occupied: bool,
}

impl Placed {
    /// The key that an entry gets; the error is for people.
    pub(crate) fn key(&self, path: &[u8]) -> Result<String, String> {
        let path = std::str::from_utf8(path).map_err(|_| "S3 takes names in UTF-8 only".to_owned())?;
        let key = match (&self.rename, path.split_once('/')) {
            (None, _) => format!("{}{path}", self.prefix),
            (Some(rename), None) => format!("{}{rename}", self.prefix),
            (Some(rename), Some((_, rest))) => format!("{}{rename}/{rest}", self.prefix),
        };
        match key.len() {
            0..=KEY_MAX => Ok(key),
            long => Err(format!("its key would have {long} bytes, and S3 takes {KEY_MAX}")),
        }
    }
}

/// Finds the place for a copy whose first entry is this one.
pub(crate) async fn place(
    store: &Store,
    spec: &ReceiveSpec,
    tops: u32,
    first: &Entry,
) -> Result<Placed, Ended> {
    let target = std::str::from_utf8(&spec.target);
    let target = target.map_err(|_| Ended::Fatal("S3 takes names in UTF-8 only".to_owned()))?;
    let contents = first.path.is_empty();
    let into = spec.directory || tops > 1 || contents;
    // A key is what was written, down to its last slash: `p//` is not `p/`, and `/` is not the whole bucket.
    let slash = target.is_empty() || target.ends_with('/');
    let below = if slash { target.to_owned() } else { format!("{target}/") };
    let named = |occupied| {
        let (parent, last) =
            target.rsplit_once('/').map_or((None, target), |(parent, last)| (Some(parent), last));
        let prefix = parent.map(|parent| format!("{parent}/")).unwrap_or_default();
        Placed { prefix, rename: Some(last.to_owned()), contents: false, occupied }
    };
    if spec.named {
        return Ok(named(true));
    }
    let there = store.any(&below).await?;
    if into || slash || there == Some(true) {
        if into && !slash && there != Some(true) && object(store, target).await? {
            return Err(Ended::Fatal(format!(
                "{} is an object, and only a prefix can hold what is copied; write {}/ if that is meant",
                store.show(target),
                store.show(target)
            )));
        }
        return Ok(Placed { prefix: below, rename: None, contents, occupied: there != Some(false) });
    }
    let is_object = object(store, target).await?;
    if is_object && first.kind == What::Directory {
        let shown = store.show(target);
        return Err(Ended::Fatal(format!("{shown} is an object: a directory cannot take its place")));
    }
    Ok(named(is_object || there.is_none()))
}

async fn object(store: &Store, key: &str) -> Result<bool, Ended> {
    match store.head(key).await {
        Ok(found) => Ok(found.is_some()),
        Err(Trouble { kind: Kind::Denied, message: _ }) => Ok(false),
        Err(trouble) => Err(trouble.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_gets_its_key_below_the_prefix() {
        let at = |prefix: &str, rename: Option<&str>| Placed {
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
