//! What changed, cut into messages of a size that passes everywhere.

use std::sync::Arc;

use countersign_mesh::trust::TrustDelta;

use crate::rpc;
use crate::rpc::watch_trust_bundle_response::Event;
use crate::server::fields::wire_time;

/// How many revocations go into a part: some 20 KiB.
const PART: usize = 500;

/// A delta or a snapshot that is being sent, a part at a time. The parts are cut from one shared value, so that a
/// hundred slow readers of a large one cost little more than one.
pub(super) struct Chunks {
    delta: Arc<TrustDelta>,
    /// How many parts have been taken.
    taken: usize,
}

impl Chunks {
    /// What changed since epoch 0 is a snapshot.
    pub(super) fn new(delta: Arc<TrustDelta>) -> Self {
        Self { delta, taken: 0 }
    }

    /// The epoch that it leads to.
    pub(super) fn epoch(&self) -> u64 {
        self.delta.to
    }

    /// How many parts there are altogether.
    pub(super) fn count(&self) -> usize {
        (self.delta.tokens.len() + self.delta.clients.len()).div_ceil(PART).max(1)
    }

    /// The next part, and whether it is the last.
    pub(super) fn next(&mut self) -> (Event, bool) {
        let TrustDelta { from, to: _, keys, revoked_keys, tokens, clients } = &*self.delta;
        let skipped = self.taken * PART;
        let tokens: Vec<_> = tokens
            .iter()
            .skip(skipped)
            .take(PART)
            .map(|(id, until)| rpc::RevokedToken {
                token_id: id.to_string(),
                until: Some(wire_time(*until)),
            })
            .collect();
        let clients = clients
            .iter()
            .skip(skipped.saturating_sub(self.delta.tokens.len()))
            .take(PART - tokens.len())
            .map(|(id, before, until)| rpc::RevokedClient {
                client_id: id.to_string(),
                before: Some(wire_time(*before)),
                until: Some(wire_time(*until)),
            })
            .collect();
        let mut content = rpc::TrustContent { tokens, clients, ..Default::default() };
        if self.taken == 0 {
            content.jwks = keys.to_jwks();
            content.revoked_kids = revoked_keys.iter().map(ToString::to_string).collect();
        }
        self.taken += 1;
        let last = self.taken == self.count();
        let content = Some(content);
        let event = match *from {
            0 => Event::Snapshot(rpc::TrustSnapshot { content, last }),
            from_epoch => Event::Delta(rpc::TrustDelta { from_epoch, content, last }),
        };
        (event, last)
    }
}

#[cfg(test)]
mod tests {
    use countersign_mesh::claims::{ClientId, Timestamp, TokenId};
    use countersign_mesh::keys::{KeySet, SigningKey};

    use super::*;

    #[test]
    fn every_revocation_is_in_one_part_and_the_keys_are_in_the_first() {
        let at = Timestamp::from_unix(1);
        for (tokens, clients, count) in
            [(0, 0, 1), (PART, 0, 1), (PART - 1, 2, 2), (PART, PART, 2), (PART + 3, PART, 3)]
        {
            let token = |n| (TokenId::new(&format!("t{n}")).expect("an id"), at);
            let client = |n| (ClientId::new(&format!("c{n}")).expect("an id"), at, at);
            let delta = TrustDelta {
                from: 0,
                to: 7,
                keys: KeySet::from_iter([SigningKey::from_seed(&[1; 32]).public().clone()]),
                revoked_keys: Vec::new(),
                tokens: (0..tokens).map(token).collect(),
                clients: (0..clients).map(client).collect(),
            };
            let mut parts = Chunks::new(Arc::new(delta));
            assert_eq!((parts.count(), parts.epoch()), (count, 7));
            let (mut ids, mut taken) = (Vec::new(), 0);
            loop {
                let (Event::Snapshot(part), last) = parts.next() else { panic!("a snapshot") };
                let content = part.content.expect("it has some");
                assert_eq!((content.jwks.is_empty(), part.last), (taken > 0, last));
                assert!(content.tokens.len() + content.clients.len() <= PART);
                ids.extend(content.tokens.into_iter().map(|token| token.token_id));
                ids.extend(content.clients.into_iter().map(|client| client.client_id));
                taken += 1;
                if last {
                    break;
                }
            }
            let expected = (0..tokens).map(|n| format!("t{n}"));
            let expected: Vec<_> = expected.chain((0..clients).map(|n| format!("c{n}"))).collect();
            assert_eq!((ids, taken), (expected, count));
        }
    }
}
