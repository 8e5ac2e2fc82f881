//! What a token source counts.

use std::collections::HashMap;
use std::time::Duration;

use countersign::claims::Audience;
use countersign::claims::ScopeSet;
use metrics_util::debugging::DebugValue;
use metrics_util::debugging::DebuggingRecorder;
use metrics_util::debugging::Snapshotter;
use tokio::time::Instant;
use tonic::Code;

use crate::countersign::Answer;
use crate::countersign::FakeCountersign;

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
async fn runway_refreshes_failures_and_waits_are_counted() {
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
