//! Secrets that nobody uses any more: revoked by schedule, once a newer one is in use.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use countersign_mesh::claims::{ClientId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::authority::Authority;
use crate::authority::act::Actor;
use crate::authority::keys::SCHEDULE;
use crate::client::{Client, SecretId, StoredSecret};
use crate::store::{AuditEvent, Change, Committed, RequestError, State, StoreError};

/// How often it is said of a secret that it is kept although it is idle.
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether nobody has used a secret for as long as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Idle {
    /// Somebody has, or it is not to be retired at all.
    NotYet,
    /// Nobody has, but nobody has used a newer one either.
    Unreplaced,
    /// Nobody has, and a newer one is in use.
    Replaced,
}

/// A secret that nobody has used for as long as it takes.
pub(super) struct IdleSecret {
    pub(super) client: ClientId,
    pub(super) id: SecretId,
    pub(super) idle: Idle,
}

/// Which idle secrets were kept, and when that was last said.
pub(super) type Kept = HashMap<(ClientId, SecretId), Timestamp>;

/// Says whether a secret of a client is idle. All uses since `uses_known_since` are known. Marked it was
/// when a newer secret was made, so that it is idle since the newest was, at the earliest.
pub(super) fn idle(
    client: &Client,
    secret: &StoredSecret,
    uses_known_since: Timestamp,
    now: Timestamp,
) -> Idle {
    let Some(span) = secret.retire_when_idle.filter(|_| !secret.has_expired(now)) else {
        return Idle::NotYet;
    };
    let newest = client.secrets.iter().map(|secret| secret.created_at).max();
    let since = [secret.last_use.time(), newest].into_iter().flatten().max();
    if now < since.unwrap_or(now).max(uses_known_since) + span {
        return Idle::NotYet;
    }
    let replaces = |newer: &StoredSecret| {
        // Of two that were made in the same second, the one without a mark is the newer.
        let is_newer = newer.created_at > secret.created_at
            || newer.created_at == secret.created_at && newer.retire_when_idle.is_none();
        newer.id != secret.id
            && is_newer
            && !newer.has_expired(now)
            && newer.last_use.time().is_some()
    };
    match client.secrets.iter().any(|newer| replaces(newer)) {
        true => Idle::Replaced,
        false => Idle::Unreplaced,
    }
}

impl Authority {
    /// Revokes the idle secrets that are replaced, and says which are not.
    pub(super) async fn retire(
        &self,
        idle: Vec<IdleSecret>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (replaced, unreplaced): (Vec<_>, Vec<_>) =
            idle.into_iter().partition(|secret| secret.idle == Idle::Replaced);
        self.warn_of(&unreplaced, now);
        for IdleSecret { client, id, .. } in replaced {
            if self.retire_secret(&client, id, now).await? {
                tracing::info!(%client, secret = %id, "an idle secret was retired by schedule");
            }
        }
        Ok(())
    }

    /// Revokes a secret if it is still idle and replaced. Another secret that works is left then, so that
    /// neither a client nor the last operator is shut out.
    async fn retire_secret(
        &self,
        client: &ClientId,
        secret: SecretId,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let uses_known_since = self.uses_known_since;
        let id = client.clone();
        let actor = Actor { name: SCHEDULE, peer: "", now };
        let decide = move |state: &State, event: &mut AuditEvent, now| {
            let found = state.clients.get(&id).and_then(|client| {
                let secret = client.secrets.iter().find(|stored| stored.id == secret)?;
                Some((client, secret))
            });
            let Some((before, secret)) = found else { return Ok((Vec::new(), false)) };
            // Somebody may have used it, or revoked the newer one, meanwhile.
            if idle(before, secret, uses_known_since, now) != Idle::Replaced {
                return Ok((Vec::new(), false));
            }
            event.detail = match secret.last_use.time() {
                Some(at) => {
                    let ago = now.as_unix().saturating_sub(at.as_unix());
                    format!("secret {}; last used {ago}s ago", secret.id)
                }
                None => format!("secret {}; never used", secret.id),
            };
            let mut after = Client::clone(before);
            after.secrets.retain(|stored| stored.id != secret.id);
            after.updated_at = now;
            Ok((vec![Change::PutClient(after)], true))
        };
        let action = "client.secret.retire";
        match self.act_as(actor, None, action, client.as_str(), decide).await {
            Ok(retired) => Ok(Committed::into_answer(retired)),
            Err(RequestError::Store(error)) => Err(error),
            Err(RequestError::Refused(_) | RequestError::RequestIdReused) => Ok(false),
        }
    }

    /// Says once a day which secrets are kept although they are idle.
    fn warn_of(&self, unreplaced: &[IdleSecret], now: Timestamp) {
        let mut kept = self.kept_idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut still = Kept::new();
        for IdleSecret { client, id, .. } in unreplaced {
            let key = (client.clone(), *id);
            let said = kept.get(&key).copied().filter(|said| now < *said + WARN_EVERY);
            if said.is_none() {
                tracing::warn!(
                    %client, secret = %id,
                    "a secret that nobody uses is kept: no newer one has been used either"
                );
            }
            still.insert(key, said.unwrap_or(now));
        }
        *kept = still;
    }
}
