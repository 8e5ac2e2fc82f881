//! The connection to a server: each call carries a token for just what it needs.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, fs};

use countersign_mesh::claims::{ClientId, Clock};
use countersign_mesh::guard::Access;
use countersign_mesh::internals::is_loopback;
use countersign_mesh::token::sign_assertion;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Uri};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::Mutex;
use tonic::body::Body;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Response, Status};
use tower::{Service, ServiceExt};

use crate::cli::credentials::{Credentials, Means};
use crate::cli::error::Error;
use crate::cli::status;
use crate::rpc::issue_token_request::Credential;
use crate::rpc::token_service_client::TokenServiceClient;
use crate::rpc::{IssueTokenRequest, IssueTokenResponse, POLICIES};

/// A connection on behalf of one client. Cloning it shares the connection.
///
/// As the transport of a generated gRPC client it looks up in the policy table
/// what the method demands, fetches a token for it and attaches it.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

/// Where plaintext may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// To this machine only.
    OnLoopback,
    /// Anywhere: someone asked for it in so many words.
    Anywhere,
}

impl Connection {
    /// Connects to the server that the credentials name.
    ///
    /// # Errors
    /// When the URL is not one to send a secret to, or nobody answers there.
    pub async fn open(credentials: Credentials, plaintext: Plaintext) -> Result<Self, Error> {
        let uri = destination(&credentials, plaintext)?;
        let is_https = uri.scheme_str() == Some("https");
        let mut endpoint =
            Endpoint::from(uri).connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT);
        if is_https {
            endpoint = endpoint.tls_config(tls(&credentials)?).map_err(|error| {
                if matches!(credentials.means, Means::Certificate { .. }) {
                    return Error::failed(
                        format!("TLS cannot be spoken: {error}"),
                        "see whether the client certificate and its key belong together",
                    );
                }
                Error::failed(
                    format!("the system's certificate authorities cannot be used: {error}"),
                    "install them, or name a file of them in SSL_CERT_FILE",
                )
            })?;
        }
        let channel = endpoint.connect().await.map_err(|error| {
            status::no_connection(&credentials.url, &credentials.origin, &error)
        })?;
        Ok(Self { shared: Arc::new(Shared { channel, credentials, tokens: Mutex::default() }) })
    }

    /// Asks for a token for these credentials' client.
    pub async fn issue(
        &self,
        audience: &str,
        scopes: &[String],
        ttl: Option<Duration>,
    ) -> Result<IssueTokenResponse, Error> {
        self.answer(self.shared.issue(audience, scopes.to_vec(), ttl).await)
    }

    /// The server's URL.
    pub fn url(&self) -> &str {
        &self.shared.credentials.url
    }

    /// The answer to a call, its status explained if there is none.
    pub fn answer<T>(&self, result: Result<Response<T>, Status>) -> Result<T, Error> {
        let Credentials { url, origin, .. } = &self.shared.credentials;
        result.map(Response::into_inner).map_err(|status| status::explain(&status, url, origin))
    }
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        // Each call waits for the channel itself, after it has its token.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            if let Some((audience, scopes)) = demanded(request.uri().path())? {
                let bearer = shared.bearer(audience, scopes).await?;
                request.headers_mut().insert(AUTHORIZATION, bearer);
            }
            shared
                .channel
                .clone()
                .oneshot(request)
                .await
                .map_err(|error| Status::from_error(error.into()))
        })
    }
}

struct Shared {
    channel: Channel,
    credentials: Credentials,
    /// By scopes asked for. A command is over long before its tokens are.
    tokens: Mutex<BTreeMap<Vec<String>, HeaderValue>>,
}

impl Shared {
    async fn bearer(&self, audience: &str, scopes: &[&str]) -> Result<HeaderValue, Status> {
        let scopes = to_ask_for(scopes);
        let mut tokens = self.tokens.lock().await;
        if let Some(bearer) = tokens.get(&scopes) {
            return Ok(bearer.clone());
        }
        let issued = self.issue(audience, scopes.clone(), None).await?.into_inner();
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", issued.access_token))
            .map_err(|_| Status::internal("the server's token is not one"))?;
        // Keeps it out of debug output, and out of the peers' header compression tables.
        bearer.set_sensitive(true);
        tokens.insert(scopes, bearer.clone());
        Ok(bearer)
    }

