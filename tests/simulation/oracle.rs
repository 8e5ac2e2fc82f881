//! Checks everything that happens against what Countersign promises.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::authority::Authority;
use countersign::ring::KeyState;
use countersign_mesh::claims::{DEFAULT_LEEWAY, Timestamp};
use countersign_mesh::guard::{Refusal, WhenStale};
use countersign_mesh::session::{FedBy, Health};

/// How old what a verifier holds may become: the least that can be configured.
pub const MAX_STALENESS: Duration = Duration::from_secs(120);

/// How far a host's clock may be off.
pub const MAX_SKEW: u64 = 5;

/// How long a link and the issuer must have been well before a verifier counts as connected: silence is
/// noticed after 15 seconds, the longest wait for another try is 15, and opening may take 20.
const SETTLED: Duration = Duration::from_secs(60);

/// How long a message may be held up. A request without an answer may still be carried out until then.
const LONGEST_DELAY: Duration = Duration::from_secs(180);

/// The bound for a connected verifier: one second, and what messages take on this network.
const CONNECTED_BOUND: Duration = Duration::from_millis(2000);

/// Clocks tell whole seconds, and staleness is counted from a time that one of them told.
const ROUNDING: Duration = Duration::from_secs(2);

/// Everything that happened, and what of it was wrong. All hosts share one oracle.
#[derive(Clone, Default)]
pub struct Oracle(Arc<Mutex<Known>>);

#[derive(Default)]
pub struct Known {
    tokens: HashMap<String, Token>,
    keys: BTreeMap<String, Revoked>,
    /// Keys that sign because another was revoked. Verifiers need not hold these beforehand.
    promoted: BTreeSet<String>,
    /// Revocations of all tokens that a client had so far.
    cuts: Vec<(&'static str, Revoked)>,
    verifiers: BTreeMap<&'static str, Verifier>,
    issuer_up_since: Option<Duration>,
    truth: Weak<Authority>,
    start: u64,
    trace: Vec<String>,
    pub violations: Vec<String>,
    pub counts: Counts,
}

/// How often each thing happened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Counts {
    pub accepted: u64,
    pub refused_revoked: u64,
    pub refused_stale: u64,
    pub refused_unknown: u64,
    pub rotations: u64,
    pub rotations_blocked: u64,
    pub revocations: u64,
    pub faults: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.refused_revoked += other.refused_revoked;
        self.refused_stale += other.refused_stale;
        self.refused_unknown += other.refused_unknown;
        self.rotations += other.rotations;
        self.rotations_blocked += other.rotations_blocked;
        self.revocations += other.revocations;
        self.faults += other.faults;
    }
}

/// A token that was issued.
struct Token {
    /// Its number among its client's tokens.
    number: usize,
    client: &'static str,
    kid: String,
    got_at: Duration,
    expires_at: u64,
    revoked: Revoked,
}

/// When a revocation was asked for, and when it was acknowledged. Between the two, or when no answer
/// came, either decision of a guard is right.
#[derive(Default, Clone, Copy)]
struct Revoked {
    asked_at: Option<Duration>,
    done_at: Option<Duration>,
}

struct Verifier {
    when_stale: WhenStale,
    /// `None` while something is wrong with the link.
    link_well_since: Option<Duration>,
    epoch: u64,
}

/// What is revoked.
#[derive(Clone)]
pub enum Target {
    Token(String),
    Client(&'static str),
    Key(String),
}

impl Oracle {
    pub fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().expect("no thread panicked with the lock")
    }
}

/// The simulated time, on whichever host.
pub fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

