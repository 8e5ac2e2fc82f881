//! What a caller passes to the writer, and what it gets back.

use countersign_mesh::claims::ClientId;

use crate::store::audit::AuditEvent;
use crate::store::sqlite::error::StoreError;
use crate::store::state::Change;

/// What a decision returns to the writer.
pub struct Decision<T> {
    /// The changes to make, in this order. There may be none.
    pub changes: Vec<Change>,
    /// The audit events to commit with the changes.
    pub events: Vec<AuditEvent>,
    /// The answer to return once the changes are durable.
    pub answer: T,
}

/// Identifies a request, so that sending it again has no further effect.
#[derive(Debug, Clone)]
pub struct RequestKey {
    /// The client that makes the request.
    pub actor: ClientId,
    /// The id that the actor gave the request.
    pub id: String,
    /// A fingerprint of the request's content. It shows when the id is used for another request.
    pub fingerprint: [u8; 32],
}

/// The answer to a request, and whether it was carried out now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed<T> {
    /// The request was carried out now.
    Now(T),
    /// The request had been carried out before, with this answer.
    Before(T),
}

impl<T> Committed<T> {
    /// The answer, whether it was given now or before.
    pub fn into_answer(self) -> T {
        match self {
            Self::Now(answer) | Self::Before(answer) => answer,
        }
    }
}

/// Why a change was not made. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitError<E> {
    /// The decision was to refuse.
    Refused(E),
    /// The store could not be read or written.
    Store(StoreError),
}

/// Why a change requested with a [`RequestKey`] was not made. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError<E> {
    /// The decision was to refuse.
    Refused(E),
    /// The actor used the same id for a request with other content.
    RequestIdReused,
    /// The store could not be read or written.
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
