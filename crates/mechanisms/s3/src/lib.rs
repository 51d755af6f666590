//! S3 as an end of a copy, with the AWS SDK.
//!
//! * [`Location`]: a parsed `s3://BUCKET/KEY`.
//! * [`Store`]: a client for one bucket. [`Store::send`] is the source, [`Store::receive`] the destination.
//!   Both use [`postern_wire::copy`], like an agent in a pod.
//!
//! Objects below a prefix are the files of a directory. Mode, owner, time, directories and symbolic links are
//! stored as object metadata in the format of AWS' own file services (`x-amz-meta-file-permissions` and so
//! on, <https://docs.aws.amazon.com/fsx/latest/LustreGuide/posix-metadata-support.html>).

mod clean;
mod content;
mod destination;
mod error;
mod glob;
mod hash_tree;
mod http;
mod journal;
mod link;
mod listing;
mod location;
mod posix;
mod serve;
mod source;
mod store;
mod target;
mod upload;
mod walk;

pub use location::Location;
pub use store::{AskKeys, Keys, Settings, Store};
