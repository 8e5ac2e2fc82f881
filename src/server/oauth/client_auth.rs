//! What a client proves itself with, found in a request.

use countersign_mesh::claims::ClientId;
use http::{HeaderMap, header};

use crate::authority::Proven;
use crate::client::{CertificateNames, PresentedCredential, unverified_subject};
use crate::server::attempt::Attempt;
use crate::server::desk::Desk;
use crate::server::oauth::authorization::BasicCredentials;
use crate::server::oauth::errors::OAuthError;
use crate::server::oauth::form::Form;
use crate::server::oauth::request::Post;

/// The one kind of assertion (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What a client presents. Nothing of it is verified yet.
pub(super) enum Presented<'a> {
    /// An id and a secret in the `Authorization` header.
    Basic(BasicCredentials),
    /// An id and a secret in the form.
    Post { client_id: &'a str, client_secret: &'a str },
    /// A signed assertion, and the id if it stands beside it.
    Assertion { client_id: Option<&'a str>, assertion: &'a str },
    /// An id alone: the certificate of the connection must prove it.
    Certificate { client_id: &'a str },
}

/// Finds what the client presents: exactly one thing (RFC 6749 §2.3).
///
/// # Errors
/// When there is nothing, more than one thing, or something malformed.
pub(super) fn presented<'a>(
    headers: &HeaderMap,
    form: &'a Form,
) -> Result<Presented<'a>, OAuthError> {
    let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
    let header = authorization.next();
    let client_id = form.get("client_id");
    let client_secret = form.get("client_secret");
    let assertion = form.get("client_assertion");
    let assertion_type = form.get("client_assertion_type");
    let methods = [
        header.is_some(),
        authorization.next().is_some(),
        client_secret.is_some(),
        assertion.is_some() || assertion_type.is_some(),
    ];
    if methods.iter().filter(|method| **method).count() > 1 {
        return Err(OAuthError::Invalid("the client authenticates in more than one way"));
    }
    if let Some(header) = header {
        let basic = BasicCredentials::parse(header.as_bytes())
            .ok_or(OAuthError::Client("malformed_authorization"))?;
        if client_id.is_some_and(|id| id != basic.client_id.as_str()) {
            return Err(OAuthError::Invalid("client_id is not the one that authenticates"));
        }
        return Ok(Presented::Basic(basic));
    }
    if let Some(client_secret) = client_secret {
        let client_id = client_id.ok_or(OAuthError::Invalid("client_id is missing"))?;
        return Ok(Presented::Post { client_id, client_secret });
    }
    match (assertion, assertion_type) {
        (Some(assertion), Some(JWT_BEARER)) => {
            return Ok(Presented::Assertion { client_id, assertion });
        }
        (Some(_), Some(_)) => return Err(OAuthError::Client("unknown_assertion_type")),
        (Some(_), None) => return Err(OAuthError::Invalid("client_assertion_type is missing")),
        (None, Some(_)) => return Err(OAuthError::Invalid("client_assertion is missing")),
        (None, None) => {}
    }
    let client_id = client_id.ok_or(OAuthError::Client("no_credential"))?;
    Ok(Presented::Certificate { client_id })
}

impl<'a> Presented<'a> {
    /// The client and its credential; the certificate is that of the connection, if it has one.
    ///
    /// # Errors
    /// When what is presented cannot be anyone's.
    fn claim(
        &'a self,
        certificate: Option<&'a CertificateNames>,
    ) -> Result<(ClientId, PresentedCredential<'a>), OAuthError> {
        let (client_id, credential) = match self {
            Self::Basic(basic) => {
                (basic.client_id.as_str(), PresentedCredential::Secret(&basic.client_secret))
            }
            Self::Post { client_id, client_secret } => {
                (*client_id, PresentedCredential::Secret(client_secret))
            }
            Self::Assertion { client_id: Some(client_id), assertion } => {
                (*client_id, PresentedCredential::Assertion(assertion))
            }
            // RFC 7521 §4.2: the assertion says it, too.
            Self::Assertion { client_id: None, assertion } => {
                let client_id =
                    unverified_subject(assertion).ok_or(OAuthError::Client("bad_assertion"))?;
                return Ok((client_id, PresentedCredential::Assertion(assertion)));
            }
            Self::Certificate { client_id } => {
                let certificate = certificate.ok_or(OAuthError::Client("no_credential"))?;
                (*client_id, PresentedCredential::Certificate(certificate))
            }
        };
        let client_id =
            ClientId::new(client_id).map_err(|_| OAuthError::Client("malformed_client_id"))?;
        Ok((client_id, credential))
    }
}

impl<'a> Presented<'a> {
    /// The request as an attempt to authenticate.
    ///
    /// # Errors
    /// When what is presented cannot be anyone's.
    pub(super) fn attempt(&'a self, post: &'a Post) -> Result<Attempt<'a>, OAuthError> {
        let (client_id, credential) = self.claim(post.certificate.as_deref())?;
        let (peer, origin, notes) = (&post.peer, post.origin, &post.notes);
        Ok(Attempt { client_id, credential, peer, origin, notes })
    }
}

/// Authenticates the client that sends a request.
///
/// # Errors
/// When it presents nothing, or nothing that proves who it is.
pub(super) fn authenticate(desk: &Desk, post: &Post) -> Result<Proven, OAuthError> {
    Ok(presented(&post.headers, &post.form)?.attempt(post)?.authenticate(desk)?)
}
