//! Model checking of the protocol of keys and revocations: every order in which things can happen is
//! explored.
//!
//! The model has a store, replicas that crash and start, verifiers that stream and verifiers that poll,
//! and a network that delays and loses messages. Its transitions call the real `KeyRing`,
//! `RotationGate` and `TrustBundle`; only who calls them, and when, is modelled.
//!
//! `world` is the state at one moment, `steps` says what can happen next, and the properties below must
//! hold in every state. To show that the properties would notice, the service is also broken on
//! purpose, in one way at a time (`Variant`): the checker must find each of these faults.
//!
//! Replicas share what the gate knows, as they share the store. Today one process serves a store, so
//! that this holds by itself.

#![allow(clippy::print_stdout, reason = "how much was explored is worth seeing")]

mod steps;
mod world;

use std::time::Duration;

use countersign::ring::Blocked;
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::steps::{Protocol, Step, Variant};
use crate::world::{Budget, Kind, MAX_STALENESS, TICK, World};

const VALID_IS_ACCEPTED: &str = "no good token is refused by a verifier that keeps up";
const REVOKED_IS_REFUSED: &str = "no revoked token is accepted past its bound";
const ONE_SIGNER: &str = "an epoch has one signer";
const GATED: &str = "only keys that passed the gate sign";
const FORWARD: &str = "epochs never go backwards";
const TOLD: &str = "a rotation that is blocked says by what";
/// Not promises: these states must be reachable, or the model explores nothing of interest.
const NEW_KEY_ACCEPTED: &str = "a token of a later key is accepted";
const LATE_REVOCATION: &str = "a revoked token is still accepted, for a while";
const CONVERGES: &str = "once all goes well every verifier converges and a rotation goes through";

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::first(&self.kinds, self.replicas, self.budget)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        steps.extend(self.steps(world));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        self.after(world, step)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(VALID_IS_ACCEPTED, |_, world| valid_is_accepted(world)),
            Property::always(REVOKED_IS_REFUSED, |_, world| revoked_is_refused(world)),
            Property::always(ONE_SIGNER, |_, world| one_signer_an_epoch(world)),
            Property::always(GATED, |_, world: &World| {
                world
                    .signers
                    .iter()
                    .all(|(_, kid)| world.passed.contains(kid) || world.promoted.contains(kid))
            }),
            Property::always(FORWARD, |_, world: &World| {
                world.verifiers.iter().all(|one| !one.led_back)
            }),
            Property::always(TOLD, |protocol: &Self, world: &World| {
                world.gate.is_none()
                    || protocol.check_gate(world).err().is_none_or(|blocked| {
                        blocked.retry_in() > Duration::ZERO && blocked != Blocked::default()
                    })
            }),
            Property::always(CONVERGES, |protocol: &Self, world: &World| {
                // Checked for a sample of the states only, since each check simulates a run of its own.
                sampled(world) || protocol.converges(world)
            }),
            Property::sometimes(NEW_KEY_ACCEPTED, |_, world: &World| {
                let first = &world.kids[0];
                world.accepted().any(|token| token.kid() != first)
            }),
            Property::sometimes(LATE_REVOCATION, |_, world: &World| {
                world.tokens.iter().any(|issued| issued.revoked_at.is_some())
                    && world.accepted().next().is_some()
            }),
        ]
    }
}

fn sampled(world: &World) -> bool {
    let verifiers = world.verifiers.iter().map(|one| one.epoch()).sum::<u64>();
    !(verifiers + world.store.epoch + u64::from(world.left.ticks)).is_multiple_of(4)
}

/// The promise to every verifier that keeps up. A streaming verifier keeps up if it is connected, or
/// comes back within the reconnect window; a poller, if it keeps no key set for longer than it may. The
/// stated exception is a key that signs because the one before it was revoked.
fn valid_is_accepted(world: &World) -> bool {
    let good = |issued: &&world::Issued| {
        issued.revoked_at.is_none()
            && issued.token.claims().expires_at > world.now
            && !world.promoted.contains(issued.token.kid())
    };
    world.tokens.iter().filter(good).all(|issued| {
        world.verifiers.iter().filter(|one| !one.on_its_own).all(|one| {
            let stale = world.now.since(one.as_of) > MAX_STALENESS;
            let refuses_all = stale && matches!(one.kind, Kind::Stream { fail_closed: true, .. });
            refuses_all || one.accepts(&issued.token, world.now)
        })
    })
}

/// The bound on late acceptance: one step for a verifier that streams from a replica which is up to
/// date, the maximum staleness for one that fails closed, and the token's life for all.
fn revoked_is_refused(world: &World) -> bool {
    world.tokens.iter().all(|issued| {
        let Some(revoked_at) = issued.revoked_at else { return true };
        let tick = Duration::from_secs(TICK);
        world.verifiers.iter().filter(|one| one.accepts(&issued.token, world.now)).all(|one| {
            let within = |bound: Duration| world.now <= revoked_at + bound;
            match one.kind {
                Kind::Poller => true,
                Kind::Stream { fail_closed, .. } => {
                    let connected = one.link.as_ref().is_some_and(|link| {
                        let replica = &world.replicas[link.replica];
                        replica.reached_at == world.now && link.down.is_empty()
                    });
                    (!connected || within(tick))
                        && (!fail_closed || within(MAX_STALENESS + tick))
                        && one.clock(world.now) < issued.token.claims().expires_at + world::LEEWAY
                }
            }
        })
    })
}

