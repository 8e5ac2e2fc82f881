//! A small HTTP client, with the care that a request with a token needs: no redirects, no plaintext
//! but to this machine, and an end to waiting.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The largest answer that is read.
const MAX_ANSWER: usize = 256 * 1024;

pub struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    /// A client that trusts the system's certificate authorities.
    pub fn new() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Ok(Self(Client::builder(TokioExecutor::new()).build(connector.build())))
    }

    /// The answer, whatever its status is.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
        let host = request.uri().host().unwrap_or_default();
        let is_https = request.uri().scheme_str() == Some("https");
        let has_token = request.headers().contains_key(AUTHORIZATION);
        if has_token && !is_https && !["127.0.0.1", "[::1]", "localhost"].contains(&host) {
            return Err(
                format!("{host} is not this machine: a token goes there by https only").into()
            );
        }
        let answer = async {
            let (head, body) = self.0.request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        timeout(LONGEST_WAIT, answer).await?
    }
}