impl Known {
    pub fn begin(&mut self, start: Timestamp, verifiers: &[(&'static str, WhenStale)]) {
        self.start = start.as_unix();
        for &(name, when_stale) in verifiers {
            let verifier = Verifier { when_stale, link_well_since: Some(Duration::ZERO), epoch: 0 };
            self.verifiers.insert(name, verifier);
        }
    }

    /// What happened, in order of time. What happened at the same time is sorted by its text: the order
    /// in which tokio wakes tasks does not follow from the seed, and nothing may depend on it.
    pub fn sorted_trace(&mut self) -> Vec<String> {
        let mut trace = std::mem::take(&mut self.trace);
        trace.sort();
        trace
    }

    pub fn note(&mut self, at: Duration, what: impl fmt::Display) {
        self.trace.push(format!("{:8.3} {what}", at.as_secs_f64()));
    }

    fn violation(&mut self, at: Duration, what: impl fmt::Display) {
        self.note(at, format_args!("VIOLATION: {what}"));
        self.violations.push(what.to_string());
    }

    /// Notes that the issuer is up, and where its true state can be read.
    pub fn issuer_is_up(&mut self, at: Duration, authority: Weak<Authority>) {
        self.truth = authority;
        self.issuer_up_since = Some(at);
        self.note(at, "issuer is up");
    }

    pub fn issuer_is_down(&mut self, at: Duration) {
        self.issuer_up_since = None;
        self.note(at, "issuer has crashed");
    }

    /// Notes since when the link between a verifier and the issuer is well; `None` if it is not.
    pub fn link(&mut self, verifier: &str, well_since: Option<Duration>) {
        if let Some(verifier) = self.verifiers.get_mut(verifier) {
            verifier.link_well_since = well_since;
        }
    }

    pub fn issued(
        &mut self,
        client: &'static str,
        token: &str,
        asked_at: Duration,
        expires_at: u64,
    ) {
        let number = self.tokens.values().filter(|token| token.client == client).count();
        let got_at = now();
        // If a revocation of all the client's tokens was under way, the token may be on either side of
        // the cut.
        let cut = self.cuts.iter().find(|(whose, cut)| {
            let over = cut.done_at.or(cut.asked_at.map(|at| at + LONGEST_DELAY));
            *whose == client && over.is_some_and(|over| asked_at <= over)
        });
        let asked_at = cut.and_then(|(_, cut)| cut.asked_at);
        let revoked = Revoked { asked_at, done_at: None };
        let kid = kid_of(token);
        let issued = Token { number, client, kid, got_at, expires_at, revoked };
        self.tokens.insert(token.to_owned(), issued);
        self.note(now(), format_args!("{client} got {client}-{number}"));
    }

    /// What a token is called in the trace.
    pub fn name_of(&self, token: &str) -> String {
        let Token { client, number, .. } = &self.tokens[token];
        format!("{client}-{number}")
    }

    /// A key of the ring as it is now.
    pub fn key(&self, state: KeyState) -> Option<String> {
        let keys = self.truth.upgrade()?.keys();
        keys.iter().find(|key| key.state == state).map(|key| key.kid.to_string())
    }

    /// The epoch as it is now.
    pub fn true_epoch(&self) -> Option<u64> {
        Some(self.truth.upgrade()?.bundle().epoch)
    }

    pub fn revocation_asked(&mut self, target: &Target) {
        let at = now();
        if matches!(target, Target::Key(_)) {
            self.promoted.extend(self.key(KeyState::Next));
        }
        if let Target::Client(client) = target {
            self.cuts.push((client, Revoked { asked_at: Some(at), done_at: None }));
        }
        self.each(target, at, |revoked| {
            revoked.asked_at.get_or_insert(at);
        });
    }

    /// `asked_at` is when it was asked for: tokens that a client got later need not be revoked.
    pub fn revocation_done(&mut self, target: &Target, asked_at: Duration) {
        let at = now();
        self.counts.revocations += 1;
        if matches!(target, Target::Key(_)) {
            self.promoted.extend(self.key(KeyState::Active));
            self.promoted.extend(self.key(KeyState::Next));
        }
        self.each(target, asked_at, |revoked| {
            revoked.done_at.get_or_insert(at);
        });
        if let Target::Client(_) = target {
            if let Some((_, cut)) = self.cuts.last_mut() {
                cut.done_at = Some(at);
            }
            // Tokens that the client got meanwhile may be on either side of the cut.
            self.each(target, at, |revoked| {
                revoked.asked_at.get_or_insert(asked_at);
            });
        }
    }

    fn each(&mut self, target: &Target, until: Duration, mut mark: impl FnMut(&mut Revoked)) {
        match target {
            Target::Token(token) => {
                if let Some(token) = self.tokens.get_mut(token) {
                    mark(&mut token.revoked);
                }
            }
            Target::Client(client) => self
                .tokens
                .values_mut()
                .filter(|token| token.client == *client && token.got_at <= until)
                .for_each(|token| mark(&mut token.revoked)),
            Target::Key(kid) => mark(self.keys.entry(kid.clone()).or_default()),
        }
    }

    /// Looks at what a verifier has. Its epoch must never go backwards.
    pub fn look(&mut self, name: &'static str, health: &Health) {
        let verifier = self.verifiers.get_mut(name).expect("a known verifier");
        let (before, epoch) = (verifier.epoch, health.epoch.unwrap_or_default());
        verifier.epoch = epoch;
        if epoch < before {
            self.violation(now(), format_args!("{name} went from epoch {before} to {epoch}"));
        } else if epoch > before {
            self.note(now(), format_args!("{name} has epoch {epoch}"));
        }
    }

    /// Whether a verifier has certainly been connected at that time and ever since.
    fn connected_since(&self, name: &str, since: Duration) -> bool {
        let link = self.verifiers[name].link_well_since;
        let well = |since_when: Option<Duration>| {
            since_when.is_some_and(|since_when| since_when + SETTLED <= since)
        };
        well(link) && well(self.issuer_up_since)
    }

    /// Judges the decision of a guard on a call with a token.
    pub fn decided(
        &mut self,
        name: &'static str,
        token: &str,
        refusal: Option<&Refusal>,
        health: &Health,
    ) {
        let at = now();
        let Some(known) = self.tokens.get(token) else {
            return self.violation(at, format_args!("{name} was called with a token of nobody"));
        };
        let called = self.name_of(token);
        let key = self.keys.get(&known.kid).copied().unwrap_or_default();
        let clock = self.start + at.as_secs();
        let wrong = match refusal {
            None => {
                self.counts.accepted += 1;
                self.wrongly_accepted(name, known.revoked, key, known.expires_at, at, clock)
            }
            Some(refusal) => self.wrongly_refused(name, known, key, refusal, health, at, clock),
        };
        match refusal {
            Some(Refusal::TokenRevoked) => self.counts.refused_revoked += 1,
            Some(Refusal::TrustStale) => self.counts.refused_stale += 1,
            Some(Refusal::KeyUnknown) => self.counts.refused_unknown += 1,
            _ => {}
        }
        let what = refusal.map_or("accepts", Refusal::reason);
        self.note(at, format_args!("{name} {what}: {called}"));
        if let Some(why) = wrong {
            self.violation(at, format_args!("{name} {what}: {called}, {why}"));
        }
    }

    fn wrongly_accepted(
        &self,
        name: &str,
        token: Revoked,
        key: Revoked,
        expires_at: u64,
        at: Duration,
        clock: u64,
    ) -> Option<&'static str> {
        if clock > expires_at + DEFAULT_LEEWAY.as_secs() + MAX_SKEW + 1 {
            return Some("which has expired");
        }
        let revoked_at = [token.done_at, key.done_at].into_iter().flatten().min()?;
        if self.connected_since(name, revoked_at) && at > revoked_at + CONNECTED_BOUND {
            return Some("revoked for longer than a connected verifier may take");
        }
        let fails_closed = self.verifiers[name].when_stale == WhenStale::FailClosed;
        if fails_closed && at > revoked_at + MAX_STALENESS + ROUNDING {
            return Some("revoked for longer than one that fails closed may take");
        }
        None
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of one decision")]
    fn wrongly_refused(
        &self,
        name: &str,
        token: &Token,
        key: Revoked,
        refusal: &Refusal,
        health: &Health,
        at: Duration,
        clock: u64,
    ) -> Option<&'static str> {
        let settled = self.connected_since(name, at);
        match refusal {
            Refusal::TokenRevoked => {
                let asked = token.revoked.asked_at.is_some() || key.asked_at.is_some();
                (!asked).then_some("which nobody has revoked")
            }
            Refusal::TokenExpired => (clock < token.expires_at).then_some("which has not expired"),
            Refusal::KeyUnknown => {
                let planned = !self.promoted.contains(&token.kid) && key.asked_at.is_none();
                (planned && (settled || health.fed_by == FedBy::Stream))
                    .then_some("whose key a rotation brought in while the verifier was connected")
            }
            Refusal::TrustUnavailable => settled.then_some("although it is connected"),
            Refusal::TrustStale if settled => Some("although it is connected"),
            Refusal::TrustStale if self.verifiers[name].when_stale == WhenStale::ServeStale => {
                Some("although it serves stale")
            }
            Refusal::TrustStale => None,
            _ => Some("which is a good one"),
        }
    }

    /// Everything has been well for long enough: every verifier must hold the issuer's epoch.
    pub fn check_converged(&mut self, at: Duration) {
        let truth = self.true_epoch();
        let behind: Vec<_> = self
            .verifiers
            .iter()
            .filter(|(_, verifier)| Some(verifier.epoch) != truth)
            .map(|(name, verifier)| format!("{name} at {}", verifier.epoch))
            .collect();
        if truth.is_none() || !behind.is_empty() {
            self.violation(at, format_args!("the issuer is at {truth:?}, but {behind:?}"));
        }
    }

    pub fn must(&mut self, at: Duration, holds: bool, what: &str) {
        if !holds {
            self.violation(at, what);
        }
    }
}

fn kid_of(token: &str) -> String {
    let header = token.split('.').next().expect("a token has a header");
    let header = URL_SAFE_NO_PAD.decode(header).expect("it is base64url");
    let header: serde_json::Value = serde_json::from_slice(&header).expect("it is JSON");
    header["kid"].as_str().expect("it names its key").to_owned()
}
