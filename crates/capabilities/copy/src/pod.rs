//! An end in a pod, and the ways to reach it.

use crate::channel::{EndReader, EndWriter, HELLO, OpenEnd};
use crate::shell;
use postern_exec::ExecError;
use postern_exec::ephemeral::{self, Progress, Reached, User, Wanted};
use postern_exec::inject::{self, Agents};
use postern_exec::target::Place;
use postern_exec::transport::{Incoming, Reader};
use postern_kube::Cluster;
use postern_kube::exec::{ExecReader, ExecWriter};
use postern_shell::ResumeMarks;
use postern_wire::copy::CopyRequest;
use postern_wire::{Decoder, FromAgent, Hello};
use std::cell::RefCell;

/// How files in a pod are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The first of the others that works.
    Auto,
    /// The agent in the image.
    Agent,
    /// An agent that is uploaded through the container's shell and removes itself.
    Inject,
    /// The container's shell, and its tar for small files.
    Tar,
    /// The container's shell alone.
    Shell,
    /// An agent in an ephemeral container.
    Ephemeral,
}

impl Via {
    /// The value on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Agent => "agent",
            Self::Inject => "inject",
            Self::Tar => "tar",
            Self::Shell => "shell",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// A message about reaching a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// Always shown.
    Notice(String),
    /// Shown in verbose output.
    Detail(String),
}

/// A container.
pub struct Pod<'a> {
    /// The cluster's client.
    pub cluster: &'a Cluster,
    /// The container.
    pub place: Place,
    /// How it may be reached.
    pub via: Via,
    /// The agents that may be uploaded.
    pub agents: Agents,
    /// The image with the agent, for an ephemeral container.
    pub image: &'a str,
    /// The agent's path in that image.
    pub agent: &'a str,
    /// The container's user, if neither the pod nor its node specifies it.
    pub user: Option<User>,
    /// Whether content that the container's tools read or wrote is verified by hash; an agent always does
    /// that.
    pub verify: bool,
    /// How much the container's tools had read before a connection was lost.
    pub marks: ResumeMarks,
    /// The way that worked, for the next connection.
    pub found: RefCell<Option<Via>>,
}

