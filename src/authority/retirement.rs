//! The retirement of idle credentials: each is revoked by schedule once a newer one is in use.
//!
//! An operator who makes a new credential can mark the client's others of its kind
//! (`Credential::retire_when_idle`). A marked credential is *idle* once nobody has used it for the marked time.
//! It is revoked only if it is also *replaced*: a newer credential of its kind works and has been used. Until
//! then it is kept, with a warning once a day, so that no client is shut out.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use countersign_mesh::claims::{ClientId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::authority::act::Actor;
use crate::authority::keys::SCHEDULE;
use crate::client::{Client, Credential, CredentialId};
use crate::store::{AuditEvent, Change, Committed, RequestError, State, StoreError};

/// How often the log warns that an idle credential is kept.
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether a credential is idle, and whether a newer one replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Idle {
    /// It is not idle, is not marked to be retired, or has expired.
    NotYet,
    /// It is idle, but no newer one has been used either.
    Unreplaced,
    /// It is idle, and a newer one is in use.
    Replaced,
}

/// An idle credential of a client.
pub(super) struct IdleCredential {
    pub(super) client: ClientId,
    pub(super) id: CredentialId,
    pub(super) idle: Idle,
}

/// The idle credentials that are kept, each with the time of the last warning.
pub(super) type Kept = HashMap<(ClientId, CredentialId), Timestamp>;

/// Says whether a credential of a client is idle.
///
/// Idle time counts from the latest of three times:
/// - its last use;
/// - the creation of the newest credential of its kind: it was marked when a newer one was made, and is not
///   idle before;
/// - `uses_known_since`: an earlier use may have been lost in a crash.
pub(super) fn idle(
    client: &Client,
    credential: &Credential,
    uses_known_since: Timestamp,
    now: Timestamp,
) -> Idle {
    let Some(span) = credential.retire_when_idle.filter(|_| !credential.has_expired(now)) else {
        return Idle::NotYet;
    };
    let of_its_kind = || client.credentials.iter().filter(|one| one.kind.is_like(&credential.kind));
    let newest = of_its_kind().map(|one| one.created_at).max();
    let since = [credential.last_use.time(), newest].into_iter().flatten().max();
    if now < since.unwrap_or(now).max(uses_known_since) + span {
        return Idle::NotYet;
    }
    let replaces = |newer: &Credential| {
        // Of two that were made in the same second, the one without a mark is the newer: making it marked
        // the other.
        let is_newer = newer.created_at > credential.created_at
            || newer.created_at == credential.created_at && newer.retire_when_idle.is_none();
        newer.id != credential.id
            && is_newer
            && !newer.has_expired(now)
            && newer.last_use.time().is_some()
    };
    match of_its_kind().any(|newer| replaces(newer)) {
        true => Idle::Replaced,
        false => Idle::Unreplaced,
    }
}

impl Authority {
    /// Revokes the idle credentials that are replaced, and warns of those that are not.
    pub(super) async fn retire(
        &self,
        idle: Vec<IdleCredential>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (replaced, unreplaced): (Vec<_>, Vec<_>) =
            idle.into_iter().partition(|credential| credential.idle == Idle::Replaced);
        self.warn_of(&unreplaced, now);
        for IdleCredential { client, id, .. } in replaced {
            if self.retire_one(&client, id.clone(), now).await? {
                tracing::info!(%client, credential = %id, "an idle credential was retired by schedule");
            }
        }
        Ok(())
    }

    /// Revokes a credential if it is still idle and replaced. Says whether it was revoked.
    ///
    /// The newer credential stays and works, so this shuts out neither a client nor the last operator.
    async fn retire_one(
        &self,
        client: &ClientId,
        credential: CredentialId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let uses_known_since = self.uses_known_since;
        let id = client.clone();
        let actor = Actor { name: SCHEDULE, peer: "", now };
        let decide = move |state: &State, event: &mut AuditEvent, now| {
            let found = state.clients.get(&id).and_then(|client| {
                Some((client, client.credentials.iter().find(|one| one.id == credential)?))
            });
            let Some((before, found)) = found else { return Ok((Vec::new(), false)) };
            // Decided again on the latest state: meanwhile somebody may have used this credential, or revoked
            // the newer one.
            if idle(before, found, uses_known_since, now) != Idle::Replaced {
                return Ok((Vec::new(), false));
            }
            let used = match found.last_use.time() {
                Some(at) => {
                    format!("last used {}s ago", now.as_unix().saturating_sub(at.as_unix()))
                }
                None => "never used".to_owned(),
            };
            event.detail = format!("{} {credential}; {used}", found.kind.as_str());
            let mut after = Client::clone(before);
            after.credentials.retain(|one| one.id != credential);
            after.updated_at = now;
            Ok((vec![Change::PutClient(after)], true))
        };
        let action = "client.credential.retire";
        match self.act_as(actor, None, action, client.as_str(), decide).await {
            Ok(retired) => Ok(Committed::into_answer(retired)),
            Err(RequestError::Store(error)) => Err(error),
            Err(RequestError::Refused(_) | RequestError::RequestIdReused) => Ok(false),
        }
    }

    /// Warns of the idle credentials that are kept, of each once a day.
    fn warn_of(&self, unreplaced: &[IdleCredential], now: Timestamp) {
        let mut kept = self.kept_idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut still = Kept::new();
        for IdleCredential { client, id, .. } in unreplaced {
            let key = (client.clone(), id.clone());
            let said = kept.get(&key).copied().filter(|said| now < *said + WARN_EVERY);
            if said.is_none() {
                tracing::warn!(
                    %client, credential = %id,
                    "a credential that nobody uses is kept: no newer one has been used either"
                );
            }
            still.insert(key, said.unwrap_or(now));
        }
        *kept = still;
    }
}
