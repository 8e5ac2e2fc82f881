//! Any messages of a trust stream, each behind its length: they come to a snapshot or a delta within its bounds, or
//! are refused.

use countersign_mesh::internals::{Gathering, Update};
use countersign_mesh::keys::{KeySet, SigningKey};
use countersign_mesh::rpc::watch_trust_bundle_response::Event;
use countersign_mesh::rpc::{
    RevokedClient, RevokedToken, TrustContent, TrustDelta, TrustHeartbeat, TrustSnapshot,
    WatchTrustBundleResponse,
};
use prost::Message;
use prost_types::Timestamp;

/// Whether the bytes come to a snapshot or a delta.
pub fn check(mut bytes: &[u8]) -> bool {
    let mut gathering = Gathering::default();
    let mut whole = false;
    while let Ok(message) = WatchTrustBundleResponse::decode_length_delimited(&mut bytes) {
        let epoch = message.epoch;
        match gathering.add(epoch, message.event) {
            Ok(Update::Snapshot(delta)) => {
                assert_eq!((delta.from, delta.to), (0, epoch));
                whole = true;
            }
            Ok(Update::Delta(delta)) => {
                assert!(delta.from <= delta.to && delta.to == epoch);
                whole = true;
            }
            Ok(Update::Nothing(epoch_of_it)) => assert_eq!(epoch_of_it, epoch),
            Ok(Update::Part) => {}
            Err(_) => return whole,
        }
        if bytes.is_empty() {
            break;
        }
    }
    whole
}

/// Streams of snapshots, deltas and heartbeats.
pub fn seeds() -> Vec<Vec<u8>> {
    let time = |seconds| Some(Timestamp { seconds, nanos: 1 });
    let content = TrustContent {
        jwks: KeySet::from_iter([SigningKey::from_seed(&[1; 32]).public().clone()]).to_jwks(),
        revoked_kids: vec!["0123456789abcdef".to_owned()],
        tokens: vec![RevokedToken { token_id: "one".to_owned(), until: time(1_800_000_000) }],
        clients: vec![RevokedClient {
            client_id: "order".to_owned(),
            before: time(1_800_000_000),
            until: time(1_800_090_000),
        }],
    };
    let rest = TrustContent { jwks: String::new(), ..content.clone() };
    let snapshot = |content: &TrustContent, last| {
        Event::Snapshot(TrustSnapshot { content: Some(content.clone()), last })
    };
    let delta =
        |last| Event::Delta(TrustDelta { from_epoch: 7, content: Some(content.clone()), last });
    let stream = |events: Vec<(u64, Event)>| {
        let messages = events.into_iter().map(|(epoch, event)| {
            let message =
                WatchTrustBundleResponse { epoch, event: Some(event), ..Default::default() };
            message.encode_length_delimited_to_vec()
        });
        messages.collect::<Vec<_>>().concat()
    };
    vec![
        stream(vec![(7, snapshot(&content, true)), (9, delta(true))]),
        stream(vec![(7, snapshot(&content, false)), (7, snapshot(&rest, true))]),
        stream(vec![(7, Event::Heartbeat(TrustHeartbeat {})), (8, delta(true))]),
    ]
}
