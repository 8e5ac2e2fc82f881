//! The methods of `ClientService` about clients' credentials.

use std::time::Duration;

use countersign_mesh::keys::PublicKey;

use crate::authority::{CreatedCredential, NewCredential, TokensSoFar};
use crate::client::{CertificateName, CertificateNameKind, CredentialId};
use crate::rpc;
use crate::rpc::certificate_name::Name;
use crate::rpc::create_client_credential_request::Kind;
use crate::server::errors::CallError;
use crate::server::fields::{self, InvalidField};
use crate::server::grpc::wire_client::wire_credential;
use crate::server::grpc::{Call, Clients};

/// The longest life of a credential that has an end.
const LONGEST_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The shortest time without use after which a credential is retired: uses are known to about a minute.
const SHORTEST_IDLENESS: Duration = Duration::from_secs(60);

impl Clients {
    pub(super) async fn create_credential(
        &self,
        call: &Call<rpc::CreateClientCredentialRequest>,
    ) -> Result<rpc::CreateClientCredentialResponse, CallError> {
        let message = &call.message;
        let id = fields::name("client_id", &message.client_id)?;
        let new = new_credential(message.kind.as_ref())?;
        let ttl = life(message.ttl.as_ref())?;
        let retire_others = idleness(message.retire_others_when_idle.as_ref())?;
        let act = call.act(&self.0, "ClientService/CreateClientCredential", &message.request_id)?;
        let created = self.0.authority.create_credential(act, id, new, ttl, retire_others).await?;
        let (credential, client_secret) = match created {
            CreatedCredential::Secret(secret, info) => (info, secret.expose().to_owned()),
            CreatedCredential::Public(info) => (info, String::new()),
            CreatedCredential::SecretBefore(id) => {
                return Err(CallError::SecretShown(id.to_string()));
            }
        };
        let credential = Some(wire_credential(&credential));
        Ok(rpc::CreateClientCredentialResponse { credential, client_secret })
    }

    pub(super) async fn revoke_credential(
        &self,
        call: &Call<rpc::RevokeClientCredentialRequest>,
    ) -> Result<rpc::RevokeClientCredentialResponse, CallError> {
        let message = &call.message;
        let id = fields::name("client_id", &message.client_id)?;
        let credential: CredentialId = message
            .credential_id
            .parse()
            .map_err(|error| InvalidField::new("credential_id", error))?;
        let act = call.act(&self.0, "ClientService/RevokeClientCredential", &message.request_id)?;
        let tokens = match message.revoke_tokens {
            true => TokensSoFar::Revoked,
            false => TokensSoFar::Kept,
        };
        self.0.authority.revoke_credential(act, id, credential, tokens).await?;
        Ok(rpc::RevokeClientCredentialResponse {})
    }
}

fn new_credential(kind: Option<&Kind>) -> Result<NewCredential, InvalidField> {
    match kind {
        Some(Kind::Secret(rpc::ClientSecret {})) => Ok(NewCredential::Secret),
        Some(Kind::PublicKey(bytes)) => public_key(bytes).map(NewCredential::PublicKey),
        Some(Kind::CertificateName(name)) => {
            certificate_name(name).map(NewCredential::CertificateName)
        }
        None => {
            let problem = "missing; set secret, public_key or certificate_name";
            Err(InvalidField::new("kind", problem))
        }
    }
}

fn public_key(bytes: &[u8]) -> Result<PublicKey, InvalidField> {
    let invalid = |problem: &dyn ToString| InvalidField::new("public_key", problem.to_string());
    let bytes =
        bytes.try_into().map_err(|_| invalid(&"not the 32 bytes of an Ed25519 public key"))?;
    PublicKey::from_bytes(bytes).map_err(|error| invalid(&error))
}

fn certificate_name(name: &rpc::CertificateName) -> Result<CertificateName, InvalidField> {
    let (kind, text) = match &name.name {
        Some(Name::SubjectDn(text)) => (CertificateNameKind::SubjectDn, text),
        Some(Name::SanDns(text)) => (CertificateNameKind::SanDns, text),
        Some(Name::SanUri(text)) => (CertificateNameKind::SanUri, text),
        Some(Name::SanIp(text)) => (CertificateNameKind::SanIp, text),
        Some(Name::SanEmail(text)) => (CertificateNameKind::SanEmail, text),
        None => return Err(InvalidField::new("certificate_name", "missing; set one of its names")),
    };
    CertificateName::new(kind, text)
        .map_err(|error| InvalidField::new(format!("certificate_name.{}", kind.as_str()), error))
}

/// How long a credential shall work; `None` for no end.
fn life(ttl: Option<&prost_types::Duration>) -> Result<Option<Duration>, InvalidField> {
    let ttl = ttl.map(|ttl| fields::life("ttl", ttl)).transpose()?;
    if ttl.is_some_and(|ttl| ttl > LONGEST_LIFE) {
        let problem = "longer than ten years; leave it out for one without an end";
        return Err(InvalidField::new("ttl", problem));
    }
    Ok(ttl)
}

/// How long nobody must have used a credential for it to be retired; `None` for never.
fn idleness(span: Option<&prost_types::Duration>) -> Result<Option<Duration>, InvalidField> {
    let field = "retire_others_when_idle";
    match span.map(|span| fields::life(field, span)).transpose()? {
        Some(span) if span < SHORTEST_IDLENESS => {
            Err(InvalidField::new(field, "shorter than a minute"))
        }
        Some(span) if span > LONGEST_LIFE => Err(InvalidField::new(field, "longer than ten years")),
        span => Ok(span),
    }
}
