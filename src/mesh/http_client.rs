//! Fetching small documents over HTTP, with the care that outbound fetches need: no redirects, a limit
//! on size and time, and plaintext only to this machine.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http::Uri;
use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// The largest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;

/// How long an answer may take in all.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FetchProblem {
    /// The server did not answer, or not in time.
    Unreachable,
    /// It answered with something else than a document.
    Status(StatusCode),
    /// What it answered is too large, or broke off.
    Unreadable,
}

impl fmt::Display for FetchProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("no answer"),
            Self::Status(status) => write!(f, "the answer was {status}"),
            Self::Unreadable => f.write_str("the answer is too large, or broke off"),
        }
    }
}

/// A client. Cheap to clone.
#[derive(Clone)]
pub(super) struct HttpClient(Client<HttpConnector, Empty<Bytes>>);

impl HttpClient {
    pub(super) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// Fetches a document.
    pub(super) async fn get(&self, uri: &Uri) -> Result<Bytes, FetchProblem> {
        let request =
            Request::get(uri.clone()).body(Empty::new()).map_err(|_| FetchProblem::Unreachable)?;
        let answer = async {
            let response = self.0.request(request).await.map_err(|_| FetchProblem::Unreachable)?;
            if response.status() != StatusCode::OK {
                return Err(FetchProblem::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            body.map(http_body_util::Collected::to_bytes).map_err(|_| FetchProblem::Unreadable)
        };
        timeout(LONGEST_WAIT, answer).await.unwrap_or(Err(FetchProblem::Unreachable))
    }
}
