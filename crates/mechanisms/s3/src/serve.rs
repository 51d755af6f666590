//! A bucket as one end of a copy.

use crate::link::{EndError, Inbox, Outbox};
use crate::store::Store;
use crate::{clean, destination, source};
use bytes::Bytes;
use postern_wire::copy::{FromDestination, FromSource, ReceiveSpec, SendSpec};
use tokio::sync::mpsc;

impl Store {
    /// Acts as the source until the copy is over.
    pub async fn send(self, spec: SendSpec, input: mpsc::Receiver<Bytes>, output: mpsc::Sender<Bytes>) {
        let mut out = Outbox::new(output);
        if let Err(EndError::Fatal(message)) = source::send(&self, &spec, Inbox::new(input), &mut out).await
            && out.put(|buffer| FromSource::Fatal(message).encode(buffer)).await.is_ok()
        {
            let _ = out.flush().await; // the client may be gone
        }
    }

    /// Acts as the destination until the copy is over.
    pub async fn receive(self, spec: ReceiveSpec, input: mpsc::Receiver<Bytes>, output: mpsc::Sender<Bytes>) {
        let mut out = Outbox::new(output);
        let ended = match spec.clean {
            true => clean::clean(&self, &spec, &mut out).await,
            false => destination::receive(&self, &spec, Inbox::new(input), &mut out).await,
        };
        if let Err(EndError::Fatal(message)) = ended
            && out.put(|buffer| FromDestination::Fatal(message).encode(buffer)).await.is_ok()
        {
            let _ = out.flush().await; // the client may be gone
        }
    }
}
