//! What changed, cut into messages of a size that passes everywhere.

use crate::claims::ClientId;
use crate::claims::Timestamp;
use crate::claims::TokenId;
use crate::rpc;
use crate::rpc::watch_trust_bundle_response::Event;
use crate::server::fields::wire_time;
use crate::trust::TrustDelta;

/// How many revocations go into a part: some 20 KiB.
const PART: usize = 500;

/// A delta, or a snapshot, on its way: a part at a time.
pub(super) struct Parts {
    from: u64,
    epoch: u64,
    /// In the first part.
    first: Option<rpc::TrustContent>,
    tokens: std::vec::IntoIter<(TokenId, Timestamp)>,
    clients: std::vec::IntoIter<(ClientId, Timestamp, Timestamp)>,
    count: usize,
}

impl Parts {
    /// What changed since epoch 0 is a snapshot.
    pub(super) fn new(delta: TrustDelta) -> Self {
        let TrustDelta { from, to, keys, revoked_keys, tokens, clients } = delta;
        let first = rpc::TrustContent {
            jwks: keys.to_jwks(),
            revoked_kids: revoked_keys.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let count = (tokens.len() + clients.len()).div_ceil(PART).max(1);
        Self {
            from,
            epoch: to,
            first: Some(first),
            tokens: tokens.into_iter(),
            clients: clients.into_iter(),
            count,
        }
    }

    /// The epoch that it leads to.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many parts there are altogether.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The next part, and whether it is the last.
    pub(super) fn next(&mut self) -> (Event, bool) {
        let tokens: Vec<_> = self
            .tokens
            .by_ref()
            .take(PART)
            .map(|(id, until)| rpc::RevokedToken {
                token_id: id.to_string(),
                until: Some(wire_time(until)),
            })
            .collect();
        let clients = self
            .clients
            .by_ref()
            .take(PART - tokens.len())
            .map(|(id, before, until)| rpc::RevokedClient {
                client_id: id.to_string(),
                before: Some(wire_time(before)),
                until: Some(wire_time(until)),
            })
            .collect();
        let content =
            rpc::TrustContent { tokens, clients, ..self.first.take().unwrap_or_default() };
        let last = self.tokens.len() == 0 && self.clients.len() == 0;
        let content = Some(content);
        let event = match self.from {
            0 => Event::Snapshot(rpc::TrustSnapshot { content, last }),
            from_epoch => Event::Delta(rpc::TrustDelta { from_epoch, content, last }),
        };
        (event, last)
    }
}
