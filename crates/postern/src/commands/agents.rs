//! The agents that this build carries, for injection.

use postern_exec::inject::Arch;

static AMD64: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent-amd64"));
static ARM64: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent-arm64"));

/// The agent for an architecture; `None` when this build was made without it.
pub(crate) fn embedded(arch: Arch) -> Option<&'static [u8]> {
    let agent = match arch {
        Arch::Amd64 => AMD64,
        Arch::Arm64 => ARM64,
    };
    (!agent.is_empty()).then_some(agent)
}
