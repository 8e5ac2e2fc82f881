//! The frame of every change: it is decided on the latest state and committed with its audit event.

use std::time::Duration;

use countersign_mesh::claims::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::authority::refusals::{RefusalNote, Sort};
use crate::authority::{Authority, Behind};
use crate::policy::{ChangeDenial, Operator};
use crate::ring::ClockBehind;
use crate::store::{AuditEvent, Change, Committed, Decision, RequestError, RequestKey, State};

/// The context of an operator's act.
#[derive(Debug, Clone)]
pub struct Act {
    /// Who acts.
    pub operator: Operator,
    /// The peer's address, for the audit log.
    pub peer: String,
    /// When the request arrived. The act itself is dated by the writer when it decides, which may be later.
    pub now: Timestamp,
    /// The request's key, if repeating the request must have no further effect.
    pub request: Option<RequestKey>,
}

/// Why an act was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Policy does not allow it.
    Denied(ChangeDenial),
    /// The operator lacks this scope, which the act takes.
    ScopeMissing(&'static str),
    /// A client with this id exists already.
    ClientExists,
    /// No client has this id.
    NoSuchClient,
    /// The client has no credential with this id.
    NoSuchCredential,
    /// The client has this credential already.
    CredentialExists,
    /// The client already has the maximum number of credentials of this kind.
    TooManyCredentials,
    /// The client has changed since its etag was read.
    EtagStale,
    /// No client would be left that could administer operators.
    LastOperator,
    /// The ring has no key with this `kid`.
    NoSuchKey,
    /// The key is already revoked.
    KeyRevoked,
    /// See [`ClockBehind`].
    ClockBehind(ClockBehind),
    /// The token belongs to another client.
    NotOwnToken,
    /// The client's tokens were revoked so often in the last seconds that new ones would be dated too far
    /// ahead.
    CutTooOften,
    /// Some verifiers would refuse the tokens of the key that is to sign.
    VerifiersBehind(Behind),
    /// So many keys still verify that sessions could not read a key set with one more.
    TooManyKeys,
    /// The store is an old copy that was put back.
    PutBack,
    /// The clock was set back: tokens are dated this much later than it says now.
    DatedAhead(Duration),
}

impl Refusal {
    /// The reason as one word, for `ErrorInfo.reason` and the audit log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Denied(ChangeDenial::NeedsOperatorsWrite) | Self::ScopeMissing(_) => {
                "SCOPE_MISSING"
            }
            Self::Denied(ChangeDenial::LacksScope(_)) => "SCOPE_DENIED",
            Self::Denied(ChangeDenial::NoSuchScope(_)) => "SCOPE_UNKNOWN",
            Self::Denied(ChangeDenial::ServesCountersign | ChangeDenial::ResourceNotServed) => {
                "AUDIENCE_DENIED"
            }
            Self::ClientExists => "CLIENT_EXISTS",
            Self::NoSuchClient => "CLIENT_NOT_FOUND",
            Self::NoSuchCredential => "CREDENTIAL_NOT_FOUND",
            Self::CredentialExists => "CREDENTIAL_EXISTS",
            Self::TooManyCredentials => "CREDENTIAL_LIMIT",
            Self::EtagStale => "ETAG_STALE",
            Self::LastOperator => "LAST_OPERATOR",
            Self::NoSuchKey => "KEY_NOT_FOUND",
            Self::KeyRevoked => "KEY_REVOKED",
            Self::ClockBehind(_) | Self::DatedAhead(_) => "CLOCK_BEHIND",
            Self::NotOwnToken => "TOKEN_NOT_OWNED",
            Self::CutTooOften => "RATE_LIMITED",
            Self::VerifiersBehind(_) => "VERIFIERS_BEHIND",
            Self::TooManyKeys => "KEY_LIMIT",
            Self::PutBack => "STORE_PUT_BACK",
        }
    }
}

/// Why an act had no effect. Nothing was changed.
pub type ActError = RequestError<Refusal>;

/// What a decision returns: the changes to commit with the answer, or a refusal.
pub(super) type Outcome<T> = Result<(Vec<Change>, T), Refusal>;

/// Who acts, from where and when, for the audit log.
#[derive(Clone, Copy)]
pub(super) struct Actor<'a> {
    pub(super) name: &'a str,
    pub(super) peer: &'a str,
    pub(super) now: Timestamp,
}

impl Act {
    fn actor(&self) -> Actor<'_> {
        Actor { name: self.operator.client_id().as_str(), peer: &self.peer, now: self.now }
    }
}

impl Authority {
    /// Decides on an operator's act and commits it; see [`Authority::act_as`].
    pub(super) async fn act<T>(
        &self,
        act: Act,
        action: &'static str,
        target: &str,
        decide: impl FnOnce(&State, &mut AuditEvent, Timestamp) -> Outcome<T> + Send + 'static,
    ) -> Result<Committed<T>, ActError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        self.act_as(act.actor(), act.request.clone(), action, target, decide).await
    }

    /// Decides on an act and commits it with its audit event. `decide` runs in the store's writer, on the
    /// latest state, and may add to the event. An act without changes writes no event.
    pub(super) async fn act_as<T>(
        &self,
        actor: Actor<'_>,
        request: Option<RequestKey>,
        action: &'static str,
        target: &str,
        decide: impl FnOnce(&State, &mut AuditEvent, Timestamp) -> Outcome<T> + Send + 'static,
    ) -> Result<Committed<T>, ActError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
    {
        let mut event = AuditEvent {
            at: actor.now,
            actor: actor.name.to_owned(),
            action: action.to_owned(),
            target: target.to_owned(),
            outcome: "ok".to_owned(),
            peer: actor.peer.to_owned(),
            count: 1,
            detail: String::new(),
        };
        let decide = move |state: &State, now: Timestamp| {
            event.at = now;
            let (changes, answer) = decide(state, &mut event, now)?;
            let events = if changes.is_empty() { vec![] } else { vec![event] };
            Ok(Decision { changes, events, answer })
        };
        let committed = match request {
            Some(request) => self.store.commit_once(request, decide).await,
            None => self.store.commit(decide).await.map(Committed::Now).map_err(ActError::from),
        };
        // A refused decision commits nothing, not even an event. So refusals are counted in memory, and
        // maintenance writes them down.
        committed.inspect_err(|error| {
            if let ActError::Refused(refusal) = error {
                self.note_refusal(actor, action, target, refusal);
            }
        })
    }

    /// Refuses an act before it reaches the store.
    pub(super) fn refuse(
        &self,
        act: &Act,
        action: &'static str,
        target: &str,
        refusal: Refusal,
    ) -> ActError {
        self.note_refusal(act.actor(), action, target, &refusal);
        ActError::Refused(refusal)
    }

    fn note_refusal(
        &self,
        actor: Actor<'_>,
        action: &'static str,
        target: &str,
        refusal: &Refusal,
    ) {
        // A name that does not exist here may be a secret in the wrong place, so only its pseudonym is
        // logged.
        let pseudonym = match refusal {
            Refusal::NoSuchClient | Refusal::NoSuchKey => Some(self.store.pseudonym(target)),
            _ => None,
        };
        let target = pseudonym.as_deref().unwrap_or(target);
        self.refusals.note(&RefusalNote {
            sort: Sort::Act,
            actor: actor.name,
            action,
            target,
            reason: refusal.reason(),
            peer: actor.peer,
        });
    }
}
