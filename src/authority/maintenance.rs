//! What is due now and then.

use std::convert::Infallible;
use std::sync::Arc;

use countersign_mesh::claims::Timestamp;

use crate::authority::Authority;
use crate::authority::retirement::{Idle, IdleSecret, idle};
use crate::client::{LastUse, StoredCertificate, StoredKey, StoredSecret};
use crate::store::{Change, CommitError, Decision, State, StoreError};

impl Authority {
    /// Expired keys and revocations go, uses of credentials and refusals are written down, idle secrets
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

    /// Writes down what is in memory only, with one more change. Says which secrets are idle.
    async fn write_down(
        &self,
        now: Timestamp,
        more: Option<Change>,
    ) -> Result<Vec<IdleSecret>, StoreError> {
        let refused = self.refusals.take(now);
        let events = refused.to_events(now);
        let retention = self.settings.audit_retention;
        let uses_known_since = self.uses_known_since;
        let decide = move |state: &State, _| {
            let audit_before = now.before(retention);
            let mut changes = vec![Change::Expire { now, audit_before }];
            changes.extend(state.ring.expire(now).map(|ring| Change::ReplaceRing(Arc::new(ring))));
            changes.extend(more);
            let (mut written, mut idle_secrets) = (Vec::new(), Vec::new());
            for (id, client) in state.clients.iter() {
                for secret in &client.secrets {
                    if let Some(at) = secret.last_use.unwritten() {
                        changes.push(Change::TouchSecret(id.clone(), secret.id, at));
                        written.push((Used::Secret(Arc::clone(secret)), at));
                    }
                    match idle(client, secret, uses_known_since, now) {
                        Idle::NotYet => {}
                        idle => idle_secrets.push(IdleSecret {
                            client: id.clone(),
                            id: secret.id,
                            idle,
                        }),
                    }
                }
                for key in &client.keys {
                    if let Some(at) = key.last_use.unwritten() {
                        changes.push(Change::TouchKey(id.clone(), key.key.kid().clone(), at));
                        written.push((Used::Key(Arc::clone(key)), at));
                    }
                }
                for certificate in &client.certificates {
                    if let Some(at) = certificate.last_use.unwritten() {
                        let name = certificate.name.clone();
                        changes.push(Change::TouchCertificate(id.clone(), name, at));
                        written.push((Used::Certificate(Arc::clone(certificate)), at));
                    }
                }
            }
            Ok::<_, Infallible>(Decision { changes, events, answer: (written, idle_secrets) })
        };
        let moment = self.reached.moment(now);
        match self.store.commit(decide).await {
            Ok((written, idle_secrets)) => {
                for (used, at) in written {
                    used.last_use().set_written(at);
                }
                self.reached.note(moment);
                Ok(idle_secrets)
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

/// A credential whose last use was written down.
enum Used {
    Secret(Arc<StoredSecret>),
    Key(Arc<StoredKey>),
    Certificate(Arc<StoredCertificate>),
}

impl Used {
    fn last_use(&self) -> &LastUse {
        match self {
            Self::Secret(secret) => &secret.last_use,
            Self::Key(key) => &key.last_use,
            Self::Certificate(certificate) => &certificate.last_use,
        }
    }
}