impl Pod<'_> {
    /// Whether content from this pod is not verified.
    pub(crate) fn is_unverified(&self) -> bool {
        !self.verify && matches!(*self.found.borrow(), Some(Via::Tar | Via::Shell))
    }

    pub(crate) fn name(&self) -> String {
        let Place { namespace, pod, .. } = &self.place;
        format!("pod {namespace}/{pod}")
    }

    pub(crate) async fn open(
        &self,
        request: &CopyRequest,
        notify: &mut dyn FnMut(Notification),
    ) -> Result<OpenEnd, ExecError> {
        let known = *self.found.borrow();
        let (way, opened) = match known.unwrap_or(self.via) {
            Via::Agent => (Via::Agent, self.by_agent().await?),
            Via::Inject => (Via::Inject, self.by_injection().await?),
            Via::Tar => self.by_tools(Some(true), request).await?,
            Via::Shell => self.by_tools(Some(false), request).await?,
            Via::Ephemeral => (Via::Ephemeral, self.by_ephemeral(notify).await?),
            Via::Auto if self.place.agent.is_some() => (Via::Agent, self.by_agent().await?),
            Via::Auto => match self.by_injection().await {
                Ok(opened) => (Via::Inject, opened),
                Err(error @ (ExecError::Inject(_) | ExecError::Runtime(_) | ExecError::NoAgent(_))) => {
                    notify(Notification::Detail(format!("{}: not by inject ({error})", self.name())));
                    self.without_injection(request, notify).await?
                }
                Err(error) => return Err(error),
            },
        };
        if known.is_none() {
            notify(Notification::Detail(format!("{}: reached by {}", self.name(), way.word())));
        }
        *self.found.borrow_mut() = Some(way);
        Ok(opened)
    }

    /// Uses the remaining ways if no agent can be uploaded.
    async fn without_injection(
        &self,
        request: &CopyRequest,
        notify: &mut dyn FnMut(Notification),
    ) -> Result<(Via, OpenEnd), ExecError> {
        match self.by_tools(None, request).await {
            // There is no shell, or it lacks the tools.
            Err(error @ (ExecError::Runtime(_) | ExecError::Target(_))) => {
                notify(Notification::Detail(format!("{}: not by tar or shell ({error})", self.name())));
                Ok((Via::Ephemeral, self.by_ephemeral(notify).await?))
            }
            other => other,
        }
    }

    /// Uses tar, the shell alone, or whichever the container has.
    async fn by_tools(&self, tar: Option<bool>, request: &CopyRequest) -> Result<(Via, OpenEnd), ExecError> {
        let Self { cluster, place, verify, marks, .. } = self;
        let (tar, opened) = shell::open(cluster, place, tar, *verify, marks, request).await?;
        Ok((if tar { Via::Tar } else { Via::Shell }, opened))
    }

    async fn by_agent(&self) -> Result<OpenEnd, ExecError> {
        let Some(agent) = &self.place.agent else {
            return Err(self.place.clone().needs_agent(&["--via agent"]));
        };
        let command = [agent.clone().into_bytes(), b"copy".to_vec()];
        let greeted = wait_for_hello(self.place.open(self.cluster, &command, true, false).await?).await;
        greeted.map_err(|error| self.place.of_agent(error))
    }

    async fn by_injection(&self) -> Result<OpenEnd, ExecError> {
        let Self { cluster, place, agents, .. } = self;
        wait_for_hello(inject::start(cluster, place, *agents, &["copy", "--unlink"]).await?).await
    }

    async fn by_ephemeral(&self, notify: &mut dyn FnMut(Notification)) -> Result<OpenEnd, ExecError> {
        let Self { cluster, place, image, agent, user, .. } = self;
        let wanted = Wanted { image, agent, user: *user };
        let mut said = |told: Progress<'_>| {
            notify(match told {
                Progress::Step(text) => Notification::Detail(text.to_owned()),
                Progress::Problem(text) => Notification::Notice(format!("{}: {text}", self.name())),
            });
        };
        let Reached { place, container_id, created } =
            ephemeral::reach(cluster, place, &wanted, &mut said).await?;
        for added in created {
            notify(Notification::Notice(format!(
                "{}: ephemeral container {added} was added; it runs, and its record stays, for the pod's life",
                self.name()
            )));
        }
        let copy = [agent.as_bytes(), b"copy", b"--of", container_id.as_bytes()];
        wait_for_hello(place.open(cluster, &copy.map(<[u8]>::to_vec), true, false).await?).await
    }
}

async fn wait_for_hello((mut reader, writer): (ExecReader, ExecWriter)) -> Result<OpenEnd, ExecError> {
    let mut decoder = Decoder::default();
    let hello = async {
        let mut said = String::new();
        loop {
            match decoder.next_frame() {
                Ok(Some((kind, payload))) => return check_hello(kind, payload),
                Ok(None) => {}
                Err(error) => return Err(ExecError::NoAgent(error.to_string())),
            }
            match Reader::next(&mut reader).await {
                Incoming::Bytes(bytes) => decoder.push(&bytes),
                Incoming::Diagnostics(bytes) if said.len() < 2_000 => {
                    said.push_str(&String::from_utf8_lossy(&bytes));
                }
                Incoming::Diagnostics(_) => {}
                Incoming::NotStarted(why) => return Err(ExecError::Runtime(why)),
                Incoming::Ended(why) if said.trim().is_empty() => return Err(ExecError::NoAgent(why)),
                Incoming::Ended(why) => {
                    return Err(ExecError::NoAgent(format!("{why}; it said: {}", said.trim())));
                }
            }
        }
    };
    match tokio::time::timeout(HELLO, hello).await {
        Ok(said) => said?,
        Err(_) => return Err(ExecError::NoAgent(format!("no hello within {} s", HELLO.as_secs()))),
    }
    Ok(OpenEnd {
        from: EndReader::Exec(Box::new(reader)),
        to: EndWriter::Exec(Box::new(writer)),
        decoder,
        thread: None,
        sent: None,
    })
}

fn check_hello(kind: u8, payload: &[u8]) -> Result<(), ExecError> {
    match FromAgent::decode(kind, payload) {
        Ok(FromAgent::Hello(Hello { .. })) => Ok(()),
        Ok(_) => Err(ExecError::NoAgent("what answered did not begin with a hello".to_owned())),
        Err(error) => Err(ExecError::NoAgent(error.to_string())),
    }
}
