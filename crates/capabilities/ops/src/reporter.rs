//! Where operations say what they do, while they do it.

use postern_kube::apply::{Change, ObjectRef};

/// Where an install tells what it does, as it does it.
pub trait Reporter: Send {
    /// An object was applied, kept or deleted. `details` are the differences of a dry run.
    fn changed(&mut self, change: Change, of: &ObjectRef, details: &[String]);
    /// What is being waited for.
    fn progress(&mut self, text: &str);
    /// A line of the result that is no object of the cluster.
    fn receipt(&mut self, text: &str);
    /// Something the user should know.
    fn warn(&mut self, text: &str);
}
