//! What operators do, in general: decided on the latest state, committed with its audit event.

use std::time::Duration;

use countersign_mesh::claims::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::authority::refusals::{RefusalNote, Sort};
use crate::authority::{Authority, Behind};
use crate::policy::{ChangeDenial, Operator};
use crate::ring::ClockBehind;
use crate::store::{AuditEvent, Change, Committed, Decision, RequestError, RequestKey, State};

/// An operator's act: who, from where, when, and as which request.
#[derive(Debug, Clone)]
pub struct Act {
    /// Who.
    pub operator: Operator,
    /// From where.
    pub peer: String,
    /// When it came. It counts from when it is decided, which may be later.
    pub now: Timestamp,
    /// Makes it idempotent.
    pub request: Option<RequestKey>,
}

/// Why an act was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Policy does not allow it.
    Denied(ChangeDenial),
    /// It takes this scope.
    ScopeMissing(&'static str),
    /// There is a client of this name already.
    ClientExists,
    /// There is no client of this name.
    NoSuchClient,
    /// The client has no credential of this name.
    NoSuchCredential,
    /// The client has this credential already.
    CredentialExists,
    /// The client has as many credentials of this kind as a client can have.
    TooManyCredentials,
    /// The client has changed since its etag was read.
    EtagStale,
    /// Nobody would be left who could administer operators.
    LastOperator,
    /// The ring has no such key.
    NoSuchKey,
    /// The key is revoked already.
    KeyRevoked,
    /// See [`ClockBehind`].
    ClockBehind(ClockBehind),
    /// The token is another client's.
    NotOwnToken,
    /// The client's tokens were cut off so often in the last seconds that new ones would be dated too
    /// far ahead.
    CutTooOften,
    /// Someone would refuse the tokens of the key that is to sign.
    VerifiersBehind(Behind),
    /// So many keys still verify that no verifier would read one more.
    TooManyKeys,
    /// The store is an old copy that was put back.
    PutBack,
    /// Tokens were dated later than the clock says now, by so much.
    DatedAhead(Duration),
}

impl Refusal {
    /// The reason in one word, as it stands in `ErrorInfo.reason` and in the audit log.
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

/// Why an act came to nothing. Nothing was changed.
pub type ActError = RequestError<Refusal>;

/// What an act does to the state, and what it answers.
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
    /// Decides on an operator's act, see [`Authority::act_as`].
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

    /// Decides on an act and commits it with its audit event, which `decide` may say more in. An act
    /// without changes leaves no event.
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
        committed.inspect_err(|error| {
            if let ActError::Refused(refusal) = error {
                self.note_refusal(actor, action, target, refusal);
            }
        })
    }

    /// Refuses an act before it gets to the store.
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
        // A name that nothing here has may be a misplaced secret.
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