fn one_signer_an_epoch(world: &World) -> bool {
    let mut epochs = world.signers.iter().map(|(epoch, _)| *epoch);
    let mut last = epochs.next();
    epochs.all(|epoch| last.replace(epoch) != Some(epoch))
}

const STREAM: Kind = Kind::Stream { fail_closed: false, skew: 0 };
const CAREFUL: Kind = Kind::Stream { fail_closed: true, skew: -1 };
const FAST: Kind = Kind::Stream { fail_closed: false, skew: 1 };

const NOTHING: Budget = Budget {
    ticks: 0,
    rotations: 0,
    tokens: 0,
    token_revocations: 0,
    key_revocations: 0,
    crashes: 0,
    breaks: 0,
};

/// Explores every state within the budget and checks every property. `MODEL_FULL` makes the budget
/// larger.
fn check(name: &str, kinds: &[Kind], replicas: usize, budget: Budget) {
    let budget = match std::env::var_os("MODEL_FULL") {
        Some(_) => Budget { ticks: budget.ticks + 1, tokens: budget.tokens + 1, ..budget },
        None => budget,
    };
    let checker = Protocol::new(Variant::Sound, kinds, replicas, budget)
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_dfs()
        .join();
    println!("{name}: {} states, {} steps deep", checker.unique_state_count(), checker.max_depth());
    let mut discoveries = checker.discoveries();
    let reached = discoveries.remove(NEW_KEY_ACCEPTED).is_some();
    assert!(reached, "{name}: nothing happens");
    let revoked = discoveries.remove(LATE_REVOCATION).is_some();
    assert_eq!(revoked, budget.token_revocations + budget.key_revocations > 0, "{name}");
    if let Some((property, path)) = discoveries.into_iter().next() {
        panic!("{name}: {property}: {:?}", path.into_actions());
    }
}

/// Asserts that the checker finds what is wrong with a broken service.
fn assert_found(variant: Variant, kinds: &[Kind], budget: Budget, expected: &'static str) {
    let checker = Protocol::new(variant, kinds, 1, budget)
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AllOf([expected].into()))
        .spawn_bfs()
        .join();
    let found = checker.discovery(expected);
    let path = found.unwrap_or_else(|| panic!("{variant:?} breaks nothing: {expected}"));
    println!("{variant:?}, {} states: {:?}", checker.unique_state_count(), path.into_actions());
}

#[test]
fn every_promise_holds_with_a_stream_crashes_and_rotations() {
    let budget = Budget { ticks: 2, rotations: 2, tokens: 1, crashes: 1, breaks: 1, ..NOTHING };
    check("one replica, one stream", &[STREAM], 1, budget);
}

#[test]
fn every_promise_holds_with_two_streams_and_revoked_tokens() {
    let budget = Budget { ticks: 1, rotations: 1, tokens: 1, token_revocations: 1, ..NOTHING };
    check("one replica, two streams", &[CAREFUL, FAST], 1, budget);
}

#[test]
fn every_promise_holds_with_a_stream_and_a_revoked_key() {
    let budget = Budget { ticks: 2, rotations: 1, tokens: 1, key_revocations: 1, ..NOTHING };
    check("one replica, a revoked key", &[CAREFUL], 1, Budget { breaks: 1, ..budget });
}

#[test]
fn every_promise_holds_with_two_replicas() {
    let budget = Budget { ticks: 1, rotations: 1, tokens: 1, token_revocations: 1, ..NOTHING };
    check("two replicas, one stream", &[CAREFUL], 2, Budget { crashes: 1, ..budget });
}

#[test]
fn every_promise_holds_with_a_poller_and_rotations() {
    let budget = Budget { ticks: 5, rotations: 2, tokens: 1, ..NOTHING };
    check("one replica, one poller", &[Kind::Poller], 1, budget);
}

#[test]
fn every_promise_holds_with_a_poller_and_a_crash() {
    let budget = Budget { ticks: 4, rotations: 2, tokens: 1, crashes: 1, ..NOTHING };
    check("one replica, one poller, a crash", &[Kind::Poller], 1, budget);
}

#[test]
fn the_checker_finds_a_rotation_without_a_gate() {
    let budget = Budget { rotations: 2, tokens: 1, ..NOTHING };
    assert_found(Variant::NoGate, &[STREAM], budget, VALID_IS_ACCEPTED);
}

#[test]
fn the_checker_finds_that_one_poll_interval_of_pre_publishing_is_too_short() {
    let budget = Budget { ticks: 3, rotations: 2, tokens: 1, ..NOTHING };
    assert_found(Variant::PrePublishOneInterval, &[Kind::Poller], budget, VALID_IS_ACCEPTED);
}

#[test]
fn the_checker_finds_a_key_that_is_dropped_early() {
    let budget = Budget { ticks: 2, rotations: 1, tokens: 1, ..NOTHING };
    assert_found(Variant::KeyDroppedEarly, &[STREAM], budget, VALID_IS_ACCEPTED);
}

#[test]
fn the_checker_finds_publishing_before_persisting() {
    let budget = Budget { rotations: 1, tokens: 2, token_revocations: 1, crashes: 1, ..NOTHING };
    assert_found(Variant::PublishBeforePersist, &[STREAM], budget, ONE_SIGNER);
    assert_found(Variant::PublishBeforePersist, &[STREAM], budget, FORWARD);
}
