//! Who asks: a client that proves who it is with one of its credentials.

use countersign_mesh::claims::{ClientId, Timestamp};

use crate::authority::refusals::{Refused, Sort};
use crate::authority::{Authority, IssueError};
use crate::client::{
    AuthenticatedClient, AuthenticationError, NotAuthenticated, PresentedCredential, authenticate,
};
use crate::store::State;

impl Authority {
    /// Authenticates a client, for an act that takes no token of it: introspection or revocation over
    /// HTTP. [`issue`](Authority::issue) does the same. An assertion is used up by it.
    ///
    /// # Errors
    /// See [`AuthenticationError`].
    pub fn authenticate(
        &self,
        client_id: &ClientId,
        presented: PresentedCredential<'_>,
        peer: &str,
        now: Timestamp,
    ) -> Result<AuthenticatedClient, AuthenticationError> {
        let snapshot = self.published.snapshot();
        self.authenticate_in(
            &snapshot.state,
            "client.authenticate",
            client_id,
            presented,
            peer,
            now,
        )
    }

    /// Authenticates a client as of one state, for an act as the audit log calls it.
    pub(super) fn authenticate_in(
        &self,
        state: &State,
        action: &'static str,
        client_id: &ClientId,
        presented: PresentedCredential<'_>,
        peer: &str,
        now: Timestamp,
    ) -> Result<AuthenticatedClient, AuthenticationError> {
        let candidate = state.clients.get(client_id);
        authenticate(client_id, candidate, presented, &self.assertions, now).inspect_err(|error| {
            if let AuthenticationError::Rejected(reason) = error {
                self.note_rejected(action, client_id, *reason, peer);
            }
        })
    }

    fn note_rejected(
        &self,
        action: &'static str,
        client_id: &ClientId,
        reason: NotAuthenticated,
        peer: &str,
    ) {
        // Made in any case, so that an unknown client costs the same work as a known one.
        let pseudonym = self.store.pseudonym(client_id.as_str());
        let (sort, actor) = match reason {
            NotAuthenticated::UnknownClient => (Sort::Unknown, pseudonym.as_str()),
            NotAuthenticated::Disabled
            | NotAuthenticated::WrongSecret
            | NotAuthenticated::ExpiredSecret
            | NotAuthenticated::BadAssertion
            | NotAuthenticated::AssertionAudience
            | NotAuthenticated::AssertionTime
            | NotAuthenticated::WrongKey
            | NotAuthenticated::ExpiredKey
            | NotAuthenticated::AssertionUsed
            | NotAuthenticated::WrongCertificate
            | NotAuthenticated::ExpiredCertificate => (Sort::Client, client_id.as_str()),
        };
        self.refusals.note(&Refused {
            sort,
            actor,
            action,
            target: "",
            reason: reason.as_str(),
            peer,
        });
    }
}

impl From<AuthenticationError> for IssueError {
    fn from(error: AuthenticationError) -> Self {
        match error {
            AuthenticationError::Rejected(reason) => Self::ClientRejected(reason),
            AuthenticationError::CannotRemember => Self::CannotRemember,
        }
    }
}
