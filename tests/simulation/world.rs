//! One run: who is there, what goes wrong when, and how it ends.

use std::time::Duration;

use countersign::authority::host::{self, NewClient};
use countersign::client::{GrantRule, Grants, Serves};
use countersign::store::{self, Kek};
use countersign_mesh::claims::{Clock, ScopeSet, Timestamp};
use countersign_mesh::guard::WhenStale;
use countersign_mesh::session::Jitter;
use tempfile::TempDir;
use turmoil::Sim;

use crate::dice::Dice;
use crate::hosts::{self, Operator, Place, Tokens};
use crate::oracle::{Counts, MAX_SKEW, Oracle};

const START: Timestamp = Timestamp::from_unix(1_800_000_000);

const SERVICES: [(&str, WhenStale); 4] = [
    ("alpha", WhenStale::ServeStale),
    ("beta", WhenStale::FailClosed),
    ("gamma", WhenStale::ServeStale),
    ("delta", WhenStale::FailClosed),
];

const CLIENTS: [&str; 3] = ["anna", "boris", "clara"];

/// How much simulated time one step is.
const STEP: Duration = Duration::from_millis(40);

/// How long a message takes at most, in milliseconds, unless its link is held.
const SLOWEST: u64 = 200;

/// From here on nothing goes wrong any more.
const TROUBLES_END: Duration = Duration::from_secs(8 * 60);

/// Two minutes later all must be well.
const END: Duration = Duration::from_secs(10 * 60);

/// What came of one run.
pub struct Run {
    pub trace: Vec<String>,
    pub violations: Vec<String>,
    pub counts: Counts,
}

/// Runs the simulation of one seed to its end.
pub fn run(seed: u64) -> Run {
    let directory = TempDir::new().expect("a temporary directory");
    let mut dice = Dice::new(seed, 0);
    let oracle = Oracle::default();
    oracle.lock().begin(START, &SERVICES);
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(STEP)
        .simulation_duration(END * 2)
        // Sessions without a stream poll for keys with real sockets, at an address where nobody
        // listens.
        .enable_tokio_io()
        .build();

    let all = Grants::try_from(SERVICES.map(|(name, _)| grant(name)).to_vec()).expect("grants");
    let serves = |name: &str| Serves::try_from(vec![name.parse().expect("a name")]).expect("one");
    let new = |name: &str, grants, serves| {
        NewClient::new(name.parse().expect("a name"), "", grants, serves, START)
            .expect("randomness")
    };
    let operator = "operator".parse().expect("a name");
    let mut registered = vec![NewClient::operator(operator, "", START).expect("randomness")];
    registered.extend(SERVICES.map(|(name, _)| new(name, Grants::default(), serves(name))));
    registered.extend(CLIENTS.map(|name| new(name, all.clone(), Serves::default())));
    let kek = Kek::generate().expect("randomness");
    let path = directory.path().join("countersign.db");
    let place = store::reserve(&path).expect("nothing is there");
    let name = "https://issuer.test".parse().expect("a name");
    host::init(&place, &kek, &name, &registered, START).expect("a fresh store");
    drop(place);
    let mut secrets = registered.iter().map(|new| new.secret.expose().to_owned());
    let mut secret = || secrets.next().expect("one each");

    let mut clocks = vec![(Clock::fixed(START), 0)];
    let tokens = Tokens::default();
    let place = Place { directory: directory.path().to_owned(), kek: kek.expose().to_string() };
    let (clock, known) = (clocks[0].0.clone(), oracle.clone());
    sim.host("issuer", move || hosts::issuer(place.clone(), clock.clone(), known.clone()));
    let operator = Operator {
        secret: secret(),
        clients: CLIENTS.to_vec(),
        tokens: tokens.clone(),
        oracle: oracle.clone(),
        dice: Dice::new(seed, 1),
    };
    for (number, (name, when_stale)) in (10..).zip(SERVICES) {
        let skew = dice.below(2 * MAX_SKEW + 1).cast_signed() - MAX_SKEW.cast_signed();
        let clock = Clock::fixed(START);
        clocks.push((clock.clone(), skew));
        let jitter = Jitter::seeded(Dice::new(seed, number).next());
        let (secret, oracle) = (secret(), oracle.clone());
        sim.client(name, hosts::service(name, secret, when_stale, clock, jitter, oracle));
    }
    for (number, name) in (20..).zip(CLIENTS) {
        let services = SERVICES.map(|(name, _)| name).to_vec();
        let (dice, oracle, tokens) = (Dice::new(seed, number), oracle.clone(), tokens.clone());
        sim.client(name, hosts::client(name, secret(), services, dice, oracle, tokens));
    }
    sim.client("operator", operator.run(TROUBLES_END, END));

    let mut troubles = Troubles::new(dice, oracle.clone());
    troubles.slow_down(&sim);
    while sim.elapsed() < END {
        for (clock, skew) in &clocks {
            let now = START.as_unix() + sim.elapsed().as_secs();
            clock.set(Timestamp::from_unix(now.saturating_add_signed(*skew)));
        }
        troubles.make(&mut sim);
        if let Err(error) = sim.step() {
            let at = sim.elapsed();
            oracle.lock().must(at, false, &format!("a host has failed: {error}"));
            break;
        }
    }
    let mut known = oracle.lock();
    known.check_converged(sim.elapsed());
    Run {
        trace: known.sorted_trace(),
        violations: std::mem::take(&mut known.violations),
        counts: known.counts.clone(),
    }
}

