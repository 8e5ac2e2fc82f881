//! `TokenService`.

use countersign_mesh::claims::TokenId;
use countersign_mesh::token::{MAX_LEN, Rejection};
use countersign_mesh::trust::VerifiedToken;
use tonic::{Request, Response, Status};

use crate::authority::RevocationTarget;
use crate::client::{CertificateNames, PresentedCredential};
use crate::policy::TokenRequest;
use crate::rpc::issue_token_request::Credential as WireCredential;
use crate::rpc::revoke_token_request::Target;
use crate::rpc::token_service_server::TokenService;
use crate::rpc::{self, InactiveReason};
use crate::server::attempt::Attempt;
use crate::server::desk::Desk;
use crate::server::errors::CallError;
use crate::server::fields::{self, InvalidField, wire_duration, wire_scopes, wire_time};
use crate::server::grpc::{Call, end};

/// Longer than any secret that was ever made here.
const MAX_SECRET_LEN: usize = 256;

pub(in crate::server) struct Tokens(pub(in crate::server) Desk);

#[tonic::async_trait]
impl TokenService for Tokens {
    async fn issue_token(
        &self,
        request: Request<rpc::IssueTokenRequest>,
    ) -> Result<Response<rpc::IssueTokenResponse>, Status> {
        let call = Call::public(request);
        end(&call.notes, self.issue(&call).await)
    }

    async fn validate_token(
        &self,
        request: Request<rpc::ValidateTokenRequest>,
    ) -> Result<Response<rpc::ValidateTokenResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.validate(&call))
    }

    async fn revoke_token(
        &self,
        request: Request<rpc::RevokeTokenRequest>,
    ) -> Result<Response<rpc::RevokeTokenResponse>, Status> {
        let call = Call::permitted(request)?;
        end(&call.notes, self.revoke(&call).await)
    }
}

impl Tokens {
    async fn issue(
        &self,
        call: &Call<rpc::IssueTokenRequest, ()>,
    ) -> Result<rpc::IssueTokenResponse, CallError> {
        let message = &call.message;
        let client_id = fields::name("client_id", &message.client_id)?;
        let credential = credential(message, call.certificate.as_deref())?;
        let requested_ttl = message.requested_ttl.as_ref();
        let token = TokenRequest {
            audience: fields::optional_name("audience", &message.audience)?,
            scopes: fields::scopes("scopes", &message.scopes)?,
            requested_ttl: requested_ttl
                .map(|ttl| fields::life("requested_ttl", ttl))
                .transpose()?,
        };
        let attempt = Attempt {
            client_id,
            credential,
            peer: &call.peer,
            origin: call.origin,
            notes: &call.notes,
        };
        let issued = attempt.issue(&self.0, &token).await?;
        Ok(rpc::IssueTokenResponse {
            access_token: issued.token.into_exposed(),
            token_type: "Bearer".to_owned(),
            expire_time: Some(wire_time(issued.claims.expires_at)),
            expires_in: Some(wire_duration(issued.expires_in)),
            refresh_in: Some(wire_duration(issued.refresh_in)),
            audience: issued.claims.audience.to_string(),
            scopes: wire_scopes(&issued.claims.scopes),
        })
    }

    fn validate(
        &self,
        call: &Call<rpc::ValidateTokenRequest>,
    ) -> Result<rpc::ValidateTokenResponse, CallError> {
        let message = &call.message;
        if message.token.is_empty() {
            return Err(InvalidField::new("token", "empty").into());
        }
        let audience = fields::optional_name("audience", &message.audience)?;
        let required = fields::scopes("required_scopes", &message.required_scopes)?;
        let now = self.0.clock.now();
        let caller = &call.caller.claims().client_id;
        let answer = self.0.authority.validate(caller, &message.token, audience.as_ref(), now)?;
        Ok(match answer {
            Ok(token) if token.claims().scopes.first_missing(&required).is_some() => {
                inactive(InactiveReason::ScopeMissing)
            }
            Ok(token) => {
                let _ = call.notes.audience.set(token.claims().audience.clone());
                let claims = Some(wire_claims(&token, now));
                rpc::ValidateTokenResponse { active: true, inactive_reason: 0, claims }
            }
            Err(rejection) => inactive(inactive_reason(&rejection)),
        })
    }

