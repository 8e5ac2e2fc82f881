//! Client authentication against the latest state; each failure is noted for the audit log.

use countersign_mesh::claims::{ClientId, Timestamp};

use crate::authority::refusals::{RefusalNote, Sort};
use crate::authority::{Authority, IssueError, Proven};
use crate::client::{AuthenticationError, NotAuthenticated, PresentedCredential, authenticate};

impl Authority {
    /// Authenticates a client. `action` is what the audit log calls the act that the client wants. An assertion
    /// that is accepted is used up.
    ///
    /// # Errors
    /// See [`AuthenticationError`].
    pub fn authenticate(
        &self,
        action: &'static str,
        client_id: &ClientId,
        presented: PresentedCredential<'_>,
        peer: &str,
        now: Timestamp,
    ) -> Result<Proven, AuthenticationError> {
        let snapshot = self.published.snapshot();
        let candidate = snapshot.state.clients.get(client_id);
        let client = authenticate(client_id, candidate, presented, &self.assertions, now)
            .inspect_err(|error| {
                if let AuthenticationError::Rejected(reason) = error {
                    self.note_rejected(action, client_id, *reason, peer);
                }
            })?;
        Ok(Proven { snapshot, client })
    }

    fn note_rejected(
        &self,
        action: &'static str,
        client_id: &ClientId,
        reason: NotAuthenticated,
        peer: &str,
    ) {
        // Computed in any case, so that an unknown client costs the same work as a known one.
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
        self.refusals.note(&RefusalNote {
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
