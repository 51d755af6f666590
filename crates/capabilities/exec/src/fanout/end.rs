//! Options one target of a fan-out ended.

use crate::error::{ExecError, exit};
use crate::session::Ended;
use std::time::Duration;

/// The result of running one target.
#[derive(Debug)]
pub struct Ran {
    /// Options the command ended, or why there is no exit code.
    pub result: Result<Ended, ExecError>,
}

impl Ran {
    pub(super) fn cancelled() -> Self {
        Self { result: Err(ExecError::Cancelled("")) }
    }
}

impl From<Result<Ended, ExecError>> for Ran {
    fn from(result: Result<Ended, ExecError>) -> Self {
        Self { result }
    }
}

/// Options one target ended, and how much output it sent.
#[derive(Debug)]
pub struct End {
    /// The result.
    pub ran: Ran,
    /// Bytes of its stdout.
    pub stdout_bytes: u64,
    /// Bytes of its stderr.
    pub stderr_bytes: u64,
    /// The time since its start, connecting included.
    pub duration: Duration,
}

/// The class of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// With code 0.
    Ok,
    /// It exited with another code, was ended by a signal, ran out of time, or its output is incomplete.
    Failed,
    /// The command was never reached.
    NotReached,
    /// It ended, or was never started, because the whole fan-out was stopped.
    Cancelled,
}

impl End {
    pub(super) fn never_started() -> Self {
        let ran = Ran { result: Err(ExecError::Cancelled(" before it was started")) };
        Self { ran, stdout_bytes: 0, stderr_bytes: 0, duration: Duration::ZERO }
    }

    /// Returns the exit code that counts for this target.
    pub fn exit_code(&self) -> u8 {
        match &self.ran.result {
            Ok(ended) => ended.exit_code(),
            Err(error) => error.exit_code(),
        }
    }

    /// Returns its class.
    pub fn class(&self) -> Class {
        match &self.ran.result {
            Ok(ended) if ended.exit_code() == 0 => Class::Ok,
            Err(ExecError::Cancelled(_)) => Class::Cancelled,
            Err(error) if error.exit_code() == exit::NEVER_REACHED => Class::NotReached,
            Ok(_) | Err(_) => Class::Failed,
        }
    }

    /// Returns the end in one word, for programs.
    pub fn outcome(&self) -> &'static str {
        match &self.ran.result {
            Ok(Ended::Exited(_)) => "exited",
            Ok(Ended::Signaled(_)) => "signaled",
            Err(ExecError::TimedOut { .. }) => "timed-out",
            Err(ExecError::Cancelled(_)) => "cancelled",
            Err(error) => error.kind(),
        }
    }

    /// Returns why the command did not end by itself, with the causes of the error.
    pub fn error(&self) -> Option<String> {
        let error = self.ran.result.as_ref().err()?;
        let mut text = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(source) = next {
            let cause = source.to_string();
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
            next = source.source();
        }
        Some(text)
    }

    /// Returns the end in a few words, for people.
    pub fn description(&self) -> String {
        match (&self.ran.result, self.class()) {
            (Ok(Ended::Exited(code)), _) => format!("exit {code}"),
            (Ok(Ended::Signaled(number)), _) => format!("ended by signal {number}"),
            (Err(_), Class::NotReached) => format!("not reached: {}", self.error().unwrap_or_default()),
            (Err(_), _) => self.error().unwrap_or_default(),
        }
    }
}
