//! The progress reports of operations.

use postern_kube::apply::{Change, ObjectRef};

/// Receives the progress of an install.
pub trait Reporter: Send {
    /// An object was applied, kept or deleted. `details` are the differences of a dry run.
    fn changed(&mut self, change: Change, of: &ObjectRef, details: &[String]);
    /// What the operation waits for.
    fn progress(&mut self, text: &str);
    /// A line of the result that is not about an object of the cluster.
    fn receipt(&mut self, text: &str);
    /// Something the user should know.
    fn warn(&mut self, text: &str);
}
