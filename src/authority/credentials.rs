//! Adding and revoking credentials of clients. All kinds go the same way.

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

/// A credential to add to a client.
#[derive(Debug)]
pub enum NewCredential {
    /// A secret. The authority makes it.
    Secret,
    /// A public key. Only the client has its private half.
    PublicKey(PublicKey),
    /// A name that the client's certificate has.
    CertificateName(CertificateName),
}

/// The result of a request for a credential.
#[derive(Debug)]
pub enum CreatedCredential {
    /// A new secret. This is the only time that it is shown.
    Secret(ClientSecret, CredentialInfo),
    /// The same request made this secret before. It cannot be shown again.
    SecretBefore(CredentialId),
    /// A credential without secret parts.
    Public(CredentialInfo),
}

/// What happens to the tokens of a client when one of its credentials is revoked. It concerns all of them:
/// nobody knows which ones the client got with that credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokensSoFar {
    /// They stay valid until they expire.
    Kept,
    /// All of them are revoked too.
    Revoked,
}

impl Authority {
    /// Adds a credential to a client, which works for `ttl` or for ever. With `retire_others`, each other
    /// credential of its kind that the client has now is revoked once it has been unused for this long and a
    /// newer one has been used.
    ///
    /// # Errors
    /// When there is no such client, policy does not allow it, or the client already has this credential or
    /// the maximum number of its kind.
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
            // Expired credentials of this kind make room. So a key that has expired can be added again.
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
                    // A use that is noted while this runs is not in the copy. That is harmless: idle time
                    // counts from the creation of the newest credential at the earliest, which is now.
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

    /// Revokes one credential of a client, so that it gives no new tokens. To revoke the client's tokens too
    /// takes the scope `tokens:revoke`.
    ///
    /// # Errors
    /// When there is no such client or credential, policy does not allow it, or no operator could authenticate
    /// any more. With [`TokensSoFar::Revoked`] also when `tokens:revoke` is missing, and in the cases of
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
