//! One line a request: who, what, for which audience, how it ended, how long it took.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use countersign_mesh::claims::{Audience, ClientId};
use countersign_mesh::guard::{Refusal, RefusedClient};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::server::deadline::{deadline, keep};
use crate::server::errors;
use crate::server::notes::{Denied, OVERLOADED, RequestNotes};

/// Is told of each call that the guard refused to a client that it knows: the client, the path, the
/// reason, and where the call came from.
pub(super) type NoteRefused = Arc<dyn Fn(&ClientId, &str, &'static str, &str) + Send + Sync>;

/// Adds [`RequestNotes`] to each request. When the answer is there it writes the line, reports whom the guard
/// refused, and completes errors on their way out.
#[derive(Clone)]
pub(super) struct RequestLog {
    ids: Arc<RequestIds>,
    note_refused: NoteRefused,
}

impl RequestLog {
    pub(super) fn new(note_refused: NoteRefused) -> Self {
        Self { ids: Arc::new(RequestIds::new()), note_refused }
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
        Logged { inner, ids: Arc::clone(&self.ids), note_refused: Arc::clone(&self.note_refused) }
    }
}

/// A service behind a [`RequestLog`].
#[derive(Clone)]
pub(super) struct Logged<S> {
    inner: S,
    ids: Arc<RequestIds>,
    note_refused: NoteRefused,
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
        let line = Line { id, uri: request.uri().clone(), notes, started, written: false };
        let deadline = deadline(request.headers());
        let peer =
            request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let note_refused = Arc::clone(&self.note_refused);
        let call = self.inner.call(request);
        Box::pin(async move {
            let mut response = errors::complete(keep(deadline, call).await?);
            if let Some(RefusedClient(client)) = response.extensions().get() {
                // Noted once: the guard lets no handler see this call.
                let _ = line.notes.client.set(client.clone());
                if let Some(refusal) = response.extensions().get::<Refusal>() {
                    let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
                    note_refused(client, line.uri.path(), refusal.reason(), &peer);
                }
            }
            line.end(&response);
            if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
                response.headers_mut().insert("x-request-id", value);
            }
            Ok(response)
        })
    }
}

/// The line of a request. It is written in any case: when a caller hangs up before the answer, the future is dropped,
/// and the line with it.
struct Line {
    id: RequestId,
    uri: Uri,
    notes: Arc<RequestNotes>,
    started: Instant,
    written: bool,
}

impl Line {
    fn end<R>(mut self, response: &Response<R>) {
        // Absent from the head of a call that ends well or streams: its status comes after the messages.
        let status = Status::from_header_map(response.headers());
        let code = match status {
            Some(status) => status.code(),
            None if response.status() == StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            None => Code::Ok,
        };
        let refusal = response.extensions().get::<Refusal>().map(|refusal| (refusal.reason(), ""));
        let (outcome, detail) = match refusal.or_else(|| self.notes.failure.get().copied()) {
            Some(failure) => failure,
            None if !response.status().is_success() => {
                (response.status().canonical_reason().unwrap_or("failed"), "")
            }
            None if code == Code::Ok => ("ok", ""),
            None => (code.description(), ""),
        };
        self.write(code, outcome, detail);
    }

    fn write(&mut self, code: Code, outcome: &str, detail: &str) {
        self.written = true;
        let id = self.id;
        // The path is the caller's own text; `Debug` keeps control characters out of the log.
        let path = self.uri.path();
        let client = self.notes.client.get().map_or("", ClientId::as_str);
        let audience = self.notes.audience.get().map_or("", Audience::as_str);
        let denied = self.notes.denied.get();
        // Only in lines that have them.
        let scopes = denied.map(Denied::scopes);
        let detail = denied.map_or(detail, Denied::why);
        let micros = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        // Probes come every few seconds. By default no operator wants to read them.
        if path.starts_with("/grpc.") || path.starts_with("/health/") {
            tracing::debug!(%id, ?path, client, audience, outcome, detail, micros, "request");
        } else if code == Code::Unavailable && outcome != OVERLOADED {
            tracing::error!(%id, ?path, client, audience, outcome, detail, micros, "request");
        } else {
            tracing::info!(%id, ?path, client, audience, scopes, outcome, detail, micros, "request");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.written {
            self.write(Code::Cancelled, "cancelled", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use futures_util::FutureExt;

    use super::*;

    /// What is logged while something happens.
    fn logged(act: impl FnOnce()) -> String {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("log");
        let file = File::create(&path).expect("it is ours");
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(file).with_target(false);
        tracing::subscriber::with_default(subscriber.finish(), act);
        fs::read_to_string(&path).expect("it is text")
    }

    fn request(path: &str) -> Request<()> {
        Request::post(path).body(()).expect("a valid request")
    }

    #[test]
    fn a_caller_that_hangs_up_before_the_answer_leaves_its_line() {
        let never = tower::service_fn(|_| std::future::pending::<Result<Response<()>, ()>>());
        let log = logged(|| {
            let mut call =
                RequestLog::new(Arc::new(|_, _, _, _| ())).layer(never).call(request("/a.B/C"));
            assert!((&mut call).now_or_never().is_none());
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("outcome=\"cancelled\""), "{log}");
    }

    #[test]
    fn an_answer_is_one_line_that_quotes_what_the_caller_wrote() {
        let unavailable = tower::service_fn(|_| async {
            Ok::<Response<()>, ()>(Status::unavailable("try again").into_http())
        });
        let log = logged(|| {
            let call = RequestLog::new(Arc::new(|_, _, _, _| ()))
                .layer(unavailable)
                .call(request("/a.B/C\"outcome=ok"));
            call.now_or_never().expect("it does not wait").expect("an answer");
        });
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains(" ERROR ") && log.contains(r#"path="/a.B/C\"outcome=ok""#), "{log}");
    }
}
