//! The verifiers on the trust stream: who is connected, which epoch each holds, and who lags behind.
//!
//! The life of a verifier here:
//!
//! ```text
//!            ┌── leave or drop ──▶ gone, waited for: RECONNECT_WINDOW ──┐
//! seat ──▶ connected                                                    ├──▶ forgotten
//!            └── let_go ─────────▶ gone, lagging: listed for LISTED ────┘
//! ```
//!
//! While it is connected it acknowledges epochs. A verifier that reconnects gets a new id. By its client and
//! its name it is matched to the stream that it lost, and that one is then forgotten at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_mesh::claims::{ClientId, Clock, Kid, SteadyClock, Timestamp};
use metrics::{counter, gauge};

use crate::ring::{
    ACK_DEADLINE, Blocked, KeyRing, Listeners, RECONNECT_WINDOW, RotationGate, StreamVerifier,
};

/// How long a verifier that was disconnected for lagging is listed, unless it comes back.
const LISTED: Duration = Duration::from_secs(10 * 60);

/// How many disconnected verifiers are remembered at most.
const MAX_GONE: usize = 1024;

/// How long rotations wait for a client whose streams come and go without acknowledging anything: as long as
/// one verifier may take to acknowledge and to reconnect. So a client that does this on purpose delays a
/// rotation no longer than that.
const PATIENCE: Duration = Duration::from_secs(ACK_DEADLINE.as_secs() + RECONNECT_WINDOW.as_secs());

/// How many verifiers an answer to an operator names. The rest are only counted.
const MAX_NAMED: usize = 1000;

/// How many an error names. It is short because it has to fit into the headers of a response.
const MAX_BRIEF: usize = 5;

/// All verifiers on the trust stream, and the gate of rotations. Both are under one lock, so that a check sees
/// them at the same moment.
pub struct Verifiers {
    registry: Mutex<Registry>,
    /// Measures how long verifiers are waited for. Setting the system clock does not affect it.
    clock: SteadyClock,
}

struct Registry {
    gate: RotationGate,
    epoch: u64,
    last_id: u64,
    connected: BTreeMap<u64, Verifier>,
    /// Oldest first.
    gone: VecDeque<Gone>,
    /// The number of streams of each client. A stream counts until its [`Seat`] is dropped, even if it has
    /// ended before.
    streams: BTreeMap<ClientId, usize>,
    /// Clients of which a stream recently ended without having acknowledged anything.
    silent: BTreeMap<ClientId, Silence>,
}

/// When the first and the last of a client's silent streams ended.
struct Silence {
    since: Timestamp,
    last: Timestamp,
}

/// A verifier: a client and one stream of it. The name is only a label that the client chose.
struct Verifier {
    client: ClientId,
    name: String,
    acked: u64,
    /// Whether this verifier was already matched to an earlier stream that was lost.
    is_back: bool,
}

/// A verifier that is not connected any more.
struct Gone {
    id: u64,
    /// The highest id given out when it left. Only a verifier with a higher id can be this one, reconnected.
    newest: u64,
    verifier: Verifier,
    at: Timestamp,
    /// Whether it was disconnected for not acknowledging in time.
    lagging: bool,
}

/// Why a rotation does not go ahead, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Who is behind, and by how much. Pollers of the JWKS have no names, so they share one entry.
    pub who: Vec<String>,
    /// How long to wait before the rotation is worth another try.
    pub retry_in: Duration,
}

/// The client already has the maximum number of streams; the field is that maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyStreams(pub usize);

/// A verifier's seat. It counts against its client's maximum until it is dropped.
pub struct Seat {
    verifiers: Arc<Verifiers>,
    id: u64,
    client: ClientId,
}

impl Behind {
    /// Names the first few, and counts the rest.
    pub fn brief(&self) -> String {
        brief(&self.who)
    }
}

