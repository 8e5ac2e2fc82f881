//! Small answers over HTTP, with the care that outbound fetches need: no redirects, a limit on size and
//! time, and plaintext only to this machine.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use tokio::time::timeout;

/// The largest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;

/// How long an answer may take in all.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FetchProblem {
    /// The server did not answer, or not in time.
    Unreachable,
    /// It answered with another status than 200.
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
pub(crate) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    pub(crate) fn new(tls: ClientConfig) -> Self {
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Self(Client::builder(TokioExecutor::new()).build(connector.build()))
    }

    /// Fetches a document.
    pub(crate) async fn get(&self, uri: &Uri) -> Result<Bytes, FetchProblem> {
        let request = Request::get(uri.clone()).body(Full::default());
        match self.answer(request).await? {
            (StatusCode::OK, document) => Ok(document),
            (status, _) => Err(FetchProblem::Status(status)),
        }
    }

    /// Posts a form, whatever the answer is.
    pub(crate) async fn post_form(
        &self,
        uri: &Uri,
        authorization: HeaderValue,
        form: String,
    ) -> Result<(StatusCode, Bytes), FetchProblem> {
        let request = Request::post(uri.clone())
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form));
        self.answer(request).await
    }

    async fn answer(
        &self,
        request: http::Result<Request<Full<Bytes>>>,
    ) -> Result<(StatusCode, Bytes), FetchProblem> {
        let request = request.map_err(|_| FetchProblem::Unreachable)?;
        let answer = async {
            let response = self.0.request(request).await.map_err(|_| FetchProblem::Unreachable)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            body.map(|body| (status, body.to_bytes())).map_err(|_| FetchProblem::Unreadable)
        };
        timeout(LONGEST_WAIT, answer).await.unwrap_or(Err(FetchProblem::Unreachable))
    }
}
