//! An attempt of a client to prove who it is: the same over gRPC and over HTTP.
//!
//! Throttled before any work, then believed or not, then noted: a failure for the limits, a name for the
//! log.

use std::net::IpAddr;

use countersign_mesh::claims::ClientId;

use crate::authority::{IssueError, IssuedToken, Proven};
use crate::client::{NotAuthenticated, PresentedCredential};
use crate::policy::TokenRequest;
use crate::server::desk::Desk;
use crate::server::limits::Throttled;
use crate::server::notes::{Denied, RequestNotes};

/// Who a client says it is, what it proves that with, and where it comes from.
pub(super) struct Attempt<'a> {
    pub(super) client_id: ClientId,
    pub(super) credential: PresentedCredential<'a>,
    /// Address and port, for the audit.
    pub(super) peer: &'a str,
    /// The address alone, for the limits.
    pub(super) origin: Option<IpAddr>,
    pub(super) notes: &'a RequestNotes,
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// Too many have failed before, or the client gets too many tokens.
    Throttled(Throttled),
    /// The client is not believed, or gets no token.
    Issue(IssueError),
}

impl From<Throttled> for Failed {
    fn from(throttled: Throttled) -> Self {
        Self::Throttled(throttled)
    }
}

impl From<IssueError> for Failed {
    fn from(error: IssueError) -> Self {
        Self::Issue(error)
    }
}

impl Attempt<'_> {
    /// Believes a client that wants something else than a token.
    ///
    /// # Errors
    /// When too many attempts have failed, or this one does.
    pub(super) fn authenticate(self, desk: &Desk) -> Result<Proven, Failed> {
        self.prove(desk, "client.authenticate")
    }

    /// Issues a token. The limit of tokens a client counts what policy grants, and is looked at before
    /// anything is signed.
    ///
    /// # Errors
    /// When too many attempts have failed, this one does, the client is not granted what it asks for, it
    /// gets too many tokens, or nothing can be signed.
    pub(super) async fn issue(
        self,
        desk: &Desk,
        request: &TokenRequest,
    ) -> Result<IssuedToken, Failed> {
        let notes = self.notes;
        let proven = self.prove(desk, "token.issue")?;
        let granted = desk.authority.decide(proven, request).map_err(|denial| {
            if let Some(audience) = &request.audience {
                let _ = notes.audience.set(audience.clone());
            }
            let _ = notes.denied.set(Denied::new(request, &denial));
            IssueError::Denied(denial)
        })?;
        let now = desk.clock.now();
        desk.limits.take_token(granted.grant().client_id(), now)?;
        let issued = desk.authority.sign(&granted, now).await?;
        // Noted once: the notes are this request's own.
        let _ = notes.audience.set(issued.claims.audience.clone());
        Ok(issued)
    }

    fn prove(self, desk: &Desk, action: &'static str) -> Result<Proven, Failed> {
        let Self { client_id, credential, peer, origin, notes } = self;
        let now = desk.clock.now();
        desk.limits.check_failures(origin, client_id.as_str(), now)?;
        let proven = desk.authority.authenticate(action, &client_id, credential, peer, now);
        let proven = proven.map_err(IssueError::from);
        if let Err(IssueError::ClientRejected(_)) = &proven {
            desk.limits.note_failure(origin, client_id.as_str(), now);
        }
        // An id that no client has may be a secret in the wrong place, so the log does not get it.
        if !matches!(&proven, Err(IssueError::ClientRejected(NotAuthenticated::UnknownClient))) {
            let _ = notes.client.set(client_id);
        }
        Ok(proven?)
    }
}
