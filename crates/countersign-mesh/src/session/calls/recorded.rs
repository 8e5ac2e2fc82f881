//! A request body that can be sent a second time, if it was small and all of it went out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// The largest request that is kept for a second try, in bytes.
const MAX_KEPT: usize = 64 * 1024;

/// A body that keeps what goes through it.
pub(crate) struct Recorded {
    inner: Body,
    kept: Kept,
}

/// What went through a [`Recorded`] body. The data is shared, not copied.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Recording>>);

#[derive(Default)]
struct Recording {
    data: VecDeque<bytes::Bytes>,
    len: usize,
    complete: bool,
    /// Too large to be kept, or broken off.
    lost: bool,
}

/// What was kept, going out again.
struct Replayed(VecDeque<bytes::Bytes>);

/// Records a body.
pub(crate) fn record(body: Body) -> (Body, Kept) {
    let kept = Kept::default();
    if body.is_end_stream() {
        kept.lock().complete = true;
        return (body, kept);
    }
    (Body::new(Recorded { inner: body, kept: kept.clone() }), kept)
}

impl Kept {
    /// The same body again, if all of it was seen and it was small enough to be kept. A request that
    /// the client is still streaming cannot be sent again.
    pub(crate) fn replay(&self) -> Option<Body> {
        let recording = self.lock();
        (recording.complete && !recording.lost).then(|| Body::new(Replayed(recording.data.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl http_body::Body for Recorded {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let mut recording = self.kept.lock();
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    recording.len += data.len();
                    recording.lost |= recording.len > MAX_KEPT;
                    if recording.lost {
                        recording.data.clear();
                    } else {
                        recording.data.push_back(data.clone());
                    }
                }
                recording.complete |= self.inner.is_end_stream();
            }
            Poll::Ready(None) => recording.complete = true,
            Poll::Ready(Some(Err(_))) => recording.lost = true,
            Poll::Pending => {}
        }
        drop(recording);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl http_body::Body for Replayed {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}
