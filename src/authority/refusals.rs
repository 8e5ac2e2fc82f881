//! Refusals on their way to the audit log. Equal ones are counted together in memory and written by
//! maintenance, about once a minute.
//!
//! Everything is bounded, because anyone can cause refusals. Whoever does can neither fill the disk, nor slow
//! others down, nor hide the refusals of others among their own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_mesh::claims::Timestamp;

use crate::store::AuditEvent;

/// How many different refusals of each sort are kept until they are written. Further ones are only counted.
const MAX_KINDS: usize = 128;

/// How many rows of refusals are written in a day (UTC). After that only their number is written.
const MAX_ROWS_A_DAY: usize = 10_000;

/// The refusals that are not written yet.
#[derive(Default)]
pub(super) struct Refusals(Mutex<Ledger>);

#[derive(Default)]
struct Ledger {
    counted: Counted,
    /// A day, counted from 1970, and the number of rows written on it.
    today: (u64, usize),
}

/// Refusals with the number of times that each happened.
#[derive(Default)]
pub(super) struct Counted {
    kinds: HashMap<Kind, u64>,
    /// How many refusals there was no place for. The audit log shows them as a gap.
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

/// The sorts of refusals. Each has its own limit, so that none takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sort {
    /// Someone gave an id that no client has. Anyone can invent any number of them.
    Unknown,
    /// Someone gave the id of a client and failed to authenticate.
    Client,
    /// The act of an authenticated client was refused.
    Act,
}

/// One refusal, as it is noted.
pub(super) struct RefusalNote<'a> {
    pub(super) sort: Sort,
    pub(super) actor: &'a str,
    pub(super) action: &'static str,
    pub(super) target: &'a str,
    pub(super) reason: &'static str,
    pub(super) peer: &'a str,
}

impl Refusals {
    /// Counts one refusal.
    pub(super) fn note(&self, refused: &RefusalNote<'_>) {
        // Without the port: it is new with every connection, and would make every refusal different.
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

    /// Takes the refusals that are to be written now. If they exceed the limit of the day, only their number is
    /// left.
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

    /// Puts back refusals that could not be written, so that the next call of [`Refusals::take`] returns them.
    pub(super) fn put_back(&self, counted: Counted) {
        let mut ledger = self.lock();
        // Their rows were not written, so they do not count against the day's limit.
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

    /// The audit events for these refusals, in a stable order. A gap comes last.
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
    fn equal_refusals_become_one_event_with_a_count() {
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
    fn refusals_over_the_limit_become_a_gap_and_leave_room_for_other_sorts() {
        let refusals = Refusals::default();
        flood(&refusals, Sort::Unknown, MAX_KINDS + 3);
        refusals.note(&refused(Sort::Client, "order", ""));
        refusals.note(&refused(Sort::Act, "operator", ""));
        let events = refusals.take(NOW).to_events(NOW);
        assert_eq!(events.len(), MAX_KINDS + 3);
        assert!(events.iter().any(|event| event.actor == "order"));
        assert!(events.iter().any(|event| event.actor == "operator"));
        assert_eq!(
            events.last().map(|gap| (gap.action.as_str(), gap.count)),
            Some(("audit.gap", 3))
        );
    }

    #[test]
    fn refusals_that_were_put_back_are_taken_again() {
        let refusals = Refusals::default();
        flood(&refusals, Sort::Unknown, MAX_KINDS + 3);
        let counted = refusals.take(NOW);
        refusals.put_back(counted);
        let again: u64 = refusals.take(NOW).to_events(NOW).iter().map(|event| event.count).sum();
        assert_eq!(again, MAX_KINDS as u64 + 3, "none is lost");
    }

    #[test]
    fn past_the_limit_of_a_day_only_the_number_of_refusals_is_written() {
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
