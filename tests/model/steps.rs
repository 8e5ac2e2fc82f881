//! What can happen next, and what comes of it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign::ring::{
    ACK_DEADLINE, Blocked, JWKS_GONE, JWKS_MAX_AGE, RECONNECT_WINDOW, RotationGate, StreamVerifier,
};
use countersign_mesh::claims::{Claims, ScopeSet, Timestamp, TokenId};
use countersign_mesh::keys::KeySet;
use countersign_mesh::token::{Audiences, Minter};
use countersign_mesh::trust::{Revocations, TokenRevocation, TrustBundle, VerifiedToken};

use crate::world::{
    Budget, Committed, Issued, Kind, LEASE, LEEWAY, Link, Message, TAIL, TICK, TOKEN_LIFE, World,
    issuer, key,
};

/// How the service is built. All variants but the first are broken, each in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// As it is.
    Sound,
    /// Rotations do not ask the gate.
    NoGate,
    /// Rotations wait for pollers only as long as these may keep a key set, without the margin.
    PrePublishOneInterval,
    /// A retired key is dropped before its last token has expired.
    KeyDroppedEarly,
    /// A change is published before it is durable.
    PublishBeforePersist,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Time goes on.
    Tick,
    /// A replica signs a token.
    Issue(usize),
    /// An operator rotates, and the gate lets it.
    Rotate,
    /// An operator revokes the key that signs.
    RevokeActiveKey,
    /// An operator revokes a token.
    RevokeToken(usize),
    /// Keys that have expired are dropped.
    Maintain,
    /// What was published too early becomes durable.
    Persist,
    /// A replica reads the store, and shows what it has read.
    Publish(usize),
    /// A replica crashes, and loses everything but the store.
    Crash(usize),
    /// A replica starts.
    Start(usize),
    /// A verifier opens a stream to a replica, or asks it for its key set.
    Connect(usize, usize),
    /// The next message to a verifier arrives.
    Deliver(usize),
    /// An acknowledgement arrives.
    DeliverAck(usize),
    /// The network loses a connection with all that was under way on it.
    Break(usize),
}

pub struct Protocol {
    pub variant: Variant,
    pub kinds: Vec<Kind>,
    pub replicas: usize,
    pub budget: Budget,
    tokens: Mutex<HashMap<(String, u64, usize), Arc<VerifiedToken>>>,
}

impl Protocol {
    pub fn new(variant: Variant, kinds: &[Kind], replicas: usize, budget: Budget) -> Self {
        Self { variant, kinds: kinds.to_vec(), replicas, budget, tokens: Mutex::default() }
    }

    /// All steps that may be possible now; [`Protocol::after`] decides whether they are.
    pub fn steps(&self, world: &World) -> Vec<Step> {
        let left = &world.left;
        let mut steps = Vec::with_capacity(16);
        let mut may = |step: Step, possible: bool| {
            if possible {
                steps.push(step);
            }
        };
        may(Step::Tick, left.ticks > 0);
        may(Step::Rotate, left.rotations > 0);
        may(Step::RevokeActiveKey, left.key_revocations > 0);
        may(Step::Maintain, !world.store.ring.retired().is_empty());
        may(Step::Persist, world.unwritten.is_some());
        for (number, replica) in (0..).zip(&world.replicas) {
            let up = replica.up_since.is_some();
            may(Step::Issue(number), up && left.tokens > 0);
            may(Step::Publish(number), up);
            may(Step::Crash(number), up && left.crashes > 0);
            may(Step::Start(number), !up);
        }
        for token in 0..world.tokens.len() {
            may(Step::RevokeToken(token), left.token_revocations > 0);
        }
        for (number, verifier) in (0..).zip(&world.verifiers) {
            let link = verifier.link.as_ref();
            for replica in 0..world.replicas.len() {
                may(Step::Connect(number, replica), link.is_none());
            }
            may(Step::Deliver(number), link.is_some_and(|link| !link.down.is_empty()));
            may(Step::DeliverAck(number), link.is_some_and(|link| !link.up.is_empty()));
            may(Step::Break(number), link.is_some() && left.breaks > 0);
        }
        steps
    }

