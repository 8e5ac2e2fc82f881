//! A storm: keys are rotated and tokens revoked while clients call services without a pause, and the
//! server is killed with `kill -9` and started again. No valid call may be refused, and no revoked
//! token accepted past its bound.
//!
//! Everything is real: processes, sockets, time, and the default settings. `cargo test` has a small
//! one; `just storm` (`COUNTERSIGN_STORM=full`) takes a quarter of an hour, most of which rotations
//! wait for verifiers to be back after a start.

mod callers;
mod figures;
mod guards;
mod operator;
mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::callers::Caller;
use crate::figures::Figures;
use crate::guards::Mesh;
use crate::operator::Operator;
use crate::process::Server;

/// How large a storm is.
#[derive(Clone, Copy)]
struct Size {
    /// Two for each audience.
    guards: usize,
    callers: usize,
    /// How many revoke at the same time.
    revokers: usize,
    rotations: usize,
    /// At least; they go on for as long as the rotations.
    revocations: usize,
    /// How often one revoker revokes at most.
    revoke_every: Duration,
    /// Kills between rotations, which then wait for half a minute.
    kills_between: usize,
    /// Kills after the last rotation, one right after the other.
    kills_after: usize,
    at_most: Duration,
}

const SMALL: Size = Size {
    guards: 6,
    callers: 6,
    revokers: 3,
    rotations: 30,
    revocations: 100,
    revoke_every: Duration::ZERO,
    kills_between: 0,
    kills_after: 3,
    at_most: Duration::from_secs(180),
};

const FULL: Size = Size {
    guards: 30,
    callers: 30,
    revokers: 8,
    rotations: 1_000,
    revocations: 1_000,
    revoke_every: Duration::from_millis(500),
    kills_between: 12,
    kills_after: 12,
    at_most: Duration::from_secs(45 * 60),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_valid_call_is_refused_and_no_revoked_token_accepted_past_its_bound() {
    let size = match std::env::var("COUNTERSIGN_STORM") {
        Ok(size) if size == "full" => FULL,
        _ => SMALL,
    };
    let figures = Arc::<Figures>::default();
    let storm = tokio::time::timeout(size.at_most, storm(size, Arc::clone(&figures)));
    let in_time = storm.await.is_ok();
    figures.print();
    figures.assert_kept();
    assert!(in_time, "it takes too long");
    assert!(figures.count(&figures.rotations) >= size.rotations as u64);
    assert!(figures.count(&figures.revocations) >= size.revocations as u64);
    assert!(figures.count(&figures.kills) >= (size.kills_between + size.kills_after) as u64);
}

async fn storm(size: Size, figures: Arc<Figures>) {
    let mut server = Server::start().await;
    let operator = Operator::new(&server.url, &server.operator_secret(), &figures);
    let mesh = Arc::new(Mesh::start(&server.url, &operator, size.guards, &figures).await);
    let callers = Caller::register(&server.url, &operator, &mesh, size.callers, &figures).await;

    let over = Arc::new(AtomicBool::new(false));
    let mut calling = JoinSet::new();
    for caller in &callers {
        calling.spawn(Arc::clone(caller).call_on(Arc::clone(&over)));
    }
    let mut revoking = JoinSet::new();
    for first in 0..size.revokers {
        let theirs = callers.iter().skip(first).step_by(size.revokers).cloned().collect();
        let revoker = operator.clone();
        let (mesh, over) = (Arc::clone(&mesh), Arc::clone(&over));
        let (least, every) = (size.revocations, size.revoke_every);
        revoking.spawn(async move { revoker.revoke_on(&mesh, theirs, over, least, every).await });
    }

    // Rotations go on while the server is killed and comes back.
    let (kill, mut kills) = mpsc::unbounded_channel();
    let rotating = {
        let (operator, mesh) = (operator.clone(), Arc::clone(&mesh));
        tokio::spawn(async move {
            let between = size.rotations / (size.kills_between + 1);
            for n in 1..=size.rotations {
                operator.rotate(&mesh, n).await;
                if n % between == 0 && n / between <= size.kills_between {
                    kill.send(()).expect("the server is in its hands");
                }
            }
        })
    };
    while kills.recv().await.is_some() {
        server.kill_and_restart(&figures).await;
        mesh.all_back().await;
        operator.present_all(&mesh).await;
    }
    rotating.await.expect("it goes through");
    let pushing = {
        let (operator, mesh, over) = (operator.clone(), Arc::clone(&mesh), Arc::clone(&over));
        tokio::spawn(async move { operator.push_on(&mesh, over).await })
    };
    for n in 0..size.kills_after {
        server.kill_and_restart(&figures).await;
        // Not always: the next kill may come while they are on their way back.
        if n % 2 == 0 {
            mesh.all_back().await;
        }
    }
    mesh.all_back().await;
    over.store(true, Ordering::SeqCst);
    pushing.await.expect("it goes through");
    while let Some(ended) = revoking.join_next().await {
        ended.expect("it goes through");
    }
    while let Some(ended) = calling.join_next().await {
        ended.expect("it goes through");
    }
    operator.present_all(&mesh).await;
}
