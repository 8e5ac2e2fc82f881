//! The recurring work: it writes down what is only in memory, and removes what has expired.

use std::convert::Infallible;
use std::sync::Arc;

use countersign_mesh::claims::Timestamp;

use crate::authority::Authority;
use crate::authority::retirement::{Idle, IdleCredential, idle};
use crate::store::{Change, CommitError, Decision, State, StoreError};

impl Authority {
    /// Does the recurring work. Call it about once a minute, and before the process ends.
    ///
    /// It removes expired keys, revocations and audit events, writes down uses of credentials and refusals, and
    /// retires idle credentials. Since it reaches the store, it also renews the signing lease.
    ///
    /// # Errors
    /// When the store cannot be written. What was to be written is kept for the next call.
    pub async fn maintain(&self, now: Timestamp) -> Result<(), StoreError> {
        let idle = self.write_down(now, None).await?;
        self.retire(idle, now).await
    }

    /// Does the last maintenance. Call it once nobody can authenticate any more. After it the store has every
    /// use of a credential, and a note that it has.
    ///
    /// # Errors
    /// When the store cannot be written. The next start then treats this stop as a crash: it counts idle time
    /// from that start, since uses may be missing.
    pub async fn close(&self, now: Timestamp) -> Result<(), StoreError> {
        let stop = Change::StopInOrder { uses_known_since: self.uses_known_since };
        self.write_down(now, Some(stop)).await.map(drop)
    }

    /// Writes down what is only in memory, along with `more`. Returns the credentials that are idle.
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
        // Taken before the commit: the lease counts from when the store was asked.
        let moment = self.reached.moment(now);
        match self.store.commit(decide).await {
            Ok((written, idle_ones)) => {
                // Only now are these uses durable. One that was noted meanwhile has a later time, and stays
                // unwritten.
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