    /// The world after a step; `None` when the step cannot happen.
    pub fn after(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        match step {
            Step::Tick => next.tick()?,
            Step::Issue(replica) => self.issue(&mut next, replica)?,
            Step::Rotate => self.rotate(&mut next)?,
            Step::RevokeActiveKey => self.revoke_active_key(&mut next)?,
            Step::RevokeToken(token) => self.revoke_token(&mut next, token)?,
            Step::Maintain => self.maintain(&mut next)?,
            Step::Persist => next.store = next.unwritten.take()?,
            Step::Publish(replica) => next.publish(replica)?,
            Step::Crash(replica) => next.crash(replica)?,
            Step::Start(replica) => next.start(replica)?,
            Step::Connect(verifier, replica) => next.connect(verifier, replica)?,
            Step::Deliver(verifier) => next.deliver(verifier)?,
            Step::DeliverAck(verifier) => next.deliver_ack(verifier)?,
            Step::Break(verifier) => next.break_link(verifier)?,
        }
        Some(next)
    }

    /// Whether the gate lets `next` sign.
    pub fn check_gate(&self, world: &World) -> Result<(), Blocked> {
        let Some(gate) = &world.gate else { return Err(Blocked::default()) };
        let store = &world.store;
        let checked = gate.check(&store.ring, store.listeners, &world.streams(), world.now);
        match (self.variant, checked) {
            (Variant::NoGate, _) => Ok(()),
            (Variant::PrePublishOneInterval, Err(blocked)) => {
                // As if the window for pollers were as long as they may keep a key set.
                let early = JWKS_GONE - JWKS_MAX_AGE + Duration::from_secs(1);
                let polling = blocked.polling.filter(|left| *left > early);
                let blocked = Blocked { polling, ..blocked };
                if blocked == Blocked::default() { Ok(()) } else { Err(blocked) }
            }
            (_, checked) => checked,
        }
    }

    fn issue(&self, world: &mut World, from: usize) -> Option<()> {
        let replica = &world.replicas[from];
        let in_lease = world.now.since(replica.reached_at) <= LEASE;
        if replica.up_since.is_none() || !in_lease || world.left.tokens == 0 {
            return None;
        }
        world.left.tokens -= 1;
        let (ring, epoch) = (&replica.held.ring, replica.held.epoch);
        let kid = ring.active().key.kid().clone();
        let number = world.tokens.len();
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let token = tokens
            .entry((kid.to_string(), world.now.as_unix(), number))
            .or_insert_with(|| Arc::new(signed(&replica.held, world.now, number)));
        let token = Arc::clone(token);
        // The key may have been revoked without the replica knowing it yet.
        let revoked = world.store.revocations.key(kid.as_str());
        world.signers.insert((epoch, kid));
        world.tokens.push(Issued { token, epoch, revoked_at: revoked.then_some(world.now) });
        Some(())
    }

    fn rotate(&self, world: &mut World) -> Option<()> {
        world.writer()?;
        world.left.rotations = world.left.rotations.checked_sub(1)?;
        self.check_gate(world).ok()?;
        let tail = match self.variant {
            Variant::KeyDroppedEarly => LEASE,
            _ => TAIL,
        };
        let fresh = world.fresh_key();
        let ring = world.store.ring.rotate(fresh, world.now, tail).ok()?;
        world.passed.insert(ring.active().key.kid().clone());
        let committed = Committed { ring, ..Committed::clone(&world.store) };
        self.commit(world, committed)
    }

    fn revoke_active_key(&self, world: &mut World) -> Option<()> {
        world.writer()?;
        world.left.key_revocations = world.left.key_revocations.checked_sub(1)?;
        let kid = world.store.ring.active().key.kid().clone();
        let fresh = world.fresh_key();
        let ring = world.store.ring.revoke(kid.as_str(), fresh, world.now, TAIL).ok()?;
        world.promoted.insert(ring.active().key.kid().clone());
        for issued in world.tokens.iter_mut().filter(|issued| *issued.token.kid() == kid) {
            issued.revoked_at = issued.revoked_at.or(Some(world.now));
        }
        let mut revocations = world.store.revocations.clone();
        revocations.set_keys(ring.revoked_kids());
        let committed = Committed { ring, revocations, ..Committed::clone(&world.store) };
        self.commit(world, committed)
    }

