//! Runs one copy from a source to a destination.

use crate::channel::{EndWriter, OpenEnd};
use crate::ends::{self, End};
use crate::error::CopyError;
use crate::flow_control::FlowControl;
use crate::ledger::Ledger;
use crate::rate_limit::RateLimit;
use crate::relay::{RelayError, Role, relay};
use postern_wire::copy::{CopyRequest, ReceiveSpec, SendSpec};
use std::cell::RefCell;
use std::time::Duration;

/// A copy.
pub struct Job<'a> {
    /// The source.
    pub source: End<'a>,
    /// The destination.
    pub destination: End<'a>,
    /// The request to the source.
    pub send: SendSpec,
    /// The request to the destination.
    pub receive: ReceiveSpec,
    /// The number of retries of a lost connection without progress in between.
    pub retries: u32,
    /// Maximum bytes per second.
    pub bwlimit: Option<u64>,
}

/// The first and the longest pause before a retry.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Job<'_> {
    /// Copies. Reports the result of each file to the ledger's observer; the ledger contains the totals even
    /// after an error.
    pub async fn run(&self, ledger: &mut Ledger<'_>) -> Result<(), CopyError> {
        let mut limit = RateLimit::new(self.bwlimit);
        let flow = FlowControl::default();
        let (mut vain, mut pause) = (0, PAUSE);
        loop {
            let before = ledger.progress_marker();
            ledger.begin();
            let (role, message) = match self.connect_and_relay(ledger, &mut limit, &flow).await {
                Ok(()) => return Ok(()),
                Err(AttemptError::Fatal(error)) => return Err(error),
                Err(AttemptError::Lost(role, message)) => (role, message),
            };
            if ledger.progress_marker() != before {
                (vain, pause) = (0, PAUSE);
            }
            let place = self.place(role);
            if vain >= self.retries || !self.can_repeat() {
                return Err(CopyError::Lost { place, message, retries: vain });
            }
            vain += 1;
            ledger.record_retry();
            ledger.notice(&format!("the connection to {place} was lost ({message}); reconnecting"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether the source can be read again; our stdin cannot.
    fn can_repeat(&self) -> bool {
        !matches!(self.source, End::Stream(_))
    }

    fn place(&self, role: Role) -> String {
        match role {
            Role::Source => self.source.name(),
            Role::Destination => self.destination.name(),
        }
    }

    async fn connect_and_relay(
        &self,
        ledger: &mut Ledger<'_>,
        limit: &mut RateLimit,
        flow: &FlowControl,
    ) -> Result<(), AttemptError> {
        let receive = ReceiveSpec { named: ledger.named(), ..self.receive.clone() };
        let (send, receive) = (CopyRequest::Send(self.send.clone()), CopyRequest::Receive(receive));
        let again = ledger.retries() > 0;
        let (source, destination) = {
            let told = RefCell::new(&mut *ledger);
            let tell = |notification| told.borrow_mut().notification(notification);
            let (mut of_source, mut of_destination) = (tell, tell);
            tokio::join!(
                ends::open(&self.source, &send, &mut of_source),
                ends::open(&self.destination, &receive, &mut of_destination)
            )
        };
        let (source, destination) = match (source, destination) {
            (Ok(source), Ok(destination)) => (source, destination),
            (source, destination) => {
                let role = if source.is_err() { Role::Source } else { Role::Destination };
                let mut error = None;
                for end in [source, destination] {
                    match end {
                        Ok(opened) => opened.close().await,
                        Err(failed) => error = error.or(Some(failed)),
                    }
                }
                return Err(match error {
                    // The end was reachable before, so it may be again.
                    Some(error) if again => AttemptError::Lost(role, describe(&error)),
                    Some(error) => AttemptError::Fatal(error),
                    None => AttemptError::Lost(role, "it ended".to_owned()),
                });
            }
        };
        ledger.set_request(&self.receive);
        if let End::Pod(pod) = &self.source {
            ledger.set_unverified_source(pod.is_unverified());
        }
        // Sent only after both ends are open: an end that waits for the other one would be treated as silent.
        let (mut source, mut destination) = (source, destination);
        for (role, opened, request) in
            [(Role::Source, &mut source, &send), (Role::Destination, &mut destination, &receive)]
        {
            opened.send_request(request).await.map_err(|why| AttemptError::Lost(role, why))?;
        }
        self.relay_frames(source, destination, ledger, limit, flow).await
    }

    async fn relay_frames(
        &self,
        mut source: OpenEnd,
        mut destination: OpenEnd,
        ledger: &mut Ledger<'_>,
        limit: &mut RateLimit,
        flow: &FlowControl,
    ) -> Result<(), AttemptError> {
        flow.begin(matches!(destination.to, EndWriter::Exec(_)));
        let ended = relay(&mut source, &mut destination, &RefCell::new(ledger), limit, flow).await;
        tokio::join!(source.close(), destination.close());
        ended.map_err(|error| match error {
            RelayError::Lost(role, why) => AttemptError::Lost(role, why),
            RelayError::Fatal(Role::Destination, message) if message == crate::streams::CLOSED => {
                AttemptError::Fatal(CopyError::OutputClosed)
            }
            RelayError::Fatal(role, message) => {
                AttemptError::Fatal(CopyError::Refused { place: self.place(role), message })
            }
        })
    }
}

/// Why a connection ended before the copy was complete.
enum AttemptError {
    Lost(Role, String),
    Fatal(CopyError),
}

fn describe(error: &CopyError) -> String {
    match error {
        CopyError::Reach { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// Removes partial files of interrupted copies at the destination, and reports each to the ledger's observer.
pub async fn clean(end: &End<'_>, receive: &ReceiveSpec, ledger: &mut Ledger<'_>) -> Result<(), CopyError> {
    let request = CopyRequest::Receive(ReceiveSpec { clean: true, ..receive.clone() });
    let mut opened = ends::open(end, &request, &mut |notification| ledger.notification(notification)).await?;
    let lost = |message| CopyError::Lost { place: end.name(), message, retries: 0 };
    opened.send_request(&request).await.map_err(lost)?;
    let ended = crate::relay::wait_until_finished(&mut opened, &RefCell::new(ledger)).await;
    opened.close().await;
    match ended {
        Ok(()) => Ok(()),
        Err(RelayError::Fatal(_, message)) => Err(CopyError::Refused { place: end.name(), message }),
        Err(RelayError::Lost(_, message)) => Err(CopyError::Lost { place: end.name(), message, retries: 0 }),
    }
}
