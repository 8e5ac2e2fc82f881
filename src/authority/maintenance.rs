//! What is due now and then.

use std::convert::Infallible;
use std::sync::Arc;

use countersign_mesh::claims::Timestamp;

use crate::authority::Authority;
use crate::authority::retirement::{Idle, IdleCredential, idle};
use crate::store::{Change, CommitError, Decision, State, StoreError};

impl Authority {
    /// Expired keys and revocations go, uses of credentials and refusals are written down, idle credentials
    /// are retired, and the signing lease is renewed, since the store was there. Call it about once a
    /// minute, and before the end.
    ///
    /// # Errors
    /// When the store cannot be written; what was to be written is kept for the next time.
    pub async fn maintain(&self, now: Timestamp) -> Result<(), StoreError> {
        let idle = self.write_down(now, None).await?;
        self.retire(idle, now).await
    }

    /// The last maintenance, once nobody can authenticate any more: after it, the store has every use of a
    /// credential, and remembers that it has.
    ///
    /// # Errors
    /// When the store cannot be written. The next start takes this end for one that was not in order.
    pub async fn close(&self, now: Timestamp) -> Result<(), StoreError> {
        let stop = Change::StopInOrder { uses_known_since: self.uses_known_since };
        self.write_down(now, Some(stop)).await.map(drop)
    }

    /// Writes down what is in memory only, with one more change. Says which credentials are idle.
    async fn write_down(
        &self,
        now: Timestamp,
        more: Option<Change>,
    ) -> Result<Vec<IdleCredential>, StoreError> {
        let refused = self.refusals.take(now);
        let events = refused.to_events(now);
        let retention = self.settings.audit_retention;
        let uses_known_since = self.uses_known_since;
        let decide = move |state: &State, _| {
            let audit_before = now.before(retention);
            let mut changes = vec![Change::Expire { now, audit_before }];
            changes.extend(state.ring.expire(now).map(|ring| Change::ReplaceRing(Arc::new(ring))));
            changes.extend(more);
            let (mut written, mut idle_ones) = (Vec::new(), Vec::new());
            for (id, client) in state.clients.iter() {
                for credential in &client.credentials {
                    if let Some(at) = credential.last_use.unwritten() {
                        let (client, credential_id) = (id.clone(), credential.id.clone());
                        changes.push(Change::TouchCredential(client, credential_id, at));
                        written.push((Arc::clone(credential), at));
                    }
                    match idle(client, credential, uses_known_since, now) {
                        Idle::NotYet => {}
                        idle => {
                            let (client, id) = (id.clone(), credential.id.clone());
                            idle_ones.push(IdleCredential { client, id, idle });
                        }
                    }
                }
            }
            Ok::<_, Infallible>(Decision { changes, events, answer: (written, idle_ones) })
        };
        let moment = self.reached.moment(now);
        match self.store.commit(decide).await {
            Ok((written, idle_ones)) => {
                for (credential, at) in written {
                    credential.last_use.set_written(at);
                }
                self.reached.note(moment);
                Ok(idle_ones)
            }
            Err(error) => {
                self.refusals.put_back(refused);
                match error {
                    CommitError::Store(error) => Err(error),
                    CommitError::Refused(never) => match never {},
                }
            }
        }
    }
}
