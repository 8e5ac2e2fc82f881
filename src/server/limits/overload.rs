//! Too many requests at once. The one over the limit is refused right away, and does not wait with all the others. One
//! that gets no answer in time is given up.

use std::collections::HashMap;
use std::future::{Future, Ready, ready};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::Response;
use countersign_mesh::guard::ERROR_DOMAIN;
use futures_util::future::Either;
use http::Request;
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Layer, Service};

use crate::server::http::is_grpc;
use crate::server::limits::{Shares, Taken};
use crate::server::notes::{OVERLOADED, RequestNotes};
use crate::server::oauth;

/// When to try again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a request may be without the head of its answer. A body that comes a byte at a time holds its place for no
/// longer.
const LONGEST: Duration = Duration::from_secs(120);

/// Whether a path is that of a health check. Those are answered in any case: a supervisor would end the server
/// otherwise.
fn is_health(path: &str) -> bool {
    // Over plain HTTP the path may begin with that of the issuer.
    path.starts_with("/grpc.health.v1.Health/")
        || path.ends_with("/health/live")
        || path.ends_with("/health/ready")
}

/// Bounds the requests under way. A request counts until the head of its answer; what streams afterwards does not.
#[derive(Clone)]
pub(in crate::server) struct Overload {
    under_way: Arc<AtomicUsize>,
    most: usize,
    shares: Shares,
}

impl Overload {
    pub(in crate::server) fn new(most: usize) -> Self {
        Self { under_way: Arc::default(), most, shares: Shares::of(most) }
    }

    /// A place, if there is one for this address.
    fn admit(&self, peer: Option<IpAddr>) -> Option<Place> {
        let share = self.shares.take(peer)?;
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        // Given back right here if it is one too many.
        let place = Place { under_way: Arc::clone(&self.under_way), _share: share };
        (before < self.most).then_some(place)
    }
}

/// Counts until it is dropped.
struct Place {
    under_way: Arc<AtomicUsize>,
    _share: Taken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Layer<S> for Overload {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded { inner, overload: self.clone() }
    }
}

/// A service behind an [`Overload`].
#[derive(Clone)]
pub(in crate::server) struct Bounded<S> {
    inner: S,
    overload: Overload,
}

impl<S, B> Service<Request<B>> for Bounded<S>
where
    S: Service<Request<B>, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response, S::Error>>, Admitted<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let grpc = is_grpc(request.headers());
        let path = request.uri().path();
        let peer = request.extensions().get().and_then(TcpConnectInfo::remote_addr);
        let peer = peer.map(|peer| peer.ip());
        let place = if is_health(path) {
            None
        } else if let Some(place) = self.overload.admit(peer) {
            Some(place)
        } else {
            if let Some(notes) = request.extensions().get::<Arc<RequestNotes>>() {
                let _ = notes.failure.set((OVERLOADED, ""));
            }
            return Either::Left(ready(Ok(shed(grpc))));
        };
        let call = self.inner.call(request);
        Either::Right(Admitted { call, longest: tokio::time::sleep(LONGEST), grpc, _place: place })
    }
}

pin_project! {
    /// A call under way.
    pub(in crate::server) struct Admitted<F> {
        #[pin]
        call: F,
        #[pin]
        longest: Sleep,
        grpc: bool,
        _place: Option<Place>,
    }
}

impl<F, E> Future for Admitted<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(answer) = this.call.poll(cx) {
            return Poll::Ready(answer);
        }
        this.longest.poll(cx).map(|()| Ok(too_long(*this.grpc)))
    }
}

fn shed(grpc: bool) -> Response {
    if !grpc {
        return oauth::overloaded();
    }
    let mut details = ErrorDetails::with_error_info(OVERLOADED, ERROR_DOMAIN, HashMap::new());
    details.set_retry_info(Some(RETRY));
    let message = "too many requests are under way; try again";
    Status::with_error_details(Code::Unavailable, message, details).into_http()
}

fn too_long(grpc: bool) -> Response {
    if grpc {
        return Status::deadline_exceeded("the call took too long").into_http();
    }
    oauth::too_long()
}
