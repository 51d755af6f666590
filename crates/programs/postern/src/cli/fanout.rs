//! The options of `exec` and `run` over many targets.

use clap::Args;

/// Targets at a time, where nothing is said.
const PARALLEL: u16 = 16;

/// What they stand below in the help.
pub(crate) const HEADING: &str = "Over several targets";

#[derive(Debug, Args)]
pub(crate) struct FanOut {
    /// The number of runs at a time, 1 to 64 [default: 16]
    #[arg(long, help_heading = HEADING, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(postern_exec::fanout::MOST_AT_A_TIME)))]
    parallel: Option<u16>,
    /// Print the output of each target in one piece, when the target ends
    #[arg(long, help_heading = HEADING)]
    pub(crate) group: bool,
    /// Cancel all other runs when one does not exit with 0
    #[arg(long, help_heading = HEADING)]
    pub(crate) fail_fast: bool,
}

impl FanOut {
    /// Targets at a time.
    pub(crate) fn parallel(&self) -> usize {
        self.parallel.unwrap_or(PARALLEL).into()
    }

    /// The first of these options that was given: it asks for a fan-out's output, over however many targets.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let Self { parallel, group, fail_fast } = self;
        let all = [("--parallel", parallel.is_some()), ("--group", *group), ("--fail-fast", *fail_fast)];
        all.into_iter().find_map(|(name, given)| given.then_some(name))
    }
}
