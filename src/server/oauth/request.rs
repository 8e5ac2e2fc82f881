//! A request to an OAuth endpoint, read within bounds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use http::{HeaderMap, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tonic::transport::server::TcpConnectInfo;
use zeroize::Zeroizing;

use crate::client::CertificateNames;
use crate::server::notes::RequestNotes;
use crate::server::oauth::errors::OAuthError;
use crate::server::oauth::form::Form;

/// The largest body that is read.
const MAX_BODY: usize = 16 * 1024;

/// How long a body may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Parameters that would end up in logs and histories if they stood in the address (RFC 6749 §2.3.1).
const NOT_IN_QUERY: [&str; 10] = [
    "audience",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "resource",
    "scope",
    "token",
    "token_type_hint",
];

/// A request taken apart.
pub(super) struct Post {
    pub(super) headers: HeaderMap,
    pub(super) form: Form,
    pub(super) peer: String,
    /// Where it came from, for limits.
    pub(super) origin: Option<IpAddr>,
    /// The names in the client certificate of the connection, if it has one.
    pub(super) certificate: Option<Arc<CertificateNames>>,
    pub(super) notes: Arc<RequestNotes>,
}

impl Post {
    /// Reads a request: its form, of bounded size, in bounded time.
    ///
    /// # Errors
    /// When it is not a form, too large, or too slow.
    pub(super) async fn read(request: Request) -> Result<Self, OAuthError> {
        let (parts, body) = request.into_parts();
        if !is_form(&parts.headers) {
            return Err(OAuthError::Invalid(
                "the content type is not application/x-www-form-urlencoded",
            ));
        }
        if is_encoded(&parts.headers) {
            return Err(OAuthError::Invalid("the body has a content encoding; send it as it is"));
        }
        refuse_in_query(&parts.uri)?;
        let bytes = tokio::time::timeout(BODY_TIME, bounded(body))
            .await
            .map_err(|_| OAuthError::TooSlow)??;
        let peer = parts.extensions.get().and_then(TcpConnectInfo::remote_addr);
        Ok(Self {
            form: Form::parse(&bytes)?,
            origin: peer.map(|peer| peer.ip()),
            peer: peer.map(|peer| peer.to_string()).unwrap_or_default(),
            certificate: parts.extensions.get().cloned(),
            notes: parts.extensions.get::<Arc<RequestNotes>>().cloned().unwrap_or_default(),
            headers: parts.headers,
        })
    }
}

/// Whether exactly one `Content-Type` says that the body is a form. Letter case and parameters do not matter.
fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(only), None) = (types.next(), types.next()) else { return false };
    let essence = only.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// Whether the body says that it is compressed. We decompress nothing, and would misread it.
fn is_encoded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

fn refuse_in_query(uri: &Uri) -> Result<(), OAuthError> {
    let query = Form::parse(uri.query().unwrap_or_default().as_bytes())?;
    if NOT_IN_QUERY.iter().any(|name| query.mentions(name)) {
        return Err(OAuthError::Invalid("parameters belong into the body, not into the address"));
    }
    Ok(())
}

/// Reads a body, and never more than [`MAX_BODY`] of it.
async fn bounded(mut body: Body) -> Result<Zeroizing<Vec<u8>>, OAuthError> {
    let said = body.size_hint();
    if said.lower() > MAX_BODY as u64 {
        return Err(OAuthError::TooLarge);
    }
    // Allocated at its full size, so that it does not move and leave a copy of a secret behind.
    let most = said.upper().and_then(|most| usize::try_from(most).ok());
    let mut bytes = Zeroizing::new(Vec::with_capacity(most.unwrap_or(MAX_BODY).min(MAX_BODY)));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| OAuthError::BodyBroken)?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(OAuthError::TooLarge);
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}
