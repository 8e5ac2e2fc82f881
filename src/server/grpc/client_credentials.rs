//! The methods of `ClientService` about clients' keys and certificates.

use countersign_mesh::keys::PublicKey;

use crate::client::{CertificateInfo, CertificateName, CertificateNameKind, ClientKeyInfo};
use crate::rpc;
use crate::rpc::client_certificate::Name;
use crate::server::errors::CallError;
use crate::server::fields::{self, InvalidField, wire_time};
use crate::server::grpc::clients::credential_life;
use crate::server::grpc::{Call, Clients};

impl Clients {
    pub(super) async fn create_key(
        &self,
        call: &Call<rpc::CreateClientKeyRequest>,
    ) -> Result<rpc::CreateClientKeyResponse, CallError> {
        let message = &call.message;
        let id = fields::name("client_id", &message.client_id)?;
        let key = public_key(&message.public_key)?;
        let ttl = credential_life(message.ttl.as_ref())?;
        let act = call.act(&self.0, "ClientService/CreateClientKey", &message.request_id)?;
        let created = self.0.authority.create_client_key(act, id, key, ttl).await?;
        Ok(rpc::CreateClientKeyResponse { key: Some(wire_key(&created)) })
    }

    pub(super) async fn revoke_key(
        &self,
        call: &Call<rpc::RevokeClientKeyRequest>,
    ) -> Result<rpc::RevokeClientKeyResponse, CallError> {
        let message = &call.message;
        let id = fields::name("client_id", &message.client_id)?;
        let kid = fields::name("kid", &message.kid)?;
        let act = call.act(&self.0, "ClientService/RevokeClientKey", &message.request_id)?;
        self.0.authority.revoke_client_key(act, id, kid).await?;
        Ok(rpc::RevokeClientKeyResponse {})
    }

    pub(super) async fn create_certificate(
        &self,
        call: &Call<rpc::CreateClientCertificateRequest>,
    ) -> Result<rpc::CreateClientCertificateResponse, CallError> {
        let message = &call.message;
        let id = fields::name("client_id", &message.client_id)?;
        let name = certificate_name(message.certificate.as_ref())?;
        let ttl = credential_life(message.ttl.as_ref())?;
        let act =
            call.act(&self.0, "ClientService/CreateClientCertificate", &message.request_id)?;
        let created = self.0.authority.create_client_certificate(act, id, name, ttl).await?;
        Ok(rpc::CreateClientCertificateResponse { certificate: Some(wire_certificate(&created)) })
    }

    pub(super) async fn revoke_certificate(
        &self,
        call: &Call<rpc::RevokeClientCertificateRequest>,
    ) -> Result<rpc::RevokeClientCertificateResponse, CallError> {
        let message = &call.message;
        let id = fields::name("client_id", &message.client_id)?;
        let name = certificate_name(message.certificate.as_ref())?;
        let act =
            call.act(&self.0, "ClientService/RevokeClientCertificate", &message.request_id)?;
        self.0.authority.revoke_client_certificate(act, id, name).await?;
        Ok(rpc::RevokeClientCertificateResponse {})
    }
}

fn public_key(bytes: &[u8]) -> Result<PublicKey, InvalidField> {
    let invalid = |problem: &dyn ToString| InvalidField::new("public_key", problem.to_string());
    let bytes =
        bytes.try_into().map_err(|_| invalid(&"not the 32 bytes of an Ed25519 public key"))?;
    PublicKey::from_bytes(bytes).map_err(|error| invalid(&error))
}

fn certificate_name(
    certificate: Option<&rpc::ClientCertificate>,
) -> Result<CertificateName, InvalidField> {
    let name = certificate.and_then(|certificate| certificate.name.as_ref());
    let (kind, text) = match name {
        Some(Name::SubjectDn(text)) => (CertificateNameKind::SubjectDn, text),
        Some(Name::SanDns(text)) => (CertificateNameKind::SanDns, text),
        Some(Name::SanUri(text)) => (CertificateNameKind::SanUri, text),
        Some(Name::SanIp(text)) => (CertificateNameKind::SanIp, text),
        Some(Name::SanEmail(text)) => (CertificateNameKind::SanEmail, text),
        None => return Err(InvalidField::new("certificate", "missing; set one of its names")),
    };
    CertificateName::new(kind, text)
        .map_err(|error| InvalidField::new(format!("certificate.{}", kind.as_str()), error))
}

pub(super) fn wire_key(key: &ClientKeyInfo) -> rpc::ClientKey {
    rpc::ClientKey {
        kid: key.kid.to_string(),
        public_key: key.public_key.to_vec(),
        create_time: Some(wire_time(key.created_at)),
        expire_time: key.expires_at.map(wire_time),
        last_use_time: key.last_used_at.map(wire_time),
    }
}

pub(super) fn wire_certificate(certificate: &CertificateInfo) -> rpc::ClientCertificate {
    let name = &certificate.name;
    let text = name.as_str().to_owned();
    rpc::ClientCertificate {
        name: Some(match name.kind() {
            CertificateNameKind::SubjectDn => Name::SubjectDn(text),
            CertificateNameKind::SanDns => Name::SanDns(text),
            CertificateNameKind::SanUri => Name::SanUri(text),
            CertificateNameKind::SanIp => Name::SanIp(text),
            CertificateNameKind::SanEmail => Name::SanEmail(text),
        }),
        create_time: Some(wire_time(certificate.created_at)),
        expire_time: certificate.expires_at.map(wire_time),
        last_use_time: certificate.last_used_at.map(wire_time),
    }
}
