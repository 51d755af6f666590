//! The two ends of a copy: no cluster, no async runtime, so that the agent in a pod and the client on a workstation
//! run the same code.
//!
//! * [`source`]: walks what was asked for, and sends the content that the other end wants.
//! * [`destination`]: decides what it wants, writes beneath its root only, and answers every entry.
//! * [`link`]: the frames between them ([`postern_wire::copy`]), with signs of life.
//!
//! What the other end says is hostile input at both.

mod beginning;
mod beneath;
mod chunks;
pub mod destination;
mod inside;
pub mod link;
pub mod name;
pub mod pack;
pub mod pattern;
mod resolve;
mod share;
pub mod source;
mod stat;
pub mod stop;
pub mod tree;
pub mod verdict;

/// The rules of a request; an error for people names the pattern that is none.
pub fn rules(given: &[postern_wire::copy::Rule]) -> Result<pattern::Rules, String> {
    let kind = |include| if include { pattern::Kind::Include } else { pattern::Kind::Exclude };
    let given = given.iter().map(|rule| (kind(rule.include), rule.pattern.as_slice()));
    pattern::Rules::parse(given).map_err(|error| error.to_string())
}
