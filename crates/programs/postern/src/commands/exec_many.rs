//! `postern exec` over several targets.

use super::fanout;
use super::session::within;
use crate::cli::fanout::FanOut;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_exec::ExecError;
use postern_exec::fanout::Ran;
use postern_exec::fanout::place::{self, Options};
use postern_exec::target::{self, Containers, Target};
use postern_kube::Cluster;

/// The targets and options of a fan-out.
pub(super) struct Many<'a> {
    pub(super) namespace: &'a str,
    pub(super) targets: &'a [Target],
    pub(super) all: bool,
    pub(super) containers: Containers<'a>,
    pub(super) options: &'a FanOut,
}

/// Runs the command of `how` in each target.
pub(super) async fn run(
    cluster: &Cluster,
    many: Many<'_>,
    how: Options,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let Many { namespace, targets, all, containers, options } = many;
    let found = within(how.timeout, target::find_all(cluster, namespace, targets, all, containers)).await?;
    printer.verbose(&format!("{} targets in namespace {namespace}", found.len()));
    let how = &how;
    let start = |place, streams, control| async move {
        match place {
            Ok(place) => place::run(cluster, place, how, streams, control).await,
            Err(why) => Ran::from(Err(ExecError::Target(why))),
        }
    };
    fanout::go(found, options, printer, start).await
}