    fn revoke_token(&self, world: &mut World, token: usize) -> Option<()> {
        world.writer()?;
        world.left.token_revocations = world.left.token_revocations.checked_sub(1)?;
        let issued = world.tokens.get_mut(token).filter(|issued| issued.revoked_at.is_none())?;
        issued.revoked_at = Some(world.now);
        let claims = issued.token.claims();
        let mut revocations = world.store.revocations.clone();
        revocations.revoke_token(
            claims.token_id.clone(),
            TokenRevocation {
                epoch: world.store.epoch + 1,
                ..TokenRevocation::new(claims.expires_at + LEEWAY)
            },
        );
        let committed = Committed { revocations, ..Committed::clone(&world.store) };
        self.commit(world, committed)
    }

    fn maintain(&self, world: &mut World) -> Option<()> {
        world.writer()?;
        let ring = world.store.ring.expire(world.now)?;
        let mut revocations = world.store.revocations.clone();
        revocations.set_keys(ring.revoked_kids());
        let committed = Committed { ring, revocations, ..Committed::clone(&world.store) };
        self.commit(world, committed)
    }

    /// Makes a change durable, after which it can be published. A broken variant publishes first.
    fn commit(&self, world: &mut World, committed: Committed) -> Option<()> {
        let committed = Arc::new(Committed { epoch: world.store.epoch + 1, ..committed });
        if self.variant == Variant::PublishBeforePersist {
            world.show(0, &committed);
            world.unwritten = Some(committed);
        } else {
            world.store = committed;
        }
        Some(())
    }

    /// Lets everything go well from here on: every replica runs, and every message arrives. True if all
    /// verifiers then come to hold what the store holds, and a rotation goes through within some
    /// minutes.
    pub fn converges(&self, world: &World) -> bool {
        let mut world = world.clone();
        world.left = Budget { ticks: 20, rotations: 1, ..world.left };
        for _ in 0..12 {
            self.settle(&mut world);
            if self.check_gate(&world).is_ok() {
                let Some(rotated) = self.after(&world, Step::Rotate) else { return false };
                world = rotated;
                self.settle(&mut world);
                // By then every poller has asked again.
                for _ in 0..3 {
                    if world.tick().is_none() {
                        return false;
                    }
                    self.settle(&mut world);
                }
                return world.verifiers.iter().all(|one| one.epoch() == world.store.epoch);
            }
            if world.tick().is_none() {
                return false;
            }
        }
        false
    }

    fn settle(&self, world: &mut World) {
        let mut run =
            |step: Step| -> bool { self.after(world, step).map(|next| *world = next).is_some() };
        run(Step::Persist);
        for replica in 0..self.replicas {
            run(Step::Start(replica));
            run(Step::Publish(replica));
        }
        for verifier in 0..self.kinds.len() {
            // First what was under way before, then a new stream or one more poll.
            while run(Step::Deliver(verifier)) {}
            run(Step::Connect(verifier, 0));
            while run(Step::Deliver(verifier)) {}
            while run(Step::DeliverAck(verifier)) {}
        }
    }
}

fn signed(held: &Committed, now: Timestamp, number: usize) -> VerifiedToken {
    let mut bits = [0; 12];
    bits[0] = number as u8;
    let claims = Claims {
        issuer: issuer(),
        client_id: "order".parse().expect("a valid id"),
        audience: "inventory".parse().expect("a valid audience"),
        scopes: ScopeSet::parse("stock:read").expect("a valid scope"),
        issued_at: now,
        expires_at: now + TOKEN_LIFE,
        token_id: TokenId::from_random(bits),
    };
    let key = &held.ring.active().key;
    let token = Minter::new(Arc::clone(key)).mint(&claims);
    let keys: KeySet = [key.public().clone()].into_iter().collect();
    let revocations = Revocations::default();
    let bundle = TrustBundle { issuer: issuer(), epoch: 1, keys, revocations };
    let verified = bundle.verify(token.expose(), Audiences::Any, now, Duration::ZERO);
    verified.expect("it was signed right now")
}

impl World {
    fn writer(&self) -> Option<()> {
        // The writer does one thing at a time: while a change is published but not durable, it starts
        // no other.
        (self.replicas[0].up_since.is_some() && self.unwritten.is_none()).then_some(())
    }

