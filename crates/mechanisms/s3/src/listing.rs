//! What a bucket holds.

use crate::error::{Kind, Trouble};
use crate::posix::Posix;
use crate::store::Store;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use aws_sdk_s3::types::EncodingType;
use std::borrow::Cow;

/// An object of a listing, which says nothing of its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) size: u64,
}

/// Up to a thousand objects, in the order of their keys' bytes.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Listed>,
    /// What lies deeper than the delimiter, up to and with it.
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins; nothing after the last.
    pub(crate) next: Option<String>,
}

/// An object that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) size: u64,
    pub(crate) etag: Option<String>,
    pub(crate) posix: Posix,
}

impl Store {
    /// One page of the keys with this prefix; `flat` stops at the next slash.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        flat: bool,
        next: Option<String>,
        most: Option<i32>,
    ) -> Result<Page, Trouble> {
        // Some characters of a key cannot stand in XML.
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .encoding_type(EncodingType::Url)
            .set_delimiter(flat.then(|| "/".to_owned()))
            .set_continuation_token(next)
            .set_max_keys(most);
        let page = request.send().await.map_err(|error| self.trouble("listing", prefix, &error))?;
        let encoded = page.encoding_type() == Some(&EncodingType::Url);
        let plain = |text: &str| if encoded { decoded(text) } else { text.to_owned() };
        Ok(Page {
            objects: page
                .contents()
                .iter()
                .filter_map(|object| {
                    let size = u64::try_from(object.size().unwrap_or(0)).unwrap_or(0);
                    Some(Listed { key: plain(object.key()?), size })
                })
                .collect(),
            prefixes: page.common_prefixes().iter().filter_map(|one| one.prefix()).map(plain).collect(),
            next: page
                .next_continuation_token()
                .filter(|_| page.is_truncated() == Some(true))
                .map(str::to_owned),
        })
    }

    /// Whether there is any key with this prefix; nothing where it may not be known.
    pub(crate) async fn any(&self, prefix: &str) -> Result<Option<bool>, Trouble> {
        match self.page(prefix, false, None, Some(1)).await {
            Ok(page) => Ok(Some(!page.objects.is_empty())),
            Err(Trouble { kind: Kind::Denied, message }) if !fatal(&message) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Looks at an object; nothing where there is none.
    pub(crate) async fn head(&self, key: &str) -> Result<Option<Found>, Trouble> {
        let answer = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        match answer {
            Ok(head) => Ok(Some(Found {
                size: u64::try_from(head.content_length().unwrap_or(0)).unwrap_or(0),
                etag: head.e_tag().map(str::to_owned),
                posix: Posix::read(head.metadata(), head.last_modified()),
            })),
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => Ok(None),
            Err(error) => match self.trouble("looking at", key, &error) {
                Trouble { kind: Kind::Missing, message: _ } => Ok(None),
                trouble => Err(trouble),
            },
        }
    }
}

/// Whether a refusal is of who asks rather than of what is asked for.
fn fatal(message: &str) -> bool {
    ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"]
        .iter()
        .any(|code| message.contains(code))
}

/// As `encoding-type=url` has it: percent signs, and a plus for a space.
fn decoded(text: &str) -> String {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn keys_of_a_listing_are_decoded() {
        for (encoded, key) in
            [("a%2Bb+c", "a+b c"), ("%0A%1B%5B", "\n\u{1b}["), ("%C3%A9/%25", "é/%"), ("a/b", "a/b")]
        {
            assert_eq!(decoded(encoded), key);
        }
    }
}
