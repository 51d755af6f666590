//! Messages for errors of S3.

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use postern_net::error::innermost as cause;
use std::error::Error;

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestError {
    /// For users: what was attempted, and why it failed.
    pub(crate) message: String,
    pub(crate) kind: Kind,
}

/// The errors that callers distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No such object or upload.
    Missing,
    /// No such bucket.
    NoBucket,
    /// The credentials are not sufficient. Without permission to list, S3 also returns this for objects that
    /// do not exist.
    Denied,
    /// The object has changed (`If-Match`).
    Changed,
    /// The server throttles us or is overloaded.
    Busy,
    /// Any other error.
    Other,
}

impl RequestError {
    pub(crate) fn new(attempt: &str, why: &str) -> Self {
        Self { message: format!("{attempt}: {why}"), kind: Kind::Other }
    }

    /// `attempt` is the purpose of the request and the object, such as "looking at" and its name.
    pub(crate) fn of<E>(attempt: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let (kind, why) = classify(error);
        Self { message: format!("{attempt}: {why}"), kind }
    }
}

fn classify<E>(error: &SdkError<E, HttpResponse>) -> (Kind, String)
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let (code, said) = (answer.err().code(), answer.err().message());
            refused(status, code, said)
        }
        SdkError::ResponseError(_) => (Kind::Other, format!("invalid answer: {}", cause(error))),
        SdkError::TimeoutError(_) => (Kind::Other, "no answer in time".to_owned()),
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => (Kind::Other, unsent(error)),
        _ => (Kind::Other, cause(error)),
    }
}

fn refused(status: u16, code: Option<&str>, said: Option<&str>) -> (Kind, String) {
    let words = match (code, said.filter(|said| !said.is_empty())) {
        (Some(code), Some(said)) => format!("{code}: {said}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => format!("status {status}"),
    };
    let (kind, help) = match (code.unwrap_or_default(), status) {
        ("NoSuchBucket", _) => (Kind::NoBucket, "there is no such bucket"),
        ("PreconditionFailed", _) | (_, 412) => (Kind::Changed, "it has changed meanwhile"),
        ("InvalidAccessKeyId" | "XAdminUserNotFound", _) => {
            (Kind::Denied, "the access key does not exist; was it deleted, or is it for another server?")
        }
        ("SignatureDoesNotMatch", _) => (Kind::Denied, "the secret key does not match the access key"),
        ("NoSuchKey" | "NoSuchUpload" | "NotFound", _) | (_, 404) => (Kind::Missing, "it does not exist"),
        ("ExpiredToken" | "TokenRefreshRequired", _) => {
            (Kind::Denied, "the session has expired; log in again")
        }
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
        | (_, 301) => {
            (Kind::Other, "the bucket is in another region; name it with --s3-region or AWS_REGION")
        }
        ("SlowDown" | "TooManyRequests" | "RequestLimitExceeded", _) | (_, 429) => {
            (Kind::Busy, "the server limits the rate of our requests; try again later")
        }
        ("ServiceUnavailable", _) | (_, 503) => {
            (Kind::Busy, "the server is unavailable for now; try again later")
        }
        ("InternalError", _) => (Kind::Busy, "the server is overloaded; try again later"),
        ("AccessDenied" | "AllAccessDisabled", _) | (_, 401 | 403) => {
            (Kind::Denied, "the credentials do not allow it")
        }
        _ => (Kind::Other, ""),
    };
    let why = if help.is_empty() { words } else { format!("{help} ({words})") };
    (kind, why)
}

/// Why a request was not sent.
fn unsent(error: &(dyn Error + 'static)) -> String {
    let all = DisplayErrorContext(error).to_string();
    // The SDK wraps the cause in errors of its own.
    if all.to_lowercase().contains("credential") {
        return format!(
            "no credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a provider of the \
             config with --s3-identity ({})",
            cause(error)
        );
    }
    if all.contains("MissingRegion") || all.contains("A region must be set") {
        return "no region: name it with --s3-region or AWS_REGION".to_owned();
    }
    format!("it cannot be reached: {}", cause(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_are_classified() {
        let kind = |status, code| refused(status, code, None).0;
        assert_eq!(kind(404, Some("NoSuchBucket")), Kind::NoBucket);
        assert_eq!(kind(404, Some("NoSuchUpload")), Kind::Missing);
        assert_eq!(kind(404, None), Kind::Missing);
        assert_eq!(kind(403, None), Kind::Denied);
        assert_eq!(kind(403, Some("SignatureDoesNotMatch")), Kind::Denied);
        assert_eq!(kind(412, None), Kind::Changed);
        assert_eq!(kind(500, Some("InternalError")), Kind::Busy);
        assert_eq!((kind(503, None), kind(429, None)), (Kind::Busy, Kind::Busy));
        let (_, why) = refused(400, Some("EntityTooLarge"), Some("too much"));
        assert_eq!(why, "EntityTooLarge: too much");
    }
}
