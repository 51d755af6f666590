//! Parses `s3://BUCKET/KEY`.

/// A bucket, and a key or a prefix of keys in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The bucket's name, or an access point's ARN.
    pub bucket: String,
    /// The key; empty for the whole bucket.
    pub key: String,
}

impl Location {
    /// Parses `s3://BUCKET[/KEY]`; the error is for users.
    pub fn parse(word: &str) -> Result<Self, String> {
        let rest = word.strip_prefix("s3://").ok_or_else(|| format!("{word} does not begin with s3://"))?;
        // The ARN of an access point contains a slash: arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME.
        let (bucket, key) = match rest.split_once(":accesspoint/") {
            Some((arn, rest)) if rest.contains('/') || !rest.is_empty() => {
                let (name, key) = rest.split_once('/').unwrap_or((rest, ""));
                (format!("{arn}:accesspoint/{name}"), key)
            }
            _ => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                (bucket.to_owned(), key)
            }
        };
        if bucket.is_empty() {
            return Err(format!("{word} has no bucket: write s3://BUCKET/KEY"));
        }
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:/".contains(&byte);
        if !bucket.bytes().all(named) || bucket.len() > 255 {
            return Err(format!(
                "{word}: {bucket:?} is not a bucket name (letters, digits, dots and dashes)"
            ));
        }
        Ok(Self { bucket, key: key.to_owned() })
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bucket, key } = self;
        write!(f, "s3://{bucket}/{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_parsed() {
        let parse = |word: &str| Location::parse(word).map(|found| (found.bucket, found.key));
        let of = |bucket: &str, key: &str| Ok((bucket.to_owned(), key.to_owned()));
        assert_eq!(parse("s3://b"), of("b", ""));
        assert_eq!(parse("s3://b/"), of("b", ""));
        assert_eq!(parse("s3://b.c-1/a b/*.gz"), of("b.c-1", "a b/*.gz"));
        assert_eq!(parse("s3://b//a"), of("b", "/a"));
        assert_eq!(
            parse("s3://arn:aws:s3:eu-west-1:1:accesspoint/p/k/x"),
            of("arn:aws:s3:eu-west-1:1:accesspoint/p", "k/x")
        );
        for wrong in ["s3://", "s3:///k", "s3://a b/k", "s3:/b", "b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