fn grant(audience: &str) -> GrantRule {
    GrantRule {
        audience: audience.parse().expect("a name"),
        scopes: ScopeSet::parse("call").expect("a scope"),
    }
}

/// What goes wrong, and until when.
struct Troubles {
    dice: Dice,
    oracle: Oracle,
    next: Duration,
    /// Links that are cut or held, and until when.
    links: Vec<(&'static str, &'static str, Kind, Duration)>,
    down_until: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Everything sent is lost.
    Cut,
    /// Everything sent in one of the two directions is lost.
    CutOneWay,
    /// Everything sent is delivered when the trouble is over.
    Held,
}

impl Troubles {
    fn new(dice: Dice, oracle: Oracle) -> Self {
        let next = Duration::from_secs(5);
        Self { dice, oracle, next, links: Vec::new(), down_until: None }
    }

    fn make(&mut self, sim: &mut Sim<'_>) {
        let at = sim.elapsed();
        let well = at >= TROUBLES_END;
        if self.down_until.is_some_and(|until| well || until <= at) {
            self.down_until = None;
            sim.bounce("issuer");
        }
        let (over, lasting) = self.links.drain(..).partition(|(.., until)| well || *until <= at);
        self.links = lasting;
        for (one, other, kind, _) in over {
            self.mend(sim, one, other, kind);
        }
        if well || at < self.next {
            return;
        }
        self.next = at + self.dice.millis(2_000, 25_000);
        self.oracle.lock().counts.faults += 1;
        match self.dice.below(10) {
            0 | 1 if self.down_until.is_none() => {
                // The issuer is back at once, or stays away for longer than verifiers that fail closed
                // wait.
                let down = self.dice.pick(&[100, 3_000, 20_000, 150_000]);
                self.down_until = Some(at + Duration::from_millis(down));
                sim.crash("issuer");
                self.oracle.lock().issuer_is_down(at);
            }
            2 | 3 => self.slow_down(sim),
            _ => self.break_link(sim, at),
        }
    }

    /// Draws how long messages take from now on. It is drawn for each link, not for each message, so
    /// that it does not depend on the order in which a host sends within a step.
    fn slow_down(&mut self, sim: &Sim<'_>) {
        let services = SERVICES.map(|(name, _)| name);
        let mut hosts: Vec<&str> = services.iter().chain(&CLIENTS).copied().collect();
        hosts.push("operator");
        for host in &hosts {
            sim.set_link_latency(*host, "issuer", self.dice.millis(0, SLOWEST));
        }
        for client in CLIENTS {
            for service in services {
                sim.set_link_latency(client, service, self.dice.millis(0, SLOWEST));
            }
        }
    }

    fn break_link(&mut self, sim: &Sim<'_>, at: Duration) {
        let (service, _) = self.dice.pick(&SERVICES);
        let client = self.dice.pick(&CLIENTS);
        let (one, other) = match self.dice.below(6) {
            0..3 => (service, "issuer"),
            3 => (client, "issuer"),
            4 => ("operator", "issuer"),
            _ => (client, service),
        };
        let same = |link: &(&str, &str, Kind, Duration)| (link.0, link.1) == (one, other);
        if self.links.iter().any(same) {
            return;
        }
        let kind = self.dice.pick(&[Kind::Cut, Kind::CutOneWay, Kind::Held]);
        let lasts = self.dice.pick(&[500, 4_000, 18_000, 40_000, 150_000]);
        match kind {
            Kind::Cut => sim.partition(one, other),
            Kind::CutOneWay if self.dice.below(2) == 0 => sim.partition_oneway(one, other),
            Kind::CutOneWay => sim.partition_oneway(other, one),
            Kind::Held => sim.hold(one, other),
        }
        self.links.push((one, other, kind, at + Duration::from_millis(lasts)));
        let mut known = self.oracle.lock();
        known.note(at, format_args!("{kind:?}: {one} and {other} for {lasts} ms"));
        if other == "issuer" {
            known.link(one, None);
        }
    }

    fn mend(&self, sim: &Sim<'_>, one: &'static str, other: &'static str, kind: Kind) {
        match kind {
            Kind::Cut | Kind::CutOneWay => sim.repair(one, other),
            Kind::Held => sim.release(one, other),
        }
        let at = sim.elapsed();
        let mut known = self.oracle.lock();
        known.note(at, format_args!("mended: {one} and {other}"));
        if other == "issuer" {
            known.link(one, Some(at));
        }
    }
}
