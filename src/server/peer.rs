//! What a request knows of its connection, and a connection of its requests.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tonic::transport::server::TcpConnectInfo;
use tower::{Service, ServiceExt};

use crate::client::CertificateNames;
use crate::server::framing::{Framing, Misframed};
use crate::server::inbound::Seen;

/// Who is at the other end of a connection. Each of its requests has this in its extensions.
#[derive(Clone)]
pub(super) struct Peer {
    /// From where to where.
    pub(super) address: TcpConnectInfo,
    /// The names in its client certificate, if it has one that a trusted authority has signed.
    pub(super) certificate: Option<Arc<CertificateNames>>,
}

/// The requests of one connection, in numbers.
#[derive(Default)]
pub(super) struct Activity {
    begun: AtomicU64,
    under_way: AtomicUsize,
}

impl Activity {
    /// How many requests there ever were.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// How many are under way: their answers are still being made or sent.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }
}

/// Counts as a request under way until it is dropped.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The service as the requests of one connection reach it.
pub(super) struct PeerService<S> {
    inner: S,
    peer: Peer,
    activity: Arc<Activity>,
    framing: Framing,
    seen: Arc<Seen>,
}

impl<S> PeerService<S> {
    pub(super) fn new(inner: S, peer: Peer, activity: Arc<Activity>, seen: Arc<Seen>) -> Self {
        Self { inner, peer, activity, framing: Framing::default(), seen }
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for PeerService<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let extensions = request.extensions_mut();
        extensions.insert(self.peer.address.clone());
        if let Some(certificate) = &self.peer.certificate {
            extensions.insert(Arc::clone(certificate));
        }
        let under_way = UnderWay::begin(&self.activity);
        if let Err(misframed) = self.framing.check(&request, &self.seen) {
            let refusal = refusal(misframed).map(|body| Answer { body, _under_way: under_way });
            return Box::pin(ready(Ok(refusal)));
        }
        let answer = self.inner.clone().oneshot(request);
        Box::pin(
            async move { Ok(answer.await?.map(|body| Answer { body, _under_way: under_way })) },
        )
    }
}

/// The answer to a head that is refused. Like hyper's own for what is no head at all, it comes before anyone looks at
/// what is asked for, and leaves no line in the request log.
fn refusal(misframed: Misframed) -> Response<Body> {
    tracing::debug!(why = misframed.why, "a request was refused for its head");
    let mut response = Response::new(Body::from(format!("{}\n", misframed.why)));
    *response.status_mut() = misframed.status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

pin_project! {
    /// The body of an answer: its request is under way until all of it is sent.
    pub(super) struct Answer {
        #[pin]
        body: Body,
        _under_way: UnderWay,
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
