//! The public keys and the certificate names of clients. Their secrets are administered in `clients`.

use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::{ClientId, Kid};
use countersign_mesh::keys::PublicKey;

use crate::authority::clients::{keep_an_operator, known};
use crate::authority::{Act, ActError, Authority, Refusal};
use crate::client::{
    CertificateInfo, CertificateName, Client, ClientKeyInfo, LastUse, StoredCertificate, StoredKey,
};
use crate::policy::{may_change, may_make_credential};
use crate::store::{Change, Committed};

impl Authority {
    /// Registers a public key with which a client may sign assertions.
    ///
    /// # Errors
    /// When there is no such client, policy does not allow it, the client has the key, or it has as many
    /// as it can have.
    pub async fn create_client_key(
        &self,
        act: Act,
        id: ClientId,
        key: PublicKey,
        ttl: Option<Duration>,
    ) -> Result<ClientKeyInfo, ActError> {
        let operator = act.operator.clone();
        let target = id.to_string();
        self.act(act, "client.key.create", &target, move |state, event, now| {
            let before = known(state, &id)?;
            may_make_credential(&operator, &before.settings).map_err(Refusal::Denied)?;
            let mut client = Client::clone(before);
            // A key whose time is over makes room for a new one, or for itself.
            client.keys.retain(|stored| !stored.has_expired(now));
            if client.keys.iter().any(|stored| stored.key == key) {
                return Err(Refusal::ClientKeyExists);
            }
            if client.keys.len() >= Client::MAX_KEYS {
                return Err(Refusal::TooManyClientKeys);
            }
            event.detail = format!("key {}", key.kid());
            let created = StoredKey {
                key,
                created_at: now,
                expires_at: ttl.map(|ttl| now + ttl),
                last_use: LastUse::default(),
            };
            let info = created.info();
            client.keys.push(Arc::new(created));
            client.updated_at = now;
            Ok((vec![Change::PutClient(client)], info))
        })
        .await
        .map(Committed::into_answer)
    }

    /// Revokes one public key of a client: it gets no new tokens with it.
    ///
    /// # Errors
    /// When there is no such client or key, policy does not allow it, or no operator could authenticate
    /// any more.
    pub async fn revoke_client_key(
        &self,
        act: Act,
        id: ClientId,
        kid: Kid,
    ) -> Result<(), ActError> {
        let operator = act.operator.clone();
        let target = id.to_string();
        self.act(act, "client.key.revoke", &target, move |state, event, now| {
            let before = known(state, &id)?;
            may_change(&operator, Some(&before.settings), Some(&before.settings))
                .map_err(Refusal::Denied)?;
            let mut client = Client::clone(before);
            client.keys.retain(|stored| *stored.key.kid() != kid);
            if client.keys.len() == before.keys.len() {
                return Err(Refusal::NoSuchClientKey);
            }
            keep_an_operator(state, before, Some(&client), now)?;
            event.detail = format!("key {kid}");
            client.updated_at = now;
            Ok((vec![Change::PutClient(client)], ()))
        })
        .await
        .map(Committed::into_answer)
    }

    /// Registers a name by whose certificate a client may connect.
    ///
    /// # Errors
    /// When there is no such client, policy does not allow it, the client has the name, or it has as many
    /// as it can have.
    pub async fn create_client_certificate(
        &self,
        act: Act,
        id: ClientId,
        name: CertificateName,
        ttl: Option<Duration>,
    ) -> Result<CertificateInfo, ActError> {
        let operator = act.operator.clone();
        let target = id.to_string();
        self.act(act, "client.certificate.create", &target, move |state, event, now| {
            let before = known(state, &id)?;
            may_make_credential(&operator, &before.settings).map_err(Refusal::Denied)?;
            let mut client = Client::clone(before);
            client.certificates.retain(|stored| !stored.has_expired(now));
            if client.certificates.iter().any(|stored| stored.name == name) {
                return Err(Refusal::CertificateExists);
            }
            if client.certificates.len() >= Client::MAX_CERTIFICATES {
                return Err(Refusal::TooManyCertificates);
            }
            event.detail = name.to_string();
            let created = StoredCertificate {
                name,
                created_at: now,
                expires_at: ttl.map(|ttl| now + ttl),
                last_use: LastUse::default(),
            };
            let info = created.info();
            client.certificates.push(Arc::new(created));
            client.updated_at = now;
            Ok((vec![Change::PutClient(client)], info))
        })
        .await
        .map(Committed::into_answer)
    }

    /// Revokes one certificate name of a client: it gets no new tokens by it.
    ///
    /// # Errors
    /// When there is no such client or name, policy does not allow it, or no operator could authenticate
    /// any more.
    pub async fn revoke_client_certificate(
        &self,
        act: Act,
        id: ClientId,
        name: CertificateName,
    ) -> Result<(), ActError> {
        let operator = act.operator.clone();
        let target = id.to_string();
        self.act(act, "client.certificate.revoke", &target, move |state, event, now| {
            let before = known(state, &id)?;
            may_change(&operator, Some(&before.settings), Some(&before.settings))
                .map_err(Refusal::Denied)?;
            let mut client = Client::clone(before);
            client.certificates.retain(|stored| stored.name != name);
            if client.certificates.len() == before.certificates.len() {
                return Err(Refusal::NoSuchCertificate);
            }
            keep_an_operator(state, before, Some(&client), now)?;
            event.detail = name.to_string();
            client.updated_at = now;
            Ok((vec![Change::PutClient(client)], ()))
        })
        .await
        .map(Committed::into_answer)
    }
}
