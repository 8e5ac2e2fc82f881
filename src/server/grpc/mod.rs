//! Countersign's own services. Each method: message → values → authority → message.

mod audit;
mod clients;
mod credentials;
mod keys;
mod tokens;
mod trust;
mod trust_parts;
mod trust_session;

pub(super) use self::audit::Audit;
pub(super) use self::clients::Clients;
pub(super) use self::keys::Keys;
pub(super) use self::tokens::Tokens;
pub(super) use self::trust::TrustStreams;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use countersign_mesh::claims::Clock;
use countersign_mesh::token::VerifiedToken;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Response, Status};

use crate::authority::{Act, Authority};
use crate::client::CertificateNames;
use crate::policy::Operator;
use crate::server::errors::CallError;
use crate::server::fields::{InvalidField, request_id};
use crate::server::limits::Limits;
use crate::server::request_log::RequestNotes;
use crate::store::RequestKey;

/// What every service works with.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) authority: Arc<Authority>,
    pub(super) clock: Clock,
    pub(super) limits: Arc<Limits>,
}

/// A request taken apart.
struct Call<M> {
    message: M,
    peer: String,
    /// The address alone.
    origin: Option<IpAddr>,
    /// The caller's token. The guard puts it there for every method that demands one.
    token: Option<Arc<VerifiedToken>>,
    /// The names in the client certificate of the connection, if it has one.
    certificate: Option<Arc<CertificateNames>>,
    notes: Arc<RequestNotes>,
}

impl<M> Call<M> {
    fn new(request: Request<M>) -> Self {
        let (_, extensions, message) = request.into_parts();
        let peer: Option<SocketAddr> =
            extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let token = extensions.get::<Arc<VerifiedToken>>().cloned();
        let certificate = extensions.get::<Arc<CertificateNames>>().cloned();
        let notes = extensions.get::<Arc<RequestNotes>>().cloned().unwrap_or_default();
        if let Some(token) = &token {
            // Noted once: the extensions are this request's own.
            let _ = notes.client.set(token.claims().client_id.clone());
        }
        let origin = peer.map(|peer| peer.ip());
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        Self { message, peer, origin, token, certificate, notes }
    }

    fn token(&self) -> &VerifiedToken {
        self.token.as_deref().expect("the guard admits no call of this method without a token")
    }
}

impl<M: Message> Call<M> {
    /// The operator's act that this call is. The same id makes it the same request only with the
    /// same method and the same content.
    fn act(&self, desk: &Desk, path: &str, id: &str) -> Result<Act, InvalidField> {
        let operator = Operator::bearing(self.token());
        let request = request_id(id)?.map(|id| RequestKey {
            actor: operator.client_id().clone(),
            id: id.to_owned(),
            fingerprint: Sha256::new()
                .chain_update(path)
                .chain_update(self.message.encode_to_vec())
                .finalize()
                .into(),
        });
        Ok(Act { operator, peer: self.peer.clone(), now: desk.clock.now(), request })
    }
}

/// Ends a call: notes why it failed, if it did.
fn end<R>(notes: &RequestNotes, result: Result<R, CallError>) -> Result<Response<R>, Status> {
    result.map(Response::new).map_err(|error| {
        let told = error.told();
        let _ = notes.failure.set((told.reason(), told.detail));
        error.to_status()
    })
}
