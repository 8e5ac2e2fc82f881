//! One line a request: who, what, for which audience, how it ended, how long it took.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Instant;

use http::HeaderValue;
use http::Request;
use http::Response;
use tonic::Code;
use tonic::Status;
use tower::Layer;
use tower::Service;

use crate::claims::Audience;
use crate::claims::ClientId;
use crate::guard::Refusal;
use crate::server::deadline::deadline;
use crate::server::deadline::keep;
use crate::server::errors;

/// What a request is found to be on its way through. Handlers note it; the layer tells it.
#[derive(Debug, Default)]
pub(super) struct RequestNotes {
    /// Who asks.
    pub(super) client: OnceLock<ClientId>,
    /// For which audience.
    pub(super) audience: OnceLock<Audience>,
    /// Why it failed: the reason that the caller is told, and more that it is not.
    pub(super) failure: OnceLock<(&'static str, &'static str)>,
}

/// Adds [`RequestNotes`] to each request, writes the line, and completes errors on their way out.
#[derive(Clone)]
pub(super) struct RequestLog {
    ids: Arc<RequestIds>,
}

impl RequestLog {
    pub(super) fn new() -> Self {
        Self { ids: Arc::new(RequestIds::new()) }
    }
}

/// Numbers requests. Different processes start at different places.
struct RequestIds {
    process: u32,
    next: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        // A clash would only make two lines of a log harder to tell apart.
        Self { process: getrandom::u32().unwrap_or_default(), next: AtomicU64::new(1) }
    }

    fn next(&self) -> RequestId {
        RequestId(self.process, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Clone, Copy)]
struct RequestId(u32, u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.0, self.1)
    }
}

impl<S> Layer<S> for RequestLog {
    type Service = Logged<S>;
    fn layer(&self, inner: S) -> Logged<S> {
        Logged { inner, ids: Arc::clone(&self.ids) }
    }
}

/// A service behind a [`RequestLog`].
#[derive(Clone)]
pub(super) struct Logged<S> {
    inner: S,
    ids: Arc<RequestIds>,
}

impl<S, B, R> Service<Request<B>> for Logged<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let id = self.ids.next();
        let notes = Arc::new(RequestNotes::default());
        request.extensions_mut().insert(Arc::clone(&notes));
        let uri = request.uri().clone();
        let deadline = deadline(request.headers());
        let call = self.inner.call(request);
        Box::pin(async move {
            let mut response = errors::complete(keep(deadline, call).await?);
            log(id, uri.path(), &notes, &response, started);
            if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
                response.headers_mut().insert("x-request-id", value);
            }
            Ok(response)
        })
    }
}

fn log<R>(
    id: RequestId,
    path: &str,
    notes: &RequestNotes,
    response: &Response<R>,
    started: Instant,
) {
    // Absent when the call ends well or streams: then the status comes after the messages.
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    let refusal = response.extensions().get::<Refusal>().map(|refusal| (refusal.reason(), ""));
    let (outcome, detail) = match refusal.or_else(|| notes.failure.get().copied()) {
        Some(failure) => failure,
        None if !response.status().is_success() => {
            (response.status().canonical_reason().unwrap_or("failed"), "")
        }
        None if code == Code::Ok => ("ok", ""),
        None => (code.description(), ""),
    };
    let client = notes.client.get().map_or("", ClientId::as_str);
    let audience = notes.audience.get().map_or("", Audience::as_str);
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    // A probe every few seconds is nothing that an operator wants to read by default.
    if path.starts_with("/grpc.") {
        tracing::debug!(%id, path, client, audience, outcome, detail, micros, "request");
    } else if code == Code::Unavailable {
        tracing::error!(%id, path, client, audience, outcome, detail, micros, "request");
    } else {
        // The path is the caller's own text; `Debug` keeps control characters out of the log.
        tracing::info!(%id, ?path, client, audience, outcome, detail, micros, "request");
    }
}
