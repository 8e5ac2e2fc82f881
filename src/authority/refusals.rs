//! Refusals on their way to the audit log: counted together and bounded, so that whoever is refused
//! can neither fill the disk nor slow anyone down.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::claims::Timestamp;
use crate::store::AuditEvent;

/// How many different refusals are told apart between two times that they are written down.
const MAX_KINDS: usize = 512;

/// Refusals that are not written down yet.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Counted>);

/// Different refusals, each with how often it happened, and how many there was no place for.
#[derive(Default)]
pub(super) struct Counted {
    kinds: HashMap<Kind, u64>,
    uncounted: u64,
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct Kind {
    actor: String,
    action: &'static str,
    target: String,
    reason: &'static str,
    peer: String,
}

impl Refusals {
    /// Counts one more.
    pub(super) fn note(
        &self,
        actor: &str,
        action: &'static str,
        target: &str,
        reason: &'static str,
        peer: &str,
    ) {
        // Without the port: an attacker has a new one for every connection.
        let peer = peer.rsplit_once(':').map_or(peer, |(address, _)| address);
        let kind = Kind {
            actor: actor.to_owned(),
            action,
            target: target.to_owned(),
            reason,
            peer: peer.to_owned(),
        };
        self.lock().add(kind, 1);
    }

    /// Takes what there is.
    pub(super) fn take(&self) -> Counted {
        std::mem::take(&mut *self.lock())
    }

    /// Puts back what could not be written down.
    pub(super) fn put_back(&self, counted: Counted) {
        let mut current = self.lock();
        current.uncounted += counted.uncounted;
        for (kind, count) in counted.kinds {
            current.add(kind, count);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn add(&mut self, kind: Kind, count: u64) {
        if let Some(known) = self.kinds.get_mut(&kind) {
            *known += count;
        } else if self.kinds.len() < MAX_KINDS {
            self.kinds.insert(kind, count);
        } else {
            self.uncounted += count;
        }
    }

    /// As the audit log tells it.
    pub(super) fn to_events(&self, now: Timestamp) -> Vec<AuditEvent> {
        let event = |kind: &Kind, count, detail: &str| AuditEvent {
            at: now,
            actor: kind.actor.clone(),
            action: kind.action.to_owned(),
            target: kind.target.clone(),
            outcome: kind.reason.to_owned(),
            peer: kind.peer.clone(),
            count,
            detail: detail.to_owned(),
        };
        let mut events: Vec<AuditEvent> =
            self.kinds.iter().map(|(kind, count)| event(kind, *count, "")).collect();
        events.sort_by(|a, b| {
            (&a.actor, &a.action, &a.target).cmp(&(&b.actor, &b.action, &b.target))
        });
        if self.uncounted > 0 {
            let gap = Kind {
                actor: "countersign".to_owned(),
                action: "audit.gap",
                target: String::new(),
                reason: "gap",
                peer: String::new(),
            };
            events.push(event(&gap, self.uncounted, "more kinds of refusals than are told apart"));
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_one_event_and_too_many_kinds_are_a_gap() {
        let refusals = Refusals::default();
        for port in 0..5 {
            refusals.note("order", "token.issue", "", "wrong_secret", &format!("10.0.0.1:{port}"));
        }
        let events = refusals.take().to_events(Timestamp::from_unix(7));
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].count, events[0].peer.as_str()), (5, "10.0.0.1"));

        for n in 0..MAX_KINDS + 3 {
            refusals.note(&format!("unknown:{n}"), "token.issue", "", "unknown_client", "");
        }
        let counted = refusals.take();
        assert_eq!(counted.to_events(Timestamp::from_unix(7)).last().map(|gap| gap.count), Some(3));
        refusals.put_back(counted);
        assert_eq!(refusals.take().to_events(Timestamp::from_unix(8)).len(), MAX_KINDS + 1);
        assert!(refusals.take().to_events(Timestamp::from_unix(9)).is_empty());
    }
}
