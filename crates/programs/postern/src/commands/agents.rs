//! The agents that are embedded in this build, for injection.

use postern_exec::inject::Arch;
use std::sync::OnceLock;

static AMD64: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent-amd64"));
static ARM64: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent-arm64"));

/// The agent for an architecture, decompressed once; `None` if this build has none.
pub(crate) fn embedded(arch: Arch) -> Option<&'static [u8]> {
    static INFLATED: [OnceLock<Vec<u8>>; 2] = [const { OnceLock::new() }; 2];
    let (deflated, inflated) = match arch {
        Arch::Amd64 => (AMD64, &INFLATED[0]),
        Arch::Arm64 => (ARM64, &INFLATED[1]),
    };
    let agent =
        inflated.get_or_init(|| miniz_oxide::inflate::decompress_to_vec(deflated).unwrap_or_default());
    (!agent.is_empty()).then_some(agent)
}
