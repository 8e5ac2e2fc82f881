//! The signing keys: a rotation waits until every verifier holds the next key, a revocation happens at once.

use std::sync::Arc;

use countersign_mesh::claims::Timestamp;
use countersign_mesh::keys::SigningKey;
use metrics::{counter, gauge};
use serde::{Deserialize, Serialize};

use crate::authority::act::{Actor, Outcome};
use crate::authority::verifiers::brief;
use crate::authority::{Act, ActError, Authority, Refusal, TAIL, Verifiers, no_randomness};
use crate::ring::{KeyInfo, KeyRing, RevokeKeyError};
use crate::store::{AuditEvent, Change, Committed, State};

/// The actor that the audit log names for scheduled rotations and retirements.
pub(super) const SCHEDULE: &str = "schedule";

/// What a change of the ring resulted in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingChange {
    /// The key that signs from now on.
    pub active: KeyInfo,
    /// The key that will sign after the next rotation.
    pub next: KeyInfo,
    /// The key that was retired or revoked.
    pub ended: KeyInfo,
    /// The verifiers that may refuse tokens of the key that signs from now on.
    #[serde(default)]
    pub verifiers_behind: Vec<String>,
}

/// What to do if some verifiers would refuse the tokens of the key that is to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Do not rotate.
    Planned,
    /// Rotate all the same, and name them in the answer.
    Forced,
}

impl Authority {
    /// Promotes the next key to active, retires the active one, and makes a new next key. A planned rotation
    /// goes ahead only if no verifier would refuse the tokens of the promoted key.
    ///
    /// # Errors
    /// When a planned rotation would make calls fail, or might; when the ring is full, the clock is behind the
    /// ring, the store is known to be an old copy, or the store cannot be written.
    pub async fn rotate_keys(&self, act: Act, rotation: Rotation) -> Result<RingChange, ActError> {
        let action = match rotation {
            Rotation::Planned => "keys.rotate",
            Rotation::Forced => "keys.rotate.force",
        };
        // A store that was put back would use epochs a second time. Revocations are still taken: they only
        // make fewer tokens valid.
        if self.was_put_back() {
            return Err(self.refuse(&act, action, "", Refusal::PutBack));
        }
        let fresh = fresh_key()?;
        let verifiers = Arc::clone(&self.verifiers);
        let decide = move |state: &State, event: &mut AuditEvent, now| {
            rotate(state, event, now, &verifiers, fresh, rotation)
        };
        let rotated = self.act(act, action, "", decide).await.map(Committed::into_answer);
        measure(&rotated);
        rotated
    }

    /// Makes a planned rotation if one is due by schedule. Returns the change, or `None` if no rotation is due.
    ///
    /// # Errors
    /// See [`Authority::rotate_keys`]. The rotation stays due, so the next call tries again.
    pub async fn rotate_if_due(&self, now: Timestamp) -> Result<Option<RingChange>, ActError> {
        let Some(every) = self.settings.rotate_every else { return Ok(None) };
        let is_due = move |ring: &KeyRing, now| now >= ring.active().activated_at + every;
        // A store that was put back has raised its own alarm; one more refusal each time would add nothing.
        if self.was_put_back() || !is_due(&self.published.snapshot().state.ring, now) {
            return Ok(None);
        }
        let fresh = fresh_key()?;
        let verifiers = Arc::clone(&self.verifiers);
        let decide = move |state: &State, event: &mut AuditEvent, now| {
            // Decided again on the latest state: an operator may have rotated meanwhile.
            if !is_due(&state.ring, now) {
                return Ok((Vec::new(), None));
            }
            let (changes, change) =
                rotate(state, event, now, &verifiers, fresh, Rotation::Planned)?;
            Ok((changes, Some(change)))
        };
        let actor = Actor { name: SCHEDULE, peer: "", now };
        let rotated = self.act_as(actor, None, "keys.rotate", "", decide).await;
        let rotated = rotated.map(Committed::into_answer);
        measure(&rotated);
        rotated
    }

    /// Revokes a key: every token that it signed is rejected from now on. If it is the active key, the next one
    /// begins to sign in the same change, without asking the gate.
    ///
    /// # Errors
    /// When there is no such key, it is already revoked, the clock is behind the ring, or the store cannot be
    /// written.
    pub async fn revoke_key(&self, act: Act, kid: String) -> Result<RingChange, ActError> {
        // Made in any case: only the decision knows whether the key is active, next or retired.
        let fresh = fresh_key()?;
        let target = kid.clone();
        self.act(act, "keys.revoke", &target, move |state, _, now| {
            let ring = state.ring.revoke(&kid, fresh, now, TAIL).map_err(|error| match error {
                RevokeKeyError::Unknown => Refusal::NoSuchKey,
                RevokeKeyError::AlreadyRevoked => Refusal::KeyRevoked,
                RevokeKeyError::ClockBehind(behind) => Refusal::ClockBehind(behind),
            })?;
            let change = ring_change(&ring, &kid);
            Ok((vec![Change::ReplaceRing(Arc::new(ring))], change))
        })
        .await
        .map(Committed::into_answer)
    }

