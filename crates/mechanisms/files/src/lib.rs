//! The two ends of a copy. Uses no cluster and no async runtime, so the agent in a pod and the client on a
//! workstation run the same code.
//!
//! * [`source`]: walks the requested paths and sends the content that the other end requests.
//! * [`destination`]: requests content, writes beneath its root only, and answers every entry.
//! * [`link`]: the frames between them ([`postern_wire::copy`]), with heartbeats.
//!
//! Both ends treat the other end's frames as hostile input.

mod beneath;
mod chunks;
pub mod compression;
pub mod cp_rules;
pub mod destination;
pub mod existing;
pub mod hash_tree;
pub mod link;
mod link_target;
pub mod name;
mod open_files;
pub mod pattern;
pub mod policy;
mod prefix_hash;
mod resolve;
pub mod source;
mod stat;
pub mod stop_flag;

/// Parses the rules of a request. The error, for users, names the invalid pattern.
pub fn rules(given: &[postern_wire::copy::Rule]) -> Result<pattern::Rules, String> {
    let kind = |include| if include { pattern::Kind::Include } else { pattern::Kind::Exclude };
    let given = given.iter().map(|rule| (kind(rule.include), rule.pattern.as_slice()));
    pattern::Rules::parse(given).map_err(|error| error.to_string())
}
