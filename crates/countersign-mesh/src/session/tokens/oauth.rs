//! Any issuer's OAuth 2.0 token endpoint, over HTTP.

use std::fmt::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode, Uri};
use serde::Deserialize;
use tonic::Status;
use zeroize::Zeroizing;

use crate::claims::{MAX_TOKEN_LIFE, ScopeSet};
use crate::session::reach::address::{Plaintext, Roots, address};
use crate::session::reach::credentials::ClientSecret;
use crate::session::reach::credentials_file::CredentialsFile;
use crate::session::reach::error::SessionError;
use crate::session::reach::http_client::HttpClient;
use crate::session::reach::jitter::Jitter;
use crate::session::tokens::fetched::{FetchError, Fetched};
use crate::token::Token;

/// How long a token is assumed to live when its issuer does not say: RFC 6749 §5.1 only recommends
/// `expires_in`.
const LIFE_UNSAID: Duration = Duration::from_secs(300);

/// A token endpoint (RFC 6749 §4.4), and who we are there: the client authenticates by HTTP Basic, as
/// every issuer must support (§2.3.1).
///
/// Plaintext is for this machine only; redirects are not followed; an answer is read up to 256 KiB.
#[derive(Clone)]
pub struct OAuthEndpoint {
    url: Uri,
    client_id: String,
    secret: ClientSecret,
    parameters: Vec<(String, String)>,
    http: HttpClient,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

impl OAuthEndpoint {
    /// The endpoint at this address, with the system's certificate authorities.
    ///
    /// # Errors
    /// When the address is not one, or not on this machine and in plaintext.
    pub fn new(url: &str, client_id: &str, secret: ClientSecret) -> Result<Self, SessionError> {
        Self::with_roots(url, client_id, secret, &Roots::default())
    }

    /// The same, where the server's certificate is signed by this authority, in PEM, and no other.
    ///
    /// # Errors
    /// Also when the certificate is not one.
    pub fn with_ca_certificate(
        url: &str,
        client_id: &str,
        secret: ClientSecret,
        pem: &[u8],
    ) -> Result<Self, SessionError> {
        Self::with_roots(url, client_id, secret, &Roots::only(pem)?)
    }

    /// The endpoint that a credentials file names: TOML, mode 0600, with the endpoint's address as `url`,
    /// `client_id` and `client_secret`. The secret is read again for each token. The certificate
    /// authorities are those in `ca_file`, or else the system's.
    ///
    /// # Errors
    /// Also when the file cannot be read, can be read by others, or is not one.
    pub fn from_credentials_file(path: impl Into<PathBuf>) -> Result<Self, SessionError> {
        let path = path.into();
        let file = CredentialsFile::read(&path).map_err(SessionError::Credentials)?;
        let roots = match file.authorities().map_err(SessionError::Credentials)? {
            Some(pem) => Roots::only(&pem)?,
            None => Roots::default(),
        };
        let (url, client_id) = (file.url.clone(), file.client_id.clone());
        // The secret is read again for each token; here only to see that the file holds one.
        drop(file.into_secret().map_err(SessionError::Credentials)?);
        let secret = ClientSecret::from_credentials_file(path);
        Self::with_roots(&url, &client_id, secret, &roots)
    }

    fn with_roots(
        url: &str,
        client_id: &str,
        secret: ClientSecret,
        roots: &Roots,
    ) -> Result<Self, SessionError> {
        let url = address(url, Plaintext::OnLoopback)?;
        let http = HttpClient::new(roots.for_http(&url)?);
        Ok(Self { url, client_id: client_id.to_owned(), secret, parameters: Vec::new(), http })
    }

    /// Sends one more parameter, such as the `audience` or `resource` that some issuers ask for.
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn host(&self) -> &str {
        self.url.host().unwrap_or_default()
    }

