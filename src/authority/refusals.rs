//! Refusals on their way to the audit log: counted together and bounded, so that whoever is refused
//! can neither fill the disk, nor slow anyone down, nor hide another's refusals among their own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_mesh::claims::Timestamp;

use crate::store::AuditEvent;

/// How many refusals of each sort are told apart between two times that they are written down.
const MAX_KINDS: usize = 128;

/// How many rows of refusals are written in a day; after that, only how many there were.
const MAX_ROWS_A_DAY: usize = 10_000;

/// Refusals that are not written down yet.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Ledger>);

#[derive(Default)]
struct Ledger {
    counted: Counted,
    /// Days since 1970, and how many rows were written on that one.
    today: (u64, usize),
}

/// Different refusals, each with how often it happened, and how many there was no place for.
#[derive(Default)]
pub(super) struct Counted {
    kinds: HashMap<Kind, u64>,
    uncounted: u64,
}

#[derive(PartialEq, Eq, Hash, Clone)]
struct Kind {
    sort: Sort,
    actor: String,
    action: &'static str,
    target: String,
    reason: &'static str,
    peer: String,
}

/// Sorts of refusals. One cannot take another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sort {
    /// Of someone who gave a name that nobody has: anyone can make up any number of them.
    Unknown,
    /// Of someone who gave a client's name.
    Client,
    /// Of an operator's act.
    Act,
}

/// A refusal.
pub(super) struct RefusalNote<'a> {
    pub(super) sort: Sort,
    pub(super) actor: &'a str,
    pub(super) action: &'static str,
    pub(super) target: &'a str,
    pub(super) reason: &'static str,
    pub(super) peer: &'a str,
}

impl Refusals {
    /// Counts one more.
    pub(super) fn note(&self, refused: &RefusalNote<'_>) {
        // Without the port: an attacker has a new one for every connection.
        let peer = refused.peer.rsplit_once(':').map_or(refused.peer, |(address, _)| address);
        let kind = Kind {
            sort: refused.sort,
            actor: refused.actor.to_owned(),
            action: refused.action,
            target: refused.target.to_owned(),
            reason: refused.reason,
            peer: peer.to_owned(),
        };
        self.lock().counted.add(kind, 1);
    }

    /// Takes what there is, no more than there is room for today.
    pub(super) fn take(&self, now: Timestamp) -> Counted {
        let mut ledger = self.lock();
        let mut counted = std::mem::take(&mut ledger.counted);
        let day = now.as_unix() / (24 * 60 * 60);
        if ledger.today.0 != day {
            ledger.today = (day, 0);
        }
        if ledger.today.1 + counted.kinds.len() > MAX_ROWS_A_DAY {
            counted.uncounted += counted.kinds.drain().map(|(_, count)| count).sum::<u64>();
        }
        ledger.today.1 += counted.kinds.len();
        counted
    }

    /// Puts back what could not be written down.
    pub(super) fn put_back(&self, counted: Counted) {
        let mut ledger = self.lock();
        ledger.today.1 = ledger.today.1.saturating_sub(counted.kinds.len());
        ledger.counted.uncounted += counted.uncounted;
        for (kind, count) in counted.kinds {
            ledger.counted.add(kind, count);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn add(&mut self, kind: Kind, count: u64) {
        if let Some(known) = self.kinds.get_mut(&kind) {
            *known += count;
        } else if self.kinds.keys().filter(|known| known.sort == kind.sort).count() < MAX_KINDS {
            self.kinds.insert(kind, count);
        } else {
            self.uncounted += count;
        }
    }

    /// As the audit log tells it.
    pub(super) fn to_events(&self, now: Timestamp) -> Vec<AuditEvent> {
        let mut events: Vec<AuditEvent> = self
            .kinds
            .iter()
            .map(|(kind, count)| AuditEvent {
                at: now,
                actor: kind.actor.clone(),
                action: kind.action.to_owned(),
                target: kind.target.clone(),
                outcome: kind.reason.to_owned(),
                peer: kind.peer.clone(),
                count: *count,
                detail: String::new(),
            })
            .collect();
        events.sort_by(|a, b| {
            (&a.actor, &a.action, &a.target).cmp(&(&b.actor, &b.action, &b.target))
        });
        if self.uncounted > 0 {
            events.push(AuditEvent {
                at: now,
                actor: "countersign".to_owned(),
                action: "audit.gap".to_owned(),
                target: String::new(),
                outcome: "gap".to_owned(),
                peer: String::new(),
                count: self.uncounted,
                detail: "more refusals than are told apart".to_owned(),
            });
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn refused<'a>(sort: Sort, actor: &'a str, peer: &'a str) -> RefusalNote<'a> {
        RefusalNote { sort, actor, action: "token.issue", target: "", reason: "wrong_secret", peer }
    }

    fn flood(refusals: &Refusals, sort: Sort, kinds: usize) {
        for n in 0..kinds {
            refusals.note(&refused(sort, &format!("{n}"), ""));
        }
    }

    #[test]
    fn the_same_refusal_is_one_event() {
        let refusals = Refusals::default();
        for port in 0..5 {
            refusals.note(&refused(Sort::Client, "order", &format!("10.0.0.1:{port}")));
        }
        let events = refusals.take(NOW).to_events(NOW);
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].count, events[0].peer.as_str()), (5, "10.0.0.1"));
        assert!(refusals.take(NOW).to_events(NOW).is_empty());
    }

    #[test]
    fn too_many_kinds_are_a_gap_and_leave_room_for_other_sorts() {
        let refusals = Refusals::default();
        flood(&refusals, Sort::Unknown, MAX_KINDS + 3);
        refusals.note(&refused(Sort::Client, "order", ""));
        refusals.note(&refused(Sort::Act, "operator", ""));
        let counted = refusals.take(NOW);
        let events = counted.to_events(NOW);
        assert_eq!(events.len(), MAX_KINDS + 3);
        assert!(events.iter().any(|event| event.actor == "order"));
        assert!(events.iter().any(|event| event.actor == "operator"));
        assert_eq!(
            events.last().map(|gap| (gap.action.as_str(), gap.count)),
            Some(("audit.gap", 3))
        );

        refusals.put_back(counted);
        assert_eq!(refusals.take(NOW).to_events(NOW).len(), MAX_KINDS + 3, "none is lost");
    }

    #[test]
    fn a_day_has_room_for_so_many_rows_and_then_only_for_their_number() {
        let refusals = Refusals::default();
        let mut rows = 0;
        for _ in 0..=MAX_ROWS_A_DAY / MAX_KINDS {
            flood(&refusals, Sort::Unknown, MAX_KINDS);
            rows += refusals.take(NOW).kinds.len();
        }
        assert!(rows > MAX_ROWS_A_DAY - MAX_KINDS && rows <= MAX_ROWS_A_DAY, "{rows}");
        flood(&refusals, Sort::Unknown, MAX_KINDS);
        let events = refusals.take(NOW).to_events(NOW);
        assert_eq!(events.iter().map(|gap| gap.count).collect::<Vec<_>>(), [MAX_KINDS as u64]);

        flood(&refusals, Sort::Unknown, MAX_KINDS);
        let tomorrow = NOW + std::time::Duration::from_secs(86_400);
        assert_eq!(refusals.take(tomorrow).kinds.len(), MAX_KINDS);
    }
}
