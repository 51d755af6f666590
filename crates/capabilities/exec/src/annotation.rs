//! The annotation with the path of a pod's agent.

/// The annotation that gives the path of the agent in the pod's image.
pub const AGENT_ANNOTATION: &str = "postern.dev/agent";
