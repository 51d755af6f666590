//! S3 as an end of a copy, by the AWS SDK.
//!
//! * [`Location`]: what `s3://BUCKET/KEY` names.
//! * [`Store`]: a bucket that can be spoken to; [`Store::send`] is the end with the files, [`Store::receive`] the one that
//!   gets them. Both speak [`postern_wire::copy`], as an agent in a pod does.
//!
//! Objects below a prefix are the files of a directory. Mode, owner, time, directories and symbolic links are kept as
//! objects' metadata in the form that AWS' own file services share (`x-amz-meta-file-permissions` and so on,
//! <https://docs.aws.amazon.com/fsx/latest/LustreGuide/posix-metadata-support.html>).

mod clean;
mod content;
mod destination;
mod error;
mod glob;
mod http;
mod journal;
mod link;
mod listing;
mod location;
mod place;
mod posix;
mod source;
mod store;
mod tree;
mod upload;
mod walk;

pub use location::Location;
pub use store::{AskKeys, Keys, Settings, Store};
