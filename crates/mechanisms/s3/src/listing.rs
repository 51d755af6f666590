//! Lists and inspects the objects of a bucket.

use crate::error::{Kind, RequestError};
use crate::posix::Posix;
use crate::store::Store;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use aws_sdk_s3::types::EncodingType;
use std::borrow::Cow;

/// An object of a listing, without its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) size: u64,
}

/// Up to a thousand objects, sorted by the bytes of their keys.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Listed>,
    /// Common prefixes, including the delimiter.
    pub(crate) prefixes: Vec<String>,
    /// The token of the next page; `None` after the last.
    pub(crate) next: Option<String>,
}

/// The metadata of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) size: u64,
    pub(crate) etag: Option<String>,
    pub(crate) posix: Posix,
}

/// An announced object.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) key: String,
    pub(crate) found: Found,
}

impl Store {
    /// One page of the keys with this prefix. `flat` stops at the next slash.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        flat: bool,
        next: Option<String>,
        most: Option<i32>,
    ) -> Result<Page, RequestError> {
        // Some characters of a key are not valid in XML.
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .encoding_type(EncodingType::Url)
            .set_delimiter(flat.then(|| "/".to_owned()))
            .set_continuation_token(next)
            .set_max_keys(most);
        let page = request.send().await.map_err(|error| self.error("listing", prefix, &error))?;
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

    /// Whether any key has this prefix; `None` without permission to list.
    pub(crate) async fn has_keys(&self, prefix: &str) -> Result<Option<bool>, RequestError> {
        match self.page(prefix, false, None, Some(1)).await {
            Ok(page) => Ok(Some(!page.objects.is_empty())),
            Err(RequestError { kind: Kind::Denied, message }) if !fatal(&message) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the metadata of an object; `None` if it does not exist.
    pub(crate) async fn head(&self, key: &str) -> Result<Option<Found>, RequestError> {
        let answer = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        match answer {
            Ok(head) => Ok(Some(Found {
                size: u64::try_from(head.content_length().unwrap_or(0)).unwrap_or(0),
                etag: head.e_tag().map(str::to_owned),
                posix: Posix::read(head.metadata(), head.last_modified()),
            })),
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => Ok(None),
            Err(error) => match self.error("looking at", key, &error) {
                RequestError { kind: Kind::Missing, message: _ } => Ok(None),
                error => Err(error),
            },
        }
    }
}

/// Whether an error is about the credentials rather than the requested object.
fn fatal(message: &str) -> bool {
    ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"]
        .iter()
        .any(|code| message.contains(code))
}

/// Decodes `encoding-type=url`: percent signs, and a plus for a space.
fn decoded(text: &str) -> String {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn listed_keys_are_decoded() {
        for (encoded, key) in
            [("a%2Bb+c", "a+b c"), ("%0A%1B%5B", "\n\u{1b}["), ("%C3%A9/%25", "é/%"), ("a/b", "a/b")]
        {
            assert_eq!(decoded(encoded), key);
        }
    }
}