    /// All keys: next, active, then the retired and the revoked ones, each newest first.
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.published.snapshot().state.ring.keys()
    }
}

/// Decides on a rotation. It runs in the store's writer, so that nobody else changes the ring between the check
/// of the gate and the commit. A verifier that connects in between is sent `next` with its first message, since
/// `next` is already published.
fn rotate(
    state: &State,
    event: &mut AuditEvent,
    now: Timestamp,
    verifiers: &Verifiers,
    fresh: SigningKey,
    rotation: Rotation,
) -> Outcome<RingChange> {
    if !state.ring.has_room() {
        return Err(Refusal::TooManyKeys);
    }
    let ring = state.ring.rotate(fresh, now, TAIL).map_err(Refusal::ClockBehind)?;
    let mut verifiers_behind = match verifiers.check(&state.ring, state.listeners) {
        Ok(()) => Vec::new(),
        Err(behind) => match rotation {
            Rotation::Planned => return Err(Refusal::VerifiersBehind(behind)),
            Rotation::Forced => behind.who,
        },
    };
    // These do not hold the rotation up, but the operator should know that they may refuse new tokens.
    verifiers_behind.extend(verifiers.lagging());
    let kid = state.ring.active().key.kid().clone();
    event.target = ring.active().key.kid().to_string();
    event.detail = format!("retired {kid}");
    if !verifiers_behind.is_empty() {
        event.detail.push_str(&format!("; behind: {}", brief(&verifiers_behind)));
    }
    let change = RingChange { verifiers_behind, ..ring_change(&ring, kid.as_str()) };
    Ok((vec![Change::ReplaceRing(Arc::new(ring))], change))
}

/// Counts blocked rotations in the metrics, and notes there whether the latest one was blocked.
fn measure<T>(rotated: &Result<T, ActError>) {
    let blocked = matches!(rotated, Err(ActError::Refused(Refusal::VerifiersBehind(_))));
    if blocked {
        counter!("countersign_rotations_blocked_total").increment(1);
    }
    if blocked || rotated.is_ok() {
        gauge!("countersign_rotation_blocked").set(f64::from(u8::from(blocked)));
    }
}

fn fresh_key() -> Result<SigningKey, ActError> {
    SigningKey::generate().map_err(|_| no_randomness())
}

fn ring_change(ring: &KeyRing, ended: &str) -> RingChange {
    let keys = ring.keys();
    let ended = keys
        .iter()
        .find(|key| key.kid.as_str() == ended)
        .expect("a key that was retired or revoked stays in the ring");
    // `KeyRing::keys` lists next and active first.
    RingChange {
        next: keys[0].clone(),
        active: keys[1].clone(),
        ended: ended.clone(),
        verifiers_behind: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use countersign_mesh::claims::Clock;
    use countersign_mesh::internals::CowMap;
    use countersign_mesh::trust::Revocations;

    use super::*;
    use crate::ring::{ActiveKey, Listeners, NextKey, RetiredKey};
    use crate::store::ResourceIndex;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    #[test]
    fn a_full_ring_refuses_planned_and_forced_rotations() {
        let key = |seed: u8| Arc::new(SigningKey::from_seed(&[seed; 32]));
        let retired = |how_many: usize| {
            let retired = RetiredKey {
                key: key(3).public().clone(),
                created_at: NOW,
                activated_at: NOW,
                retired_at: NOW,
                verifies_until: NOW + TAIL,
            };
            vec![retired; how_many]
        };
        let rotated = |how_many: usize, rotation: Rotation| {
            let active = ActiveKey { key: key(1), created_at: NOW, activated_at: NOW };
            let next = NextKey { key: key(2), created_at: NOW };
            let state = State {
                issuer: "https://issuer.test".parse().expect("a valid issuer"),
                epoch: 1,
                revision: 1,
                clients: CowMap::default(),
                resources: ResourceIndex::default(),
                ring: Arc::new(KeyRing::from_parts(active, next, retired(how_many), vec![])),
                listeners: Listeners::default(),
                revocations: Revocations::default(),
            };
            let verifiers = Verifiers::new(&state.ring, 1, state.listeners, &Clock::fixed(NOW));
            let mut event = AuditEvent {
                at: NOW,
                actor: String::new(),
                action: String::new(),
                target: String::new(),
                outcome: String::new(),
                peer: String::new(),
                count: 1,
                detail: String::new(),
            };
            let fresh = SigningKey::from_seed(&[4; 32]);
            rotate(&state, &mut event, NOW, &verifiers, fresh, rotation).map(|_| ())
        };
        for rotation in [Rotation::Planned, Rotation::Forced] {
            assert_eq!(rotated(KeyRing::MAX_RETIRED - 1, rotation), Ok(()));
            assert_eq!(rotated(KeyRing::MAX_RETIRED, rotation), Err(Refusal::TooManyKeys));
        }
    }
}
