//! The credentials of clients: added and revoked, of whatever kind.

use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::ClientId;
use countersign_mesh::keys::PublicKey;

use crate::authority::clients::soon_cut_off;
use crate::authority::{Act, ActError, Authority, Refusal, no_randomness};
use crate::client::{
    CertificateName, ClientSecret, Credential, CredentialId, CredentialInfo, CredentialKind,
    SecretHash,
};
use crate::policy::{may_change, may_make_credential};
use crate::store::Committed;

/// What to add to a client's credentials.
#[derive(Debug)]
pub enum NewCredential {
    /// A secret, which is made here.
    Secret,
    /// A public key; the client has its private key.
    PublicKey(PublicKey),
    /// A name in the client's certificate.
    CertificateName(CertificateName),
}

/// What a request for a credential comes to.
#[derive(Debug)]
pub enum CreatedCredential {
    /// A secret, shown this once.
    Secret(ClientSecret, CredentialInfo),
    /// The same request made this secret before; it is not shown again.
    SecretBefore(CredentialId),
    /// A credential with nothing to hide.
    Public(CredentialInfo),
}

/// What becomes of the tokens that a client has when one of its credentials is revoked. Nobody knows which
/// of them it got with that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokensSoFar {
    /// They live on.
    Kept,
    /// All of them are revoked.
    Revoked,
}

impl Authority {
    /// Adds a credential to a client. With `retire_others`, each one of its kind that the client has now is
    /// revoked once nobody has used it for this long, and someone a newer one.
    ///
    /// # Errors
    /// When there is no such client, policy does not allow it, the client has this credential, or it has as
    /// many of its kind as it can have.
    pub async fn create_credential(
        &self,
        act: Act,
        id: ClientId,
        new: NewCredential,
        ttl: Option<Duration>,
        retire_others: Option<Duration>,
    ) -> Result<CreatedCredential, ActError> {
        let (secret, kind) = match new {
            NewCredential::Secret => {
                let secret = ClientSecret::generate().map_err(|_| no_randomness())?;
                let hash = SecretHash::of(secret.expose());
                (Some(secret), CredentialKind::Secret(hash))
            }
            NewCredential::PublicKey(key) => (None, CredentialKind::PublicKey(Box::new(key))),
            NewCredential::CertificateName(name) => (None, CredentialKind::CertificateName(name)),
        };
        let action = "client.credential.create";
        let committed = self.change_client(act, action, id, move |client, change| {
            may_make_credential(change.operator, &change.before.settings)
                .map_err(Refusal::Denied)?;
            let now = change.now;
            // One whose time is over makes room for a new one, or for itself.
            client
                .credentials
                .retain(|stored| !stored.kind.is_like(&kind) || !stored.has_expired(now));
            let is_free = |id: &CredentialId| client.credentials.iter().all(|one| one.id != *id);
            let id = kind.ids().find(is_free).ok_or(Refusal::CredentialExists)?;
            let others = client.credentials.iter_mut().filter(|stored| stored.kind.is_like(&kind));
            let others: Vec<&mut Arc<Credential>> = others.collect();
            if others.len() >= CredentialKind::MAX_OF_EACH {
                return Err(Refusal::TooManyCredentials);
            }
            change.event.detail = format!("{} {id}", kind.as_str());
            if let Some(span) = retire_others {
                for other in others {
                    // A use that is noted meanwhile is lost, and does not matter: idle it is since now.
                    *other = Arc::new(other.retiring_when_idle(span));
                }
                let note = format!("; others retire when idle for {}s", span.as_secs());
                change.event.detail.push_str(&note);
            }
            let created = Credential { id, ..Credential::new(kind, now, ttl) };
            let info = created.info();
            client.credentials.push(Arc::new(created));
            Ok(info)
        });
        Ok(match (committed.await?, secret) {
            (Committed::Now(info), Some(secret)) => CreatedCredential::Secret(secret, info),
            (Committed::Before(info), Some(_)) => CreatedCredential::SecretBefore(info.id),
            (committed, None) => CreatedCredential::Public(committed.into_answer()),
        })
    }

    /// Revokes one credential of a client: it gets no new tokens with it. The tokens that it has are
    /// revoked with `tokens:revoke` only.
    ///
    /// # Errors
    /// When there is no such client or credential, policy does not allow it, or no operator could
    /// authenticate any more. For the tokens also when the scope is missing, or as
    /// [`Authority::revoke_client_tokens`].
    pub async fn revoke_credential(
        &self,
        act: Act,
        id: ClientId,
        credential: CredentialId,
        tokens: TokensSoFar,
    ) -> Result<(), ActError> {
        let action = "client.credential.revoke";
        self.change_client(act, action, id, move |client, change| {
            let settings = Some(&change.before.settings);
            may_change(change.operator, settings, settings).map_err(Refusal::Denied)?;
            let revokes_tokens = tokens == TokensSoFar::Revoked;
            if revokes_tokens && !change.operator.holds("tokens:revoke") {
                return Err(Refusal::ScopeMissing("tokens:revoke"));
            }
            let at = client.credentials.iter().position(|stored| stored.id == credential);
            let revoked = client.credentials.remove(at.ok_or(Refusal::NoSuchCredential)?);
            change.keep_an_operator(client)?;
            change.event.detail = format!("{} {credential}", revoked.kind.as_str());
            if revokes_tokens {
                change.event.detail.push_str("; tokens so far");
                let cut = soon_cut_off(change.state, change.before, change.now, change.latest)?;
                change.more.push(cut);
            }
            Ok(())
        })
        .await
        .map(Committed::into_answer)
    }
}