/// Joins the first few names, and counts the rest.
pub(super) fn brief(who: &[String]) -> String {
    let (named, others) = who.split_at(who.len().min(MAX_BRIEF));
    match others.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

impl Verifiers {
    pub(super) fn new(ring: &KeyRing, epoch: u64, listeners: Listeners, clock: &Clock) -> Self {
        let clock = clock.steady();
        let registry = Registry {
            gate: RotationGate::new(ring, epoch, listeners, clock.now()),
            epoch,
            last_id: 0,
            connected: BTreeMap::new(),
            gone: VecDeque::new(),
            streams: BTreeMap::new(),
            silent: BTreeMap::new(),
        };
        Self { registry: Mutex::new(registry), clock }
    }

    /// Notes that a ring is about to be published with this epoch.
    pub(super) fn publish(&self, ring: &KeyRing, epoch: u64) {
        let mut registry = self.lock();
        registry.epoch = epoch;
        registry.gate.publish(ring, epoch);
        registry.measure();
    }

    /// Notes that the key set of this epoch is about to be served to a poller.
    pub(super) fn polled(&self, epoch: u64) {
        let now = self.clock.now();
        self.lock().gate.polled(epoch, now);
    }

    /// Gives a verifier its seat. From now on rotations wait for it.
    pub(super) fn seat(
        self: &Arc<Self>,
        client: &ClientId,
        name: &str,
        most: usize,
    ) -> Result<Seat, TooManyStreams> {
        let mut registry = self.lock();
        let streams = registry.streams.entry(client.clone()).or_default();
        if *streams >= most {
            return Err(TooManyStreams(most));
        }
        *streams += 1;
        registry.last_id += 1;
        let id = registry.last_id;
        let verifier =
            Verifier { client: client.clone(), name: name.to_owned(), acked: 0, is_back: false };
        registry.connected.insert(id, verifier);
        registry.measure();
        Ok(Seat { verifiers: Arc::clone(self), id, client: client.clone() })
    }

    /// Checks whether the next key of this ring may sign: see [`RotationGate::check`].
    pub(super) fn check(&self, ring: &KeyRing, listeners: Listeners) -> Result<(), Behind> {
        let now = self.clock.now();
        let mut registry = self.lock();
        registry.forget(now);
        let verifiers = registry.listening(now);
        let checked = registry.gate.check(ring, listeners, &verifiers, now);
        checked.map_err(|blocked| registry.name(&blocked))
    }

    /// The verifiers that rotations no longer wait for: those that were disconnected for not acknowledging and
    /// have not come back, and those that never acknowledge anything.
    pub(super) fn lagging(&self) -> Vec<String> {
        let now = self.clock.now();
        let mut registry = self.lock();
        registry.forget(now);
        let lagging = registry.gone.iter().filter(|gone| gone.lagging);
        let lagging = lagging.map(|gone| format!("{} (let go)", gone.verifier.label()));
        let silent = registry.connected.values().filter(|one| registry.is_silent(one, now));
        let silent = silent.map(|one| format!("{} (acknowledges nothing)", one.label()));
        lagging.chain(silent).take(MAX_NAMED).collect()
    }

    /// How many verifiers are connected.
    pub fn connected(&self) -> usize {
        self.lock().connected.len()
    }

    /// How many connected verifiers hold this key.
    pub fn holding(&self, kid: &Kid) -> usize {
        let registry = self.lock();
        let acked = registry.connected.values().map(|verifier| verifier.acked);
        acked.filter(|acked| registry.gate.is_held(kid, *acked)).count()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// The verifiers that a rotation waits for: those connected, and those that lost their stream recently.
    ///
    /// It does not wait for a verifier that was disconnected for not acknowledging, nor for the silent streams
    /// of a client that keeps opening them.
    fn listening(&self, now: Timestamp) -> Vec<StreamVerifier> {
        let connected = self.connected.iter().map(|(id, verifier)| (*id, verifier, None));
        let gone = self.gone.iter().filter(|gone| !gone.lagging);
        let gone = gone.map(|gone| (gone.id, &gone.verifier, Some(gone.at)));
        connected
            .chain(gone)
            .filter(|(_, verifier, _)| !self.is_silent(verifier, now))
            .map(|(id, verifier, left_at)| StreamVerifier { id, acked: verifier.acked, left_at })
            .collect()
    }

    /// Whether this verifier has acknowledged nothing, and other streams of its client have come and gone in
    /// the same way for longer than [`PATIENCE`].
    fn is_silent(&self, verifier: &Verifier, now: Timestamp) -> bool {
        let silence = self.silent.get(&verifier.client);
        verifier.acked == 0 && silence.is_some_and(|it| now.since(it.since) > PATIENCE)
    }

    /// Puts what the gate found into words for people.
    fn name(&self, blocked: &Blocked) -> Behind {
        let verifier = |id: u64| {
            let gone = || self.gone.iter().find(|gone| gone.id == id).map(|gone| &gone.verifier);
            self.connected.get(&id).or_else(gone)
        };
        let mut who = Vec::new();
        who.extend(blocked.reconnecting.map(|left| {
            let left = left.as_secs();
            format!("verifiers that may not be back yet since the start ({left} s left)")
        }));
        who.extend(blocked.polling.map(|left| {
            format!("whoever polls the JWKS and may hold an old one ({} s left)", left.as_secs())
        }));
        who.extend(blocked.behind.iter().take(MAX_NAMED).filter_map(|one| {
            let label = verifier(one.id)?.label();
            let lag = match (one.acked, one.needed) {
                (0, _) => "has nothing yet".to_owned(),
                (_, None) => "has not been sent the next key yet".to_owned(),
                (acked, Some(needed)) => format!("{} epochs behind", needed.saturating_sub(acked)),
            };
            let left = one
                .waited_for
                .map(|left| format!("; lost its stream, has {} s to be back", left.as_secs()));
            Some(format!("{label} ({lag}{})", left.unwrap_or_default()))
        }));
        if blocked.behind.len() > MAX_NAMED {
            who.push(format!("{} more verifiers", blocked.behind.len() - MAX_NAMED));
        }
        Behind { who, retry_in: blocked.retry_in() }
    }

    /// Forgets what is too old to matter.
    fn forget(&mut self, now: Timestamp) {
        self.gone.retain(|gone| {
            let remembered = if gone.lagging { LISTED } else { RECONNECT_WINDOW };
            now.since(gone.at) <= remembered
        });
        self.silent.retain(|_, silence| now.since(silence.last) <= PATIENCE);
    }

    /// Moves a verifier from the connected ones to those that are gone. Without effect if it has already been
    /// moved, so a stream that was let go can still call `leave`.
    fn part(&mut self, id: u64, now: Timestamp, lagging: bool) {
        let Some(verifier) = self.connected.remove(&id) else { return };
        self.forget(now);
        if verifier.acked == 0 {
            let first = Silence { since: now, last: now };
            self.silent.entry(verifier.client.clone()).or_insert(first).last = now;
        }
        if self.gone.len() == MAX_GONE {
            // The oldest one of the same client goes first. So a client pushes out at most one of the others',
            // namely when it has none here itself.
            let own = self.gone.iter().position(|gone| gone.verifier.client == verifier.client);
            self.gone.remove(own.unwrap_or_default());
        }
        self.gone.push_back(Gone { id, newest: self.last_id, verifier, at: now, lagging });
        self.measure();
    }

    /// Forgets the lost stream of a verifier that is back, once it has acknowledged as much on its new one.
    ///
    /// It is recognised by client and name; a verifier without a name cannot be. Several verifiers may have the
    /// same name, so each one that comes back stands for only one stream that rotations wait for. Lagging ones
    /// delay nobody, so all of that name are forgotten.
    fn welcome(&mut self, id: u64) {
        let Some(back) = self.connected.get_mut(&id).filter(|back| !back.name.is_empty()) else {
            return;
        };
        self.gone.retain(|gone| {
            let is_it = gone.newest < id
                && gone.verifier.client == back.client
                && gone.verifier.name == back.name
                && gone.verifier.acked <= back.acked
                && (gone.lagging || !back.is_back);
            back.is_back |= is_it && !gone.lagging;
            !is_it
        });
    }

    /// Updates the metrics.
    fn measure(&self) {
        let behind = self.connected.values().filter(|one| one.acked < self.epoch).count();
        gauge!("countersign_verifiers_connected").set(self.connected.len() as f64);
        gauge!("countersign_verifiers_behind").set(behind as f64);
    }
}

impl Verifier {
    fn label(&self) -> String {
        match self.name.as_str() {
            "" => self.client.to_string(),
            name => format!("{}/{name}", self.client),
        }
    }
}

impl Seat {
    /// Notes that the verifier has installed this epoch.
    pub fn acknowledge(&self, epoch: u64) {
        let mut registry = self.verifiers.lock();
        let Some(verifier) = registry.connected.get_mut(&self.id) else { return };
        verifier.acked = verifier.acked.max(epoch);
        registry.welcome(self.id);
        registry.measure();
    }

    /// Notes that the verifier is disconnected for not acknowledging in time. Rotations no longer wait for it.
    pub fn let_go(&self) {
        let now = self.verifiers.clock.now();
        let mut registry = self.verifiers.lock();
        if let Some(verifier) = registry.connected.get(&self.id) {
            let verifier = verifier.label();
            tracing::warn!(verifier, "a verifier was let go: it did not acknowledge in time");
            counter!("countersign_verifiers_lagging_total").increment(1);
        }
        registry.part(self.id, now, true);
    }

    /// Notes that the stream has ended. Rotations wait [`RECONNECT_WINDOW`] for the verifier to come back.
    pub fn leave(&self) {
        let now = self.verifiers.clock.now();
        self.verifiers.lock().part(self.id, now, false);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Before the lock is taken here: `leave` takes it too.
        self.leave();
        let mut registry = self.verifiers.lock();
        if let Some(streams) = registry.streams.get_mut(&self.client) {
            *streams -= 1;
            if *streams == 0 {
                registry.streams.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_mesh::keys::SigningKey;

    use super::*;

    #[test]
    fn an_error_names_five_verifiers_and_counts_the_rest() {
        let who = |count: usize| (1..=count).map(|n| format!("v{n}")).collect::<Vec<_>>();
        assert_eq!(brief(&who(5)), "v1, v2, v3, v4, v5");
        assert_eq!(brief(&who(7)), "v1, v2, v3, v4, v5 and 2 more");
        assert_eq!(brief(&[]), "");
    }

    struct Rig {
        clock: Clock,
        ring: KeyRing,
        verifiers: Arc<Verifiers>,
    }

    impl Rig {
        fn new() -> Self {
            let clock = Clock::fixed(Timestamp::from_unix(1_800_000_000));
            let key = |seed| SigningKey::from_seed(&[seed; 32]);
            let ring = KeyRing::new(key(1), key(2), clock.now());
            let verifiers = Verifiers::new(&ring, 5, Listeners::default(), &clock);
            Self { clock, ring, verifiers: Arc::new(verifiers) }
        }

        fn seat(&self, client: &str, name: &str) -> Seat {
            let client = client.parse().expect("a client id");
            self.verifiers.seat(&client, name, 2000).expect("there is room")
        }

        fn blocked(&self) -> Option<String> {
            let listeners = Listeners { streamed: true, polled: false };
            self.verifiers.check(&self.ring, listeners).err().map(|behind| behind.brief())
        }

        fn pass(&self, seconds: u64) {
            self.clock.set(self.clock.now() + Duration::from_secs(seconds));
        }
    }

    #[test]
    fn a_verifier_that_is_back_stands_for_only_one_lost_stream_of_its_name() {
        let rig = Rig::new();
        let (lost, other) = (rig.seat("inventory", "pod"), rig.seat("inventory", "pod"));
        other.acknowledge(5);
        drop(lost);
        other.acknowledge(6);
        assert!(rig.blocked().is_some(), "a stream from before the loss is another verifier");

        drop(rig.seat("inventory", "pod"));
        let back = rig.seat("inventory", "pod");
        back.acknowledge(6);
        back.acknowledge(7);
        assert!(rig.blocked().is_some(), "two were lost, and one is back");
        rig.seat("inventory", "pod").acknowledge(6);
        assert_eq!(rig.blocked(), None);
    }

    #[test]
    fn a_client_whose_streams_acknowledge_nothing_delays_rotations_for_a_minute_only() {
        let rig = Rig::new();
        let honest = rig.seat("billing", "pod");
        honest.acknowledge(5);
        for n in 0..4 {
            let seat = rig.seat("inventory", &format!("pod-{n}"));
            assert!(rig.blocked().is_some(), "{n}");
            rig.pass(20);
            drop(seat);
        }
        let seat = rig.seat("inventory", "pod-9");
        rig.pass(1);
        assert_eq!(rig.blocked(), None);
        assert_eq!(rig.verifiers.lagging(), ["inventory/pod-9 (acknowledges nothing)"]);
        // A stream that acknowledges anything is waited for, and so are all others.
        seat.acknowledge(4);
        assert!(rig.blocked().is_some());
        seat.acknowledge(5);
        let _late = rig.seat("billing", "late");
        assert!(rig.blocked().is_some_and(|who| who.contains("billing/late")));
    }

    #[test]
    fn no_client_can_push_the_lost_verifiers_of_others_out() {
        let rig = Rig::new();
        drop(rig.seat("billing", "pod"));
        for _ in 0..MAX_GONE + 1 {
            drop(rig.seat("inventory", ""));
        }
        rig.verifiers.lock().gone.retain(|gone| gone.verifier.client.as_str() == "billing");
        assert!(rig.blocked().is_some_and(|who| who.contains("billing/pod")));
    }
}
