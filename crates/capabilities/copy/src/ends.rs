//! Opens the two ends of a copy.

use crate::channel::{EndReader, EndWriter, OpenEnd, spawn_thread};
use crate::error::CopyError;
use crate::pod::{Notification, Pod};
use crate::streams;
use postern_files::{destination, source};
use postern_s3::Store;
use postern_wire::Decoder;
use postern_wire::copy::CopyRequest;
use tokio::sync::mpsc;

/// An end of a copy.
pub enum End<'a> {
    /// Files of this machine.
    Local,
    /// Our stdin or stdout.
    Stream(streams::Stream),
    /// A container.
    Pod(Pod<'a>),
    /// A bucket.
    S3(Store),
}

impl End<'_> {
    /// The name for messages.
    pub fn name(&self) -> String {
        match self {
            Self::Local => "this machine".to_owned(),
            Self::Stream(_) => "our own stream".to_owned(),
            Self::Pod(pod) => pod.name(),
            Self::S3(store) => store.name(),
        }
    }
}

/// Starts an end with a request.
pub(crate) async fn open(
    end: &End<'_>,
    request: &CopyRequest,
    notify: &mut dyn FnMut(Notification),
) -> Result<OpenEnd, CopyError> {
    match end {
        End::Local => {
            let request = request.clone();
            Ok(spawn_thread(move |mut input, out| {
                let decoder = Decoder::default();
                // Errors are in the frames, or the stream ends.
                let _ = match &request {
                    CopyRequest::Send(spec) => source::send(spec, input, decoder, &out, None, || ()),
                    CopyRequest::Receive(spec) => destination::receive(spec, &mut input, decoder, &out, None),
                };
            }))
        }
        End::Stream(stream) => {
            let (stream, request) = (stream.clone(), request.clone());
            let opened = spawn_thread(move |input, out| streams::serve(&stream, &request, input, &out));
            // It may be blocked reading our stdin.
            Ok(OpenEnd { thread: None, ..opened })
        }
        End::S3(store) => {
            let (to, input) = mpsc::channel(16);
            let (output, from) = mpsc::channel(16);
            let store = store.clone();
            let task = match request.clone() {
                CopyRequest::Send(spec) => tokio::spawn(store.send(spec, input, output)),
                CopyRequest::Receive(spec) => tokio::spawn(store.receive(spec, input, output)),
            };
            Ok(OpenEnd {
                from: EndReader::Thread(from),
                to: EndWriter::Thread(Some(to)),
                decoder: Decoder::default(),
                thread: Some(task),
                sent: None,
            })
        }
        End::Pod(pod) => {
            let reached = pod.open(request, notify).await;
            reached.map_err(|source| CopyError::Reach { place: end.name(), source })
        }
    }
}
