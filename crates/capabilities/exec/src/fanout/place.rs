//! Runs a command in one of many containers: with the agent of its image, with an injected agent, or with a plain
//! exec.

use super::Ran;
use crate::container_end;
use crate::error::ExecError;
use crate::inject::{self, Agents};
use crate::io::{Control, Streams};
use crate::plain;
use crate::session::{self, Ended, Run};
use crate::target::Place;
use postern_kube::Cluster;
use postern_wire::Request;
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What to run in each container, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The command, and the other fields of the request to the agent.
    pub request: Request,
    /// The agents to inject where the image has none.
    pub inject: Option<Agents>,
    /// The options that only the agent supports.
    pub needs_agent: Vec<&'static str>,
    /// The time limit, connecting included.
    pub timeout: Option<Duration>,
}

/// Runs the command in one container.
pub async fn run(
    cluster: &Cluster,
    place: Place,
    how: &Options,
    streams: Streams,
    mut control: mpsc::Receiver<Control>,
) -> Ran {
    let Options { request, inject, needs_agent, timeout } = how;
    let supervised = match (&place.agent, inject) {
        (Some(path), _) => {
            let command = [path.clone().into_bytes(), b"run".to_vec()];
            Some(unless_stopped(place.open(cluster, &command, true, false), *timeout, &mut control).await)
        }
        (None, Some(agents)) => {
            let starting = inject::start(cluster, &place, *agents, &["run", "--unlink"]);
            Some(unless_stopped(starting, *timeout, &mut control).await)
        }
        (None, None) => None,
    };
    if let Some(opened) = supervised {
        let ran = async {
            let (reader, writer) = opened?;
            let run = Run { request: request.clone(), files: Vec::new() };
            session::run(reader, writer, run, streams, control).await.map(|report| report.outcome)
        };
        let ran = ran.await.map_err(|error| place.of_agent(error));
        return container_end::explain_error(cluster, &place, ran).await.into();
    }
    if !needs_agent.is_empty() {
        return Ran::from(Err(place.needs_agent(needs_agent)));
    }
    let started = Instant::now();
    let opened = place.open(cluster, &request.argv, false, false);
    let ran = async {
        let (reader, writer) = unless_stopped(opened, *timeout, &mut control).await?;
        let left = timeout.map(|limit| limit.saturating_sub(started.elapsed()));
        let code = plain::run(reader, writer, false, left, streams, control).await;
        let code = code.map_err(|error| match error {
            // The limit that the user set, not what is left of it after connecting.
            ExecError::TimedOut { limit, note } => {
                ExecError::TimedOut { limit: timeout.unwrap_or(limit), note }
            }
            other => other,
        })?;
        container_end::check_exit_code(cluster, &place, code, started.elapsed()).await.map(Ended::Exited)
    };
    ran.await.into()
}

/// Returns the result of `opening`, unless a stop or the time limit comes first.
pub async fn unless_stopped<T>(
    opening: impl Future<Output = Result<T, ExecError>>,
    timeout: Option<Duration>,
    control: &mut mpsc::Receiver<Control>,
) -> Result<T, ExecError> {
    let late = async {
        match timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        Some(_) = control.recv() => Err(ExecError::Cancelled(" before it was reached")),
        opened = opening => opened,
        () = late => {
            Err(ExecError::TimedOut { limit: timeout.unwrap_or_default(), note: "; it was not reached" })
        }
    }
}
