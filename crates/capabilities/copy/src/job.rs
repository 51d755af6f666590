//! One source and one destination, to the end.

use crate::ends::{self, End, Opened, ToEnd};
use crate::error::CopyError;
use crate::flow::Flow;
use crate::ledger::Ledger;
use crate::pace::Pace;
use crate::relay::{Broke, Which, relay};
use postern_wire::copy::{CopyRequest, ReceiveSpec, SendSpec};
use std::cell::RefCell;
use std::time::Duration;

/// A copy.
pub struct Job<'a> {
    /// Where the files are.
    pub source: End<'a>,
    /// Where they go.
    pub destination: End<'a>,
    /// What is asked of the source.
    pub send: SendSpec,
    /// What is asked of the destination.
    pub receive: ReceiveSpec,
    /// How often a lost connection is made again without anything having moved in between.
    pub retries: u32,
    /// Bytes in a second, at most.
    pub bwlimit: Option<u64>,
}

/// The first pause before another try, and the longest.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Job<'_> {
    /// Copies; each file's fate is told to the ledger's observer. What it came to is in the ledger, however it ends.
    pub async fn run(&self, ledger: &mut Ledger<'_>) -> Result<(), CopyError> {
        let mut limit = Pace::new(self.bwlimit);
        let flow = Flow::default();
        let (mut vain, mut pause) = (0, PAUSE);
        loop {
            let before = ledger.moved();
            ledger.begin();
            let (which, message) = match self.once(ledger, &mut limit, &flow).await {
                Ok(()) => return Ok(()),
                Err(Attempt::Fatal(error)) => return Err(error),
                Err(Attempt::Lost(which, message)) => (which, message),
            };
            if ledger.moved() != before {
                (vain, pause) = (0, PAUSE);
            }
            let place = self.place(which);
            if vain >= self.retries || !self.repeatable() {
                return Err(CopyError::Lost { place, message, retries: vain });
            }
            vain += 1;
            ledger.retried();
            ledger.notice(&format!("the connection to {place} was lost ({message}); going on in a moment"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What was read from our stdin is gone.
    fn repeatable(&self) -> bool {
        !matches!(self.source, End::Stream(_))
    }

    fn place(&self, which: Which) -> String {
        match which {
            Which::Source => self.source.name(),
            Which::Destination => self.destination.name(),
        }
    }

    async fn once(&self, ledger: &mut Ledger<'_>, pace: &mut Pace, flow: &Flow) -> Result<(), Attempt> {
        let receive = ReceiveSpec { named: ledger.named(), ..self.receive.clone() };
        let (send, receive) = (CopyRequest::Send(self.send.clone()), CopyRequest::Receive(receive));
        let again = ledger.tries() > 0;
        let (source, destination) = {
            let told = RefCell::new(&mut *ledger);
            let tell = |news| told.borrow_mut().news(news);
            let (mut of_source, mut of_destination) = (tell, tell);
            tokio::join!(
                ends::open(&self.source, &send, &mut of_source),
                ends::open(&self.destination, &receive, &mut of_destination)
            )
        };
        let (source, destination) = match (source, destination) {
            (Ok(source), Ok(destination)) => (source, destination),
            (source, destination) => {
                let which = if source.is_err() { Which::Source } else { Which::Destination };
                let mut error = None;
                for end in [source, destination] {
                    match end {
                        Ok(opened) => opened.close().await,
                        Err(failed) => error = error.or(Some(failed)),
                    }
                }
                return Err(match error {
                    // It was there before; it may be again.
                    Some(error) if again => Attempt::Lost(which, told(&error)),
                    Some(error) => Attempt::Fatal(error),
                    None => Attempt::Lost(which, "it ended".to_owned()),
                });
            }
        };
        ledger.asked(&self.receive);
        if let End::Pod(pod) = &self.source {
            ledger.doubt(pod.is_unverified());
        }
        // Only now: an end that waits for the other would take the silence for our end.
        let (mut source, mut destination) = (source, destination);
        for (which, opened, ask) in
            [(Which::Source, &mut source, &send), (Which::Destination, &mut destination, &receive)]
        {
            opened.ask(ask).await.map_err(|why| Attempt::Lost(which, why))?;
        }
        self.joined(source, destination, ledger, pace, flow).await
    }

    async fn joined(
        &self,
        mut source: Opened,
        mut destination: Opened,
        ledger: &mut Ledger<'_>,
        pace: &mut Pace,
        flow: &Flow,
    ) -> Result<(), Attempt> {
        flow.begin(matches!(destination.to, ToEnd::Exec(_)));
        let ended = relay(&mut source, &mut destination, &RefCell::new(ledger), pace, flow).await;
        tokio::join!(source.close(), destination.close());
        ended.map_err(|broke| match broke {
            Broke::Lost(which, why) => Attempt::Lost(which, why),
            Broke::Fatal(Which::Destination, message) if message == crate::streams::CLOSED => {
                Attempt::Fatal(CopyError::OutputClosed)
            }
            Broke::Fatal(which, message) => {
                Attempt::Fatal(CopyError::Refused { place: self.place(which), message })
            }
        })
    }
}

/// How one connection ended that did not see the copy to its end.
enum Attempt {
    Lost(Which, String),
    Fatal(CopyError),
}

fn told(error: &CopyError) -> String {
    match error {
        CopyError::Reach { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// Removes what interrupted copies left at the destination; each is told to the ledger's observer.
pub async fn clean(end: &End<'_>, receive: &ReceiveSpec, ledger: &mut Ledger<'_>) -> Result<(), CopyError> {
    let ask = CopyRequest::Receive(ReceiveSpec { clean: true, ..receive.clone() });
    let mut opened = ends::open(end, &ask, &mut |news| ledger.news(news)).await?;
    let lost = |message| CopyError::Lost { place: end.name(), message, retries: 0 };
    opened.ask(&ask).await.map_err(lost)?;
    let ended = crate::relay::listen(&mut opened, &RefCell::new(ledger)).await;
    opened.close().await;
    match ended {
        Ok(()) => Ok(()),
        Err(Broke::Fatal(_, message)) => Err(CopyError::Refused { place: end.name(), message }),
        Err(Broke::Lost(_, message)) => Err(CopyError::Lost { place: end.name(), message, retries: 0 }),
    }
}