    fn fresh_key(&mut self) -> countersign_mesh::keys::SigningKey {
        let number = self.kids.len() + 1;
        let fresh = key(u8::try_from(number).expect("a handful of keys"));
        self.kids.push(fresh.kid().clone());
        fresh
    }

    fn streams(&self) -> Vec<StreamVerifier> {
        (0..)
            .zip(&self.verifiers)
            .filter(|(_, one)| matches!(one.kind, Kind::Stream { .. }))
            .filter_map(|(id, one)| match (&one.link, one.left_at) {
                (Some(link), _) => Some(StreamVerifier { id, acked: link.acked, left_at: None }),
                (None, Some(at)) => {
                    Some(StreamVerifier { id, acked: one.epoch(), left_at: Some(at) })
                }
                (None, None) => None,
            })
            .collect()
    }

    fn tick(&mut self) -> Option<()> {
        // The writer publishes what it has committed before any time passes, unless it crashes.
        let writer = &self.replicas[0];
        let shown = writer.held.epoch == self.store.epoch && self.unwritten.is_none();
        if writer.up_since.is_some() && !shown {
            return None;
        }
        self.left.ticks = self.left.ticks.checked_sub(1)?;
        let now = self.now;
        for verifier in &mut self.verifiers {
            let late = |since: Timestamp| now.since(since) >= Duration::from_secs(TICK);
            let Some(link) = &verifier.link else { continue };
            let under_way = link.down.iter().map(|message| message.sent_at);
            if under_way.chain(link.up.iter().map(|(_, at)| *at)).any(late) {
                // A message that took longer than the deadline for acknowledgements is too late: the
                // server drops the verifier.
                verifier.link = None;
                if verifier.kind != Kind::Poller {
                    verifier.on_its_own = true;
                }
            }
        }
        self.now = now + Duration::from_secs(TICK);
        let now = self.now;
        let window = RECONNECT_WINDOW.max(ACK_DEADLINE);
        let up_since: BTreeSet<Timestamp> =
            self.replicas.iter().filter_map(|replica| replica.up_since).collect();
        for verifier in &mut self.verifiers {
            // While no replica is up nobody can come back, and nothing changes either.
            let Some(up_since) = up_since.first() else { continue };
            let may_be_away = match verifier.kind {
                Kind::Stream { .. } if verifier.link.is_some() => continue,
                Kind::Stream { .. } => verifier.left_at.map(|left_at| left_at + window),
                Kind::Poller => Some(verifier.as_of + JWKS_GONE),
            };
            let back_by = may_be_away.map(|by| by.max(*up_since + window));
            verifier.on_its_own |= back_by.is_none_or(|by| now > by);
        }
        Some(())
    }

    fn publish(&mut self, replica: usize) -> Option<()> {
        let one = &mut self.replicas[replica];
        one.up_since?;
        let is_new = one.held.epoch != self.store.epoch || one.reached_at != self.now;
        if self.unwritten.is_some() || !is_new {
            return None;
        }
        one.reached_at = self.now;
        let store = Arc::clone(&self.store);
        self.show(replica, &store);
        Some(())
    }

    /// Publishes a state to all verifiers that stream from a replica.
    fn show(&mut self, replica: usize, committed: &Arc<Committed>) {
        if let Some(gate) = self.gate.as_mut().filter(|_| replica == 0) {
            gate.publish(&committed.ring, committed.epoch);
        }
        self.replicas[replica].held = Arc::clone(committed);
        let bundle = committed.bundle();
        let as_of = self.replicas[replica].reached_at;
        for verifier in &mut self.verifiers {
            if let (Kind::Stream { .. }, Some(link)) = (verifier.kind, &mut verifier.link)
                && link.replica == replica
            {
                let content = bundle.since(link.sent, &[]);
                link.sent = bundle.epoch;
                link.down.push_back(Message { content, as_of, sent_at: self.now });
            }
        }
    }

