//! Clients and their credentials, as messages.

use crate::client::{
    CertificateName, CertificateNameKind, ClientInfo, ClientSettings, CredentialContent,
    CredentialInfo, GrantRule, ResourceAlias,
};
use crate::rpc;
use crate::rpc::certificate_name::Name;
use crate::rpc::client_credential::Kind;
use crate::server::fields::{wire_duration, wire_scopes, wire_time};

pub(super) fn wire_client(client: &ClientInfo) -> rpc::Client {
    let ClientSettings { description, grants, serves, max_token_ttl, disabled, resources } =
        &client.settings;
    let wire_alias = |alias: &ResourceAlias| rpc::ResourceAlias {
        uri: alias.uri.to_string(),
        audience: alias.audience.to_string(),
    };
    let wire_grant = |rule: &GrantRule| rpc::Grant {
        audience: rule.audience.to_string(),
        scopes: wire_scopes(&rule.scopes),
    };
    rpc::Client {
        client_id: client.id.to_string(),
        description: description.to_string(),
        grants: grants.as_slice().iter().map(wire_grant).collect(),
        serves: serves.as_slice().iter().map(ToString::to_string).collect(),
        max_token_ttl: max_token_ttl.map(wire_duration),
        disabled: *disabled,
        create_time: Some(wire_time(client.created_at)),
        update_time: Some(wire_time(client.updated_at)),
        etag: format!("{:x}", client.revision),
        resources: resources.as_slice().iter().map(wire_alias).collect(),
        credentials: client.credentials.iter().map(wire_credential).collect(),
    }
}

pub(super) fn wire_credential(credential: &CredentialInfo) -> rpc::ClientCredential {
    rpc::ClientCredential {
        credential_id: credential.id.to_string(),
        kind: Some(match &credential.content {
            CredentialContent::Secret => Kind::Secret(rpc::ClientSecret {}),
            CredentialContent::PublicKey(key) => Kind::PublicKey(key.to_vec()),
            CredentialContent::CertificateName(name) => {
                Kind::CertificateName(wire_certificate_name(name))
            }
        }),
        create_time: Some(wire_time(credential.created_at)),
        expire_time: credential.expires_at.map(wire_time),
        last_use_time: credential.last_used_at.map(wire_time),
        retire_when_idle: credential.retire_when_idle.map(wire_duration),
    }
}

fn wire_certificate_name(name: &CertificateName) -> rpc::CertificateName {
    let text = name.as_str().to_owned();
    let name = Some(match name.kind() {
        CertificateNameKind::SubjectDn => Name::SubjectDn(text),
        CertificateNameKind::SanDns => Name::SanDns(text),
        CertificateNameKind::SanUri => Name::SanUri(text),
        CertificateNameKind::SanIp => Name::SanIp(text),
        CertificateNameKind::SanEmail => Name::SanEmail(text),
    });
    rpc::CertificateName { name }
}
