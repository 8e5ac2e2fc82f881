//! Streams end when their token does.
//!
//! The bodies of an admitted call are wrapped. Nothing is allocated and no timer is set for a body that
//! is over at once, as those of most unary calls are; one that waits, or goes on, is raced against the
//! token's expiry, every change of the trust bundle, and its turning stale.

use std::error::Error;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, select};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use metrics::SharedString;
use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::claims::Timestamp;
use crate::guard::admission::{Checks, Permitted};
use crate::guard::refusal::Refusal;
use crate::guard::report::Enforcement;

type BoxError = Box<dyn Error + Send + Sync>;

/// A body that has brought this many frames and is not over counts as a stream, even if it never had to
/// wait.
const UNARY_FRAMES: u8 = 2;

/// What entitles an admitted call to go on: its token, for as long as that is good.
pub(super) struct Lease {
    checks: Arc<Checks>,
    permitted: Permitted,
    label: SharedString,
    /// When the token expires, by the monotonic clock; `None` when an `Instant` cannot count so far.
    expiry: Option<Instant>,
    /// Both directions of a call find the token over. With these only one of them reports that the call
    /// would end, and one that it does end.
    reported: AtomicBool,
    ended: AtomicBool,
}

impl Lease {
    pub(super) fn new(
        checks: &Arc<Checks>,
        permitted: &Permitted,
        label: &SharedString,
        now: Timestamp,
    ) -> Self {
        let left = (permitted.claims().expires_at + checks.leeway).since(now);
        Self {
            checks: Arc::clone(checks),
            permitted: permitted.clone(),
            label: label.clone(),
            expiry: Instant::now().checked_add(left),
            reported: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Waits until the call must end, and says why. Waits forever when it need not end.
    async fn over(self: Arc<Self>) -> Refusal {
        loop {
            let refusal = self.token_over().await;
            let now = self.checks.clock.now();
            let Some(until) = self.checks.reports.only_until(now) else {
                self.tell(&refusal, Enforcement::Enforced);
                return refusal;
            };
            // Report-only mode lets the stream go on. It is looked at again when that mode is over.
            self.tell(&refusal, Enforcement::Reported);
            tokio::time::sleep(until.since(now).max(Duration::from_secs(1))).await;
        }
    }

    async fn token_over(&self) -> Refusal {
        let mut trust = self.checks.trust.clone();
        let mut expiry = pin!(async {
            match self.expiry {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        });
        loop {
            // The clone may have marked an older bundle as seen than it reads here. Then `changed`
            // returns at once, and the loop looks once more.
            if trust.fails_closed() {
                return Refusal::TrustStale;
            }
            if let Some(bundle) = trust.bundle() {
                let now = self.checks.clock.now();
                if let Err(rejection) =
                    bundle.recheck(self.permitted.token(), now, self.checks.leeway)
                {
                    return Refusal::of(&rejection, &self.permitted.claims().audience);
                }
            }
            let changed = pin!(trust.changed());
            if let Either::Left(_) = select(expiry.as_mut(), changed).await {
                return Refusal::TokenExpired;
            }
        }
    }

    fn tell(&self, refusal: &Refusal, enforcement: Enforcement) {
        let told = match enforcement {
            Enforcement::Reported => &self.reported,
            Enforcement::Enforced => &self.ended,
        };
        if !told.swap(true, Ordering::Relaxed) {
            self.checks.reports.ended(
                self.label.clone(),
                self.permitted.token(),
                refusal,
                enforcement,
            );
        }
    }
}

pin_project! {
    /// A body that ends when the token of its call expires or is revoked. A request's body ends with an
    /// error that is a [`tonic::Status`], a response's with that status in its trailers.
    pub struct GuardedBody<B> {
        // `None` once the token is over.
        #[pin]
        inner: Option<B>,
        watch: Watch,
        direction: Direction,
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Request,
    Response,
}

enum Watch {
    /// Nothing is watched: the body ends by itself.
    Off,
    /// No timer is set: the body has not had to wait yet.
    Unarmed { lease: Arc<Lease>, frames: u8 },
    /// The body is raced against this future.
    Armed(Pin<Box<dyn Future<Output = Refusal> + Send>>),
}

impl<B> GuardedBody<B> {
    pub(super) fn request(inner: B, lease: Option<Arc<Lease>>) -> Self {
        Self::new(inner, lease, Direction::Request)
    }

    pub(super) fn response(inner: B, lease: Option<Arc<Lease>>) -> Self {
        Self::new(inner, lease, Direction::Response)
    }

    fn new(inner: B, lease: Option<Arc<Lease>>, direction: Direction) -> Self {
        let watch = match lease {
            Some(lease) => Watch::Unarmed { lease, frames: 0 },
            None => Watch::Off,
        };
        Self { inner: Some(inner), watch, direction }
    }

    /// The body without its guard; `None` when its token is over.
    pub fn into_inner(self) -> Option<B> {
        self.inner
    }
}

impl<B: Default> Default for GuardedBody<B> {
    fn default() -> Self {
        Self::response(B::default(), None)
    }
}

impl Watch {
    /// Whether the call must end. Sets the timer when there is none.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        if let Self::Unarmed { lease, .. } = self {
            *self = Self::Armed(Box::pin(Arc::clone(lease).over()));
        }
        match self {
            Self::Armed(over) => over.as_mut().poll(cx),
            Self::Off | Self::Unarmed { .. } => Poll::Pending,
        }
    }

    /// Whether the body has turned out to be a stream.
    fn is_stream(&self) -> bool {
        match self {
            Self::Off => false,
            Self::Unarmed { frames, .. } => *frames >= UNARY_FRAMES,
            Self::Armed(_) => true,
        }
    }

    fn count_frame(&mut self) {
        if let Self::Unarmed { frames, .. } = self {
            *frames += 1;
        }
    }
}

impl<B> Body for GuardedBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        // A stream that always has a frame ready must end too, so a known stream is checked before its
        // next frame.
        let mut over = Poll::Pending;
        if this.watch.is_stream() {
            over = this.watch.poll_over(cx);
        }
        if over.is_pending() {
            if let Poll::Ready(frame) = inner.poll_frame(cx) {
                this.watch.count_frame();
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            }
            if !this.watch.is_stream() {
                over = this.watch.poll_over(cx);
            }
        }
        let Poll::Ready(refusal) = over else { return Poll::Pending };
        // Dropping the body tells its producer that the call is over.
        this.inner.set(None);
        *this.watch = Watch::Off;
        let status = refusal.to_status();
        Poll::Ready(Some(match this.direction {
            Direction::Request => Err(status.into()),
            Direction::Response => {
                let mut trailers = HeaderMap::new();
                match status.add_header(&mut trailers) {
                    Ok(()) => Ok(Frame::trailers(trailers)),
                    Err(status) => Err(status.into()),
                }
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
