//! The body of an answer, which ends if a watch is silent for too long.
//!
//! A watch asks for bookmarks, which the API server sends about every minute
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#watch-bookmarks>). One that brings nothing for longer is
//! dead, though TCP may not know it yet: behind a firewall that forgot the connection, both ends wait for ever.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};
use tower::BoxError;

/// The longest silence of a watch.
const SILENCE: Duration = Duration::from_secs(150);

/// A body; `silence` is set for watches.
pub(crate) struct WatchBody<B> {
    inner: B,
    silence: Option<Pin<Box<Sleep>>>,
}

impl<B> WatchBody<B> {
    /// The body of the answer to a request with this query.
    pub(crate) fn new(inner: B, query: Option<&str>) -> Self {
        let is_watch = query.is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        Self { inner, silence: is_watch.then(|| Box::pin(sleep(SILENCE))) }
    }
}

impl<B> Body for WatchBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { inner, silence } = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) {
            if let Some(silence) = silence {
                silence.as_mut().reset(Instant::now() + SILENCE);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(silence) = silence else { return Poll::Pending };
        ready!(silence.as_mut().poll(cx));
        let error = format!("the watch was silent for {} s; it is started again", SILENCE.as_secs());
        Poll::Ready(Some(Err(error.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt as _, StreamBody};
    use std::convert::Infallible;
    use tokio::sync::mpsc;

    type Sent = Result<Frame<Bytes>, Infallible>;

    fn body(
        query: &str,
    ) -> (mpsc::UnboundedSender<Sent>, WatchBody<impl Body<Data = Bytes, Error = Infallible> + Unpin>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let stream =
            futures_util::stream::unfold(receiver, |mut sent: mpsc::UnboundedReceiver<Sent>| async {
                sent.recv().await.map(|frame| (frame, sent))
            });
        (sender, WatchBody::new(StreamBody::new(Box::pin(stream)), Some(query)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_watch_ends_and_one_with_bookmarks_does_not() {
        let (sender, mut watch) = body("limit=1&watch=true");
        for _ in 0..3 {
            tokio::time::advance(SILENCE.mul_f32(0.9)).await;
            sender.send(Ok(Frame::data(Bytes::from_static(b"{}")))).unwrap();
            assert!(watch.frame().await.unwrap().is_ok());
        }
        let start = Instant::now();
        let error = watch.frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("silent"), "{error}");
        assert_eq!(start.elapsed().as_secs(), SILENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn another_answer_may_take_its_time() {
        let (sender, mut log) = body("follow=true");
        tokio::spawn(async move {
            tokio::time::sleep(SILENCE * 10).await;
            sender.send(Ok(Frame::data(Bytes::from_static(b"late")))).unwrap();
        });
        assert!(log.frame().await.unwrap().is_ok());
    }
}
