//! One of several targets of a command.

/// A target: its name, and what the closure needs to reach it.
#[derive(Debug)]
pub struct Job<T> {
    /// The displayed name, which can differ from the object's name.
    pub name: String,
    /// The closure's argument.
    pub what: T,
}