    async fn issue(
        &self,
        audience: &str,
        scopes: Vec<String>,
        ttl: Option<Duration>,
    ) -> Result<Response<IssueTokenResponse>, Status> {
        let requested_ttl = ttl.map(prost_types::Duration::try_from).transpose();
        let request = IssueTokenRequest {
            client_id: self.credentials.client_id.clone(),
            credential: self.prove()?,
            audience: audience.to_owned(),
            scopes,
            requested_ttl: requested_ttl
                .map_err(|_| Status::invalid_argument("the requested life is too long"))?,
        };
        TokenServiceClient::new(self.channel.clone()).issue_token(request).await
    }
}

impl Shared {
    /// What proves the client's name, once; nothing if the connection does.
    fn prove(&self) -> Result<Option<Credential>, Status> {
        let (key, issuer) = match &self.credentials.means {
            Means::Secret(secret) => {
                return Ok(Some(Credential::ClientSecret(secret.expose().to_owned())));
            }
            Means::PrivateKey { key, issuer } => (key, issuer),
            Means::Certificate { .. } => return Ok(None),
        };
        let client_id = ClientId::new(&self.credentials.client_id)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)
            .map_err(|_| Status::internal("the system gave no randomness"))?;
        let now = Clock::system().now();
        let assertion = sign_assertion(key, &client_id, issuer.as_str(), now, nonce);
        Ok(Some(Credential::ClientAssertion(assertion.into_exposed())))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// An id that makes a mutation idempotent.
///
/// # Errors
/// When the system has no randomness to give.
pub fn request_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::failed(format!("the system gave no randomness: {error}"), "try again")
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Scopes beside which others count: who holds `operators:write` or
/// `tokens:revoke` too may touch more with the same call.
const WIDENED_BY_OTHERS: [&str; 3] = ["clients:write", "tokens:revoke", "tokens:revoke-own"];

/// The scopes to ask for where these are demanded; none means all that the client holds.
fn to_ask_for(demanded: &[&str]) -> Vec<String> {
    if demanded.iter().any(|scope| WIDENED_BY_OTHERS.contains(scope)) {
        return Vec::new();
    }
    demanded.iter().map(|scope| (*scope).to_owned()).collect()
}

/// The audience and scopes that a method demands; none of a public one.
fn demanded(path: &str) -> Result<Option<(&'static str, &'static [&'static str])>, Status> {
    for policy in POLICIES {
        if let Some(method) = policy.methods.iter().find(|method| method.path == path) {
            return Ok(match method.access {
                Access::Public => None,
                Access::Scopes(scopes) => Some((policy.audience, scopes)),
            });
        }
    }
    Err(Status::internal(format!("{path} is not in the policy table")))
}

/// Who vouches for the server, and for us if a certificate does.
fn tls(credentials: &Credentials) -> Result<ClientTlsConfig, Error> {
    let tls = authorities(credentials)?;
    Ok(match &credentials.means {
        Means::Certificate { cert, key } => tls.identity(Identity::from_pem(cert, key.as_bytes())),
        Means::Secret(_) | Means::PrivateKey { .. } => tls,
    })
}

fn authorities(credentials: &Credentials) -> Result<ClientTlsConfig, Error> {
    let Some(path) = &credentials.ca_file else {
        return Ok(ClientTlsConfig::new().with_native_roots());
    };
    let unusable = |why: &dyn fmt::Display| {
        Error::failed(
            format!("the certificate authorities in {} cannot be used: {why}", path.display()),
            "correct ca_file or COUNTERSIGN_CA_FILE",
        )
    };
    let pem = fs::read(path).map_err(|error| unusable(&error))?;
    // Without this it would trust nobody, and not say why.
    if CertificateDer::from_pem_slice(&pem).is_err() {
        return Err(unusable(&"there is no certificate in it"));
    }
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

/// Where to connect, if it is a place to send a secret to.
fn destination(credentials: &Credentials, plaintext: Plaintext) -> Result<Uri, Error> {
    let Credentials { url, origin, .. } = credentials;
    let example = "give one like http://127.0.0.1:9443";
    // Not quoted before it is known to hold no password.
    let malformed = |what: &str| Error::failed(format!("the url in {origin} {what}"), example);

    let uri: Uri = url.parse().map_err(|_| malformed("is not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(malformed("lacks its scheme or host"));
    };
    if authority.as_str().contains('@') {
        return Err(malformed("holds a user name"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(malformed("has a path"));
    }
    match scheme {
        "https" => Ok(uri),
        "http" if matches!(credentials.means, Means::Certificate { .. }) => {
            Err(malformed("is plaintext, and a certificate is presented over TLS only"))
        }
        "http" if plaintext == Plaintext::Anywhere || is_loopback(authority.host()) => Ok(uri),
        "http" => Err(Error::failed(
            format!("{url} is off loopback, where plaintext would show the secret"),
            "use an https:// url, or give --insecure-plaintext if something else encrypts",
        )),
        _ => Err(malformed("is neither http:// nor https://")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::secret::Secret;

    fn destination_of(url: &str, plaintext: Plaintext) -> Result<Uri, String> {
        let credentials = Credentials {
            url: url.to_owned(),
            client_id: "cron".to_owned(),
            means: Means::Secret(Secret::new("csec_hush".to_owned())),
            ca_file: None,
            origin: "c.toml".to_owned(),
        };
        destination(&credentials, plaintext)
            .map_err(|error| error.line().expect("it says something"))
    }

    #[test]
    fn plaintext_goes_to_loopback_only_unless_told() {
        for url in
            ["http://127.0.0.1:9443", "http://127.8.9.1/", "http://[::1]:1", "http://LocalHost:1"]
        {
            assert!(destination_of(url, Plaintext::OnLoopback).is_ok(), "{url}");
        }
        assert!(destination_of("https://10.0.0.1:9443", Plaintext::OnLoopback).is_ok());
        for url in [
            "http://10.0.0.1:9443",
            "http://[::2]:1",
            "http://localhost.example:1",
            "http://0.0.0.0:1",
        ] {
            let error = destination_of(url, Plaintext::OnLoopback).expect_err(url);
            assert!(error.contains("--insecure-plaintext"), "{error}");
            assert!(destination_of(url, Plaintext::Anywhere).is_ok(), "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_quoting_a_password() {
        for url in [
            "127.0.0.1:9443",
            "/x",
            "ftp://127.0.0.1",
            "http://127.0.0.1/v1",
            "http://127.0.0.1/?x",
            "h t",
        ] {
            assert!(destination_of(url, Plaintext::Anywhere).is_err(), "{url}");
        }
        let error = destination_of("http://me:hush@127.0.0.1", Plaintext::Anywhere)
            .expect_err("a password");
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn a_read_asks_for_what_its_method_demands_and_a_write_for_all_that_is_held() {
        let asked = |path: &str| {
            demanded(path).expect("it is declared").map(|(_, scopes)| to_ask_for(scopes))
        };
        assert_eq!(
            asked("/countersign.v1.KeyService/ListKeys"),
            Some(vec!["keys:read".to_owned()])
        );
        assert_eq!(asked("/countersign.v1.ClientService/UpdateClient"), Some(Vec::new()));
        assert_eq!(asked("/countersign.v1.TokenService/RevokeToken"), Some(Vec::new()));
        assert_eq!(asked("/countersign.v1.TokenService/IssueToken"), None);
        assert!(demanded("/countersign.v1.KeyService/Strange").is_err());
    }

    #[test]
    fn request_ids_are_distinct_and_printable() {
        let (one, other) = (request_id().expect("randomness"), request_id().expect("randomness"));
        assert_ne!(one, other);
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
    }
}
