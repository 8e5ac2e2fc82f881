//! The real server, real sessions and real guards on a simulated network, in simulated time, by seeds.
//!
//! One issuer on its store, four guarded services, three clients and an operator. What goes wrong, and
//! when, follows from the seed: links are cut or held up, the issuer crashes and starts again on its
//! store, messages take their time, and clocks are off. An oracle checks each decision of each guard
//! against what Countersign promises. In the end every guard must hold what the issuer holds.
//!
//! `world` sets up one run and makes the trouble, `hosts` has those who take part, `network` connects
//! them, `dice` draws from the seed, and `oracle` judges.
//!
//! The disk is not simulated. The store writes on the calling thread, so that a commit takes no
//! simulated time. On a thread of its own it would take as many simulated steps as the machine happens
//! to make meanwhile, and runs could not be repeated.
//!
//! CI runs a few seeds. `just simulate` runs many, as `SIMULATION_SEEDS` says. `SIMULATION_SEED` runs
//! one.

mod dice;
mod hosts;
mod network;
mod oracle;
mod world;

use std::sync::Mutex;

use crate::oracle::Counts;
use crate::world::{Run, run};

/// How many seeds are run by default.
const SEEDS: u64 = 10;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_promise_holds_whatever_the_seed() {
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let alone = seeds.end - seeds.start == 1;
    let left = Mutex::new(seeds);
    let total = Mutex::new(Counts::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = left.lock().expect("no thread panicked with the lock").next();
                    let Some(seed) = next else { return };
                    let run = run(seed);
                    let trace = run.trace.join("\n");
                    assert!(
                        run.violations.is_empty(),
                        "seed {seed}:\n{trace}\n{:#?}\nAgain: SIMULATION_SEED={seed} cargo test --test simulation",
                        run.violations,
                    );
                    total.lock().expect("no thread panicked with the lock").add(&run.counts);
                }
            });
        }
    });
    let total = total.into_inner().expect("no thread panicked with the lock");
    if !alone {
        // If none of these happened, nothing was put to the test.
        assert!(total.accepted > 0 && total.refused_revoked > 0, "{total:?}");
        assert!(total.rotations > 0 && total.rotations_blocked > 0, "{total:?}");
        assert!(total.refused_stale > 0 && total.faults > 0, "{total:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let seed = number("SIMULATION_SEED").unwrap_or(3);
    let (Run { trace: first, .. }, Run { trace: second, .. }) = (run(seed), run(seed));
    let differs = first.iter().zip(&second).position(|(one, other)| one != other);
    assert!(
        first == second,
        "line {differs:?}: {:?} and {:?}",
        differs.map(|line| &first[line.saturating_sub(3)..=line]),
        differs.map(|line| &second[line.saturating_sub(3)..=line]),
    );
    assert!(first.len() > 100, "something happens");
}
