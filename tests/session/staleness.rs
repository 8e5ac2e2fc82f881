//! What a session makes of silence: how old its keys and revocations may become, and what happens then.

use std::time::Duration;

use countersign::rpc::WatchTrustBundleResponse;
use countersign_mesh::guard::WhenStale;
use countersign_mesh::session::{FedBy, SessionBuilder};
use tokio::time::Instant;
use tonic::Code;

use crate::countersign::{Answer, USUAL};
use crate::trust::call;
use crate::trust_server::{duration, heartbeat};
use crate::trust_stream::{Rig, beat, pass};

#[tokio::test(start_paused = true)]
async fn stale_trust_is_served_or_refused_as_the_owner_chose() {
    for (when_stale, expected) in
        [(WhenStale::ServeStale, Code::Ok), (WhenStale::FailClosed, Code::Unavailable)]
    {
        let mut rig = Rig::with(|builder| builder.when_stale(when_stale));
        let mut watcher = rig.openings.next().await;
        watcher.bring(4, 1).await;
        beat(&watcher, 4, 600).await;
        assert!(rig.trust.is_fresh());
        rig.server.refuses(Some(Code::Unavailable));
        watcher.send(heartbeat(4));
        pass(59).await;
        assert_eq!((rig.trust.is_fresh(), call(&rig.trust, 1).await), (true, Code::Ok));
        pass(2).await;
        assert_eq!((rig.trust.is_fresh(), call(&rig.trust, 1).await), (false, expected));
        let health = rig.session.health();
        assert_eq!((health.is_fresh, health.epoch, health.fed_by), (false, Some(4), FedBy::Nobody));
        assert!(health.age.is_some_and(|age| (60..63).contains(&age.as_secs())), "{health:?}");

        rig.server.refuses(None);
        let mut watcher = rig.openings.next().await;
        watcher.send(heartbeat(4));
        watcher.ack().await;
        assert_eq!((rig.trust.is_fresh(), call(&rig.trust, 1).await), (true, Code::Ok));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_cut_off_from_its_store_makes_nothing_fresh() {
    let mut rig = Rig::with(|builder| builder.when_stale(WhenStale::FailClosed));
    let mut watcher = rig.openings.next().await;
    watcher.bring(4, 1).await;
    for age in (5..60).step_by(5) {
        pass(5).await;
        watcher.send(aged(heartbeat(4), age));
    }
    pass(1).await;
    assert_eq!(call(&rig.trust, 1).await, Code::Ok);
    pass(5).await;
    watcher.send(aged(heartbeat(4), 60));
    // A message that does not say how old its confirmation is confirms nothing.
    watcher.send(WatchTrustBundleResponse { age: None, ..heartbeat(4) });
    pass(1).await;
    assert_eq!(call(&rig.trust, 1).await, Code::Unavailable);
    assert_eq!(rig.session.health().fed_by, FedBy::Stream);
    watcher.send(aged(heartbeat(4), 10));
    pass(1).await;
    assert_eq!(call(&rig.trust, 1).await, Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn the_shorter_of_the_servers_and_the_programs_limit_counts() {
    let strict = |builder: SessionBuilder| {
        builder.when_stale(WhenStale::FailClosed).max_staleness(Duration::from_secs(20))
    };
    let mut rig = Rig::with(strict);
    rig.openings.next().await.bring(4, 1).await;
    rig.server.refuses(Some(Code::Unavailable));
    pass(19).await;
    assert_eq!(call(&rig.trust, 1).await, Code::Ok);
    pass(2).await;
    assert_eq!(call(&rig.trust, 1).await, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn after_a_long_outage_the_stream_comes_back_before_the_server_gives_up_on_it() {
    for refusal in [Code::Unavailable, Code::PermissionDenied] {
        let mut rig = Rig::new();
        let mut watcher = rig.openings.next().await;
        watcher.bring(4, 1).await;
        rig.server.refuses(Some(Code::Unavailable));
        rig.countersign.answers(Answer::Error(refusal));
        watcher.fail(Code::Unavailable);
        // Long enough for the token to expire, and for all waits to reach their longest.
        pass(3600).await;
        rig.server.refuses(None);
        rig.countersign.answers(USUAL);
        let back_at = Instant::now();
        rig.openings.next().await;
        let took = back_at.elapsed();
        // A session that was refused asks again every few minutes, and once is enough.
        let patience = if refusal == Code::Unavailable { 16 } else { 301 };
        assert!(took < Duration::from_secs(patience), "{refusal:?}: {took:?}");
    }
}

fn aged(message: WatchTrustBundleResponse, age: u64) -> WatchTrustBundleResponse {
    WatchTrustBundleResponse { age: duration(Duration::from_secs(age)), ..message }
}
