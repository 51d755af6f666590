//! One of several targets of a command.

/// A target: what it is called, and what the closure needs to reach it.
#[derive(Debug)]
pub struct Job<T> {
    /// Its name, which need not be its own.
    pub name: String,
    /// The rest.
    pub what: T,
}