    fn crash(&mut self, replica: usize) -> Option<()> {
        self.replicas[replica].up_since?;
        self.left.crashes = self.left.crashes.checked_sub(1)?;
        self.replicas[replica].up_since = None;
        if replica == 0 {
            self.gate = None;
            self.unwritten = None;
        }
        for verifier in 0..self.verifiers.len() {
            if self.verifiers[verifier].link.as_ref().is_some_and(|link| link.replica == replica) {
                self.lose(verifier);
            }
        }
        Some(())
    }

    fn start(&mut self, replica: usize) -> Option<()> {
        let one = &mut self.replicas[replica];
        if one.up_since.is_some() {
            return None;
        }
        let store = &self.store;
        *one = crate::world::Replica {
            up_since: Some(self.now),
            held: Arc::clone(store),
            reached_at: self.now,
        };
        if replica == 0 {
            self.gate =
                Some(RotationGate::new(&store.ring, store.epoch, store.listeners, self.now));
        }
        Some(())
    }

    fn connect(&mut self, verifier: usize, replica: usize) -> Option<()> {
        self.replicas[replica].up_since?;
        let writer = self.writer();
        let one = &mut self.verifiers[verifier];
        let poller = one.kind == Kind::Poller;
        // A poller asks again only when its key set may be kept no longer.
        let keeps = poller && one.bundle.is_some() && self.now < one.as_of + JWKS_MAX_AGE;
        if one.link.is_some() || keeps {
            return None;
        }
        let held = Arc::clone(&self.replicas[replica].held);
        // A replica that is behind the verifier must read the store first.
        if !poller && held.epoch < one.epoch() && self.store.epoch >= one.epoch() {
            return None;
        }
        // That someone listens becomes durable before it is served: after a crash the gate must still
        // wait for it.
        let mut listeners = self.store.listeners;
        if poller {
            listeners.polled = true;
            self.gate.as_mut()?.polled(held.epoch, self.now);
        } else {
            listeners.streamed = true;
        }
        if listeners != self.store.listeners {
            writer?;
            self.store = Arc::new(Committed { listeners, ..Committed::clone(&self.store) });
        }
        let have = if poller { 0 } else { one.epoch() };
        let message = Message {
            content: held.bundle().since(have.min(held.epoch), &[]),
            as_of: self.replicas[replica].reached_at,
            sent_at: self.now,
        };
        one.left_at = None;
        one.link = Some(Link {
            replica,
            sent: held.epoch,
            acked: 0,
            down: VecDeque::from([message]),
            up: VecDeque::new(),
        });
        Some(())
    }

    fn deliver(&mut self, verifier: usize) -> Option<()> {
        let now = self.now;
        let one = &mut self.verifiers[verifier];
        let link = one.link.as_mut()?;
        let Message { content, as_of, sent_at } = link.down.pop_front()?;
        if one.kind == Kind::Poller {
            one.on_its_own &= content.to != self.store.epoch;
            one.bundle = Some(Arc::new(TrustBundle::from_snapshot(issuer(), content)));
            (one.as_of, one.link) = (sent_at, None);
            return Some(());
        }
        let epoch = content.to;
        match &one.bundle {
            Some(held) => {
                let mut bundle = TrustBundle::clone(held);
                if bundle.apply(content).is_err() {
                    one.led_back = true;
                    return Some(());
                }
                one.bundle = Some(Arc::new(bundle));
            }
            None => one.bundle = Some(Arc::new(TrustBundle::from_snapshot(issuer(), content))),
        }
        one.as_of = as_of;
        link.up.push_back((epoch, now));
        Some(())
    }

    fn deliver_ack(&mut self, verifier: usize) -> Option<()> {
        let one = &mut self.verifiers[verifier];
        let link = one.link.as_mut()?;
        let (epoch, _) = link.up.pop_front()?;
        link.acked = epoch;
        one.on_its_own &= epoch != self.store.epoch;
        Some(())
    }

    fn break_link(&mut self, verifier: usize) -> Option<()> {
        self.verifiers[verifier].link.as_ref()?;
        self.left.breaks = self.left.breaks.checked_sub(1)?;
        self.lose(verifier);
        Some(())
    }

    fn lose(&mut self, verifier: usize) {
        let one = &mut self.verifiers[verifier];
        one.link = None;
        if one.kind != Kind::Poller {
            one.left_at = Some(self.now);
        }
    }
}
