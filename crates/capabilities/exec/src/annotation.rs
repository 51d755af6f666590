//! The annotation that says where a pod's agent is.

/// The annotation by which a pod says that its image has the agent, and where.
pub const AGENT_ANNOTATION: &str = "postern.dev/agent";