    pub(crate) async fn fetch(&self, scopes: &ScopeSet) -> Result<Fetched, FetchError> {
        let secret = self
            .secret
            .read()
            .map_err(|error| FetchError::Unavailable(Status::unavailable(error.to_string())))?;
        let fetched = self.fetch_with(&secret, scopes).await;
        match &fetched {
            Err(error) if error.is_of_secret() => match self.secret.newer(&secret) {
                Some(newer) => self.fetch_with(&newer, scopes).await,
                None => fetched,
            },
            _ => fetched,
        }
    }

    async fn fetch_with(&self, secret: &str, scopes: &ScopeSet) -> Result<Fetched, FetchError> {
        let unavailable = |why: String| FetchError::Unavailable(Status::unavailable(why));
        let authorization = self.authorization(secret);
        let answer = self.http.post_form(&self.url, authorization, self.form(scopes)).await;
        let (status, answer) =
            answer.map_err(|problem| unavailable(format!("the token endpoint gave {problem}")))?;
        if status != StatusCode::OK {
            return Err(refusal(status, &answer));
        }
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| unavailable("the token endpoint's answer holds no token".to_owned()))?;
        if !answer.token_type.eq_ignore_ascii_case("bearer") {
            return Err(FetchError::Refused(Status::internal(
                "the token endpoint issues tokens that are not bearer tokens",
            )));
        }
        let expires_in = answer.expires_in.map_or(LIFE_UNSAID, Duration::from_secs);
        Ok(Fetched {
            token: Token::issued(answer.access_token),
            expires_in,
            // The answer does not say when to come again: after 40 % to 60 % of the life, so early
            // enough, and not together with the rest of the fleet.
            refresh_in: expires_in
                .min(MAX_TOKEN_LIFE)
                .mul_f64(0.4 + Jitter::system().fraction() / 5.0),
        })
    }

    /// HTTP Basic as in RFC 6749 §2.3.1: id and secret are form-encoded before they are joined.
    fn authorization(&self, secret: &str) -> HeaderValue {
        let mut pair = Zeroizing::new(String::new());
        encode_form(&mut pair, &self.client_id);
        pair.push(':');
        encode_form(&mut pair, secret);
        let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let mut value = HeaderValue::from_str(&value).expect("base64 can be in a header");
        value.set_sensitive(true);
        value
    }

    fn form(&self, scopes: &ScopeSet) -> String {
        let mut form = "grant_type=client_credentials".to_owned();
        let scope = (!scopes.is_empty()).then(|| ("scope", scopes.as_str()));
        let parameters =
            self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in scope.into_iter().chain(parameters) {
            form.push('&');
            encode_form(&mut form, name);
            form.push('=');
            encode_form(&mut form, value);
        }
        form
    }
}

/// What an answer without a token means (RFC 6749 §5.2). Only error codes that are known are repeated,
/// not the endpoint's own words: those may quote what it was sent.
fn refusal(status: StatusCode, answer: &[u8]) -> FetchError {
    let error = serde_json::from_slice::<ErrorAnswer>(answer).ok();
    let error = error.as_ref().map(|answer| answer.error.as_str());
    let error = match (status, error) {
        (
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN,
            Some(error),
        ) => [
            "invalid_client",
            "unauthorized_client",
            "invalid_scope",
            "invalid_request",
            "invalid_grant",
            "invalid_target",
            "unsupported_grant_type",
            "access_denied",
        ]
        .into_iter()
        .find(|known| *known == error),
        (StatusCode::UNAUTHORIZED, None) => Some("401 Unauthorized"),
        _ => None,
    };
    match error {
        Some(error) => FetchError::Refused(Status::unauthenticated(format!(
            "the token endpoint answered {error}"
        ))),
        None => FetchError::Unavailable(Status::unavailable(format!(
            "the token endpoint answered {status}"
        ))),
    }
}

/// `application/x-www-form-urlencoded` (RFC 6749 appendix B).
fn encode_form(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => write!(out, "%{byte:02X}").expect("a string takes all text"),
        }
    }
}

impl fmt::Debug for OAuthEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthEndpoint")
            .field("url", &self.url)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
