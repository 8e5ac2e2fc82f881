//! Requests to the writer, and their outcomes.

use countersign_mesh::claims::ClientId;

use crate::store::audit::AuditEvent;
use crate::store::sqlite::error::StoreError;
use crate::store::state::Change;

/// A decision.
pub struct Decision<T> {
    /// The changes; there may be none.
    pub changes: Vec<Change>,
    /// The audit events that are written with them.
    pub events: Vec<AuditEvent>,
    /// What to answer once it is durable.
    pub answer: T,
}

/// Makes a request idempotent.
#[derive(Debug, Clone)]
pub struct RequestKey {
    /// Who asks.
    pub actor: ClientId,
    /// The id that the actor gave the request.
    pub id: String,
    /// A fingerprint of the request's content.
    pub fingerprint: [u8; 32],
}

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed<T> {
    /// It was done now.
    Now(T),
    /// It had been done before, with this answer.
    Before(T),
}

impl<T> Committed<T> {
    /// The answer, from now or from before.
    pub fn into_answer(self) -> T {
        match self {
            Self::Now(answer) | Self::Before(answer) => answer,
        }
    }
}

/// Why a change was not made. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitError<E> {
    /// It was decided against.
    Refused(E),
    /// The store cannot do it.
    Store(StoreError),
}

/// Why a change that a request with an id asked for was not made. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError<E> {
    /// It was decided against.
    Refused(E),
    /// The actor has used the request's id for another request.
    RequestIdReused,
    /// The store cannot do it.
    Store(StoreError),
}

impl<E> From<CommitError<E>> for RequestError<E> {
    fn from(error: CommitError<E>) -> Self {
        match error {
            CommitError::Refused(refusal) => Self::Refused(refusal),
            CommitError::Store(error) => Self::Store(error),
        }
    }
}

impl<E> From<StoreError> for CommitError<E> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl<E> From<StoreError> for RequestError<E> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
