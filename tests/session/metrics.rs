//! The metrics of token sources and of trust.

use std::collections::HashMap;
use std::time::Duration;

use countersign_mesh::claims::{Audience, ScopeSet};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::time::Instant;
use tonic::Code;

use crate::countersign::{Answer, FakeCountersign};
use crate::trust_stream::Rig;

/// The metrics of the one source that there is, by name.
fn counted(snapshotter: &Snapshotter) -> HashMap<String, DebugValue> {
    let snapshot = snapshotter.snapshot().into_vec();
    let values = snapshot.into_iter().map(|(key, _, _, value)| {
        let key = key.key();
        let labels: Vec<_> =
            key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        let expected = [("audience", "shop"), ("scopes", "stock:read stock:write")];
        assert_eq!(labels, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        (key.name().to_owned(), value)
    });
    values.collect()
}

#[tokio::test(start_paused = true)]
async fn a_token_source_reports_its_runway_refreshes_failures_and_waits() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);

    let countersign = FakeCountersign::new(Answer::Late(3));
    let scopes = ScopeSet::parse("stock:read stock:write").expect("scopes");
    let audience = Audience::new("shop").expect("an audience");
    let source = countersign.session().token_source(audience, scopes);
    source.token(Instant::now() + Duration::from_secs(10)).await.expect("a token");
    source.token(Instant::now()).await.expect("without waiting");
    let counts = counted(&snapshotter);
    assert_eq!(counts["countersign_token_refreshes_total"], DebugValue::Counter(1));
    assert_eq!(counts["countersign_token_waits_total"], DebugValue::Counter(1));
    assert_eq!(counts["countersign_token_runway_seconds"], DebugValue::Gauge(897.0.into()));
    let DebugValue::Histogram(waits) = &counts["countersign_token_wait_seconds"] else {
        panic!("not a histogram");
    };
    assert!(waits.len() == 1 && (3.0..3.1).contains(&waits[0].into_inner()), "{waits:?}");
    assert!(!counts.contains_key("countersign_token_failures_total"));

    countersign.answers(Answer::Error(Code::Unavailable));
    tokio::time::sleep(Duration::from_millis(450_050)).await;
    let counts = counted(&snapshotter);
    assert_eq!(counts["countersign_token_failures_total"], DebugValue::Counter(1));
    let DebugValue::Gauge(runway) = counts["countersign_token_runway_seconds"] else {
        panic!("not a gauge");
    };
    assert!((445.0..450.0).contains(&runway.into_inner()), "{runway}");
}

#[tokio::test(start_paused = true)]
async fn a_session_reports_the_age_of_its_trust_and_lost_streams() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let trust_metrics = || {
        let snapshot = snapshotter.snapshot().into_vec().into_iter();
        let values = snapshot.map(|(key, _, _, value)| (key.key().name().to_owned(), value));
        values.filter(|(name, _)| name.contains("_trust_")).collect::<HashMap<_, _>>()
    };
    let gauge = |name: &str| match trust_metrics()[name] {
        DebugValue::Gauge(value) => value.into_inner(),
        ref other => panic!("{other:?} is no gauge"),
    };

    let mut rig = Rig::new();
    let mut watcher = rig.openings.next().await;
    assert_eq!(gauge("countersign_trust_stale"), 1.0, "nothing is known yet");
    watcher.bring(4, 1).await;
    assert_eq!(gauge("countersign_trust_stale"), 0.0);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let age = gauge("countersign_trust_age_seconds");
    assert!((10.0..12.1).contains(&age), "{age}");
    assert!(!trust_metrics().contains_key("countersign_trust_reconnects_total"));

    rig.server.refuses(Some(Code::Unavailable));
    watcher.fail(Code::Unavailable);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let shown = trust_metrics();
    assert_eq!(shown["countersign_trust_stale"], DebugValue::Gauge(1.0.into()));
    assert_eq!(shown["countersign_trust_reconnects_total"], DebugValue::Counter(1));
    rig.server.refuses(None);
    rig.openings.next().await.bring(5, 1).await;
    assert_eq!(gauge("countersign_trust_stale"), 0.0);
}