    async fn revoke(
        &self,
        call: &Call<rpc::RevokeTokenRequest>,
    ) -> Result<rpc::RevokeTokenResponse, CallError> {
        let target = match &call.message.target {
            Some(Target::Token(token)) if token.is_empty() || token.len() > MAX_LEN => {
                return Err(InvalidField::new("token", "empty or too long to be a token").into());
            }
            Some(Target::Token(token)) => RevocationTarget::Token(token),
            // An id is written down with the revocation. A longer text may be a secret in the wrong place.
            Some(Target::TokenId(id)) if id.len() > TokenId::LEN => {
                return Err(InvalidField::new("token_id", "longer than any id made here").into());
            }
            Some(Target::TokenId(id)) => RevocationTarget::TokenId(fields::name("token_id", id)?),
            None => {
                return Err(InvalidField::new("target", "missing; set token or token_id").into());
            }
        };
        let act = call.act(&self.0, "", "")?;
        self.0.authority.revoke_token(act, target).await?;
        Ok(rpc::RevokeTokenResponse {})
    }
}

/// What the client proves itself with: the credential that it sends. Only if it sends none does the certificate of
/// its connection count, which may be there for another reason.
fn credential<'a>(
    message: &'a rpc::IssueTokenRequest,
    certificate: Option<&'a CertificateNames>,
) -> Result<PresentedCredential<'a>, InvalidField> {
    match &message.credential {
        Some(WireCredential::ClientSecret(secret)) => {
            if !(1..=MAX_SECRET_LEN).contains(&secret.len()) {
                return Err(InvalidField::new("client_secret", "empty or too long to be a secret"));
            }
            Ok(PresentedCredential::Secret(secret))
        }
        Some(WireCredential::ClientAssertion(assertion)) => {
            if !(1..=MAX_LEN).contains(&assertion.len()) {
                return Err(InvalidField::new(
                    "client_assertion",
                    "empty or too long to be an assertion",
                ));
            }
            Ok(PresentedCredential::Assertion(assertion))
        }
        None => certificate.map(PresentedCredential::Certificate).ok_or_else(|| {
            InvalidField::new(
                "credential",
                "missing; set client_secret or client_assertion, or connect with a client certificate",
            )
        }),
    }
}

fn inactive(reason: InactiveReason) -> rpc::ValidateTokenResponse {
    rpc::ValidateTokenResponse { active: false, inactive_reason: reason.into(), claims: None }
}

fn inactive_reason(rejection: &Rejection) -> InactiveReason {
    match rejection {
        Rejection::Malformed(_) | Rejection::IssuerMismatch | Rejection::SignatureInvalid => {
            InactiveReason::Invalid
        }
        Rejection::Expired | Rejection::NotYetValid => InactiveReason::Expired,
        Rejection::KeyUnknown => InactiveReason::KeyUnknown,
        Rejection::Revoked => InactiveReason::Revoked,
        Rejection::AudienceMismatch => InactiveReason::AudienceMismatch,
    }
}

fn wire_claims(
    token: &VerifiedToken,
    now: countersign_mesh::claims::Timestamp,
) -> rpc::TokenClaims {
    let claims = token.claims();
    rpc::TokenClaims {
        issuer: claims.issuer.to_string(),
        client_id: claims.client_id.to_string(),
        audience: claims.audience.to_string(),
        scopes: wire_scopes(&claims.scopes),
        issue_time: Some(wire_time(claims.issued_at)),
        expire_time: Some(wire_time(claims.expires_at)),
        expires_in: Some(wire_duration(claims.expires_at.since(now))),
        token_id: claims.token_id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(
        sent: Option<WireCredential>,
        certificate: Option<&CertificateNames>,
    ) -> Result<&'static str, InvalidField> {
        let message = rpc::IssueTokenRequest { credential: sent, ..Default::default() };
        credential(&message, certificate).map(|credential| match credential {
            PresentedCredential::Secret(_) => "secret",
            PresentedCredential::Assertion(_) => "assertion",
            PresentedCredential::Certificate(_) => "certificate",
        })
    }

    #[test]
    fn the_certificate_of_the_connection_counts_where_nothing_is_sent() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["backup.example".to_owned()]);
        let certificate = params.expect("a name").self_signed(&key).expect("a certificate");
        let names = CertificateNames::from_der(certificate.der()).expect("it has a name");
        let secret = || WireCredential::ClientSecret("csec_hush".to_owned());
        let assertion = || WireCredential::ClientAssertion("a.b.c".to_owned());

        assert_eq!(presented(None, Some(&names)), Ok("certificate"));
        assert_eq!(presented(Some(secret()), Some(&names)), Ok("secret"));
        assert_eq!(presented(Some(assertion()), Some(&names)), Ok("assertion"));
        assert_eq!(presented(Some(secret()), None), Ok("secret"));
        // A credential that was sent is not passed over because it is wrong.
        let empty = WireCredential::ClientSecret(String::new());
        assert!(presented(Some(empty), Some(&names)).is_err());
        assert!(presented(None, None).is_err());
    }
}
