//! Countersign's own services. Each method: message → values → authority → message.

mod audit;
mod clients;
mod credentials;
mod keys;
mod tokens;
mod trust;
mod trust_chunks;
mod verifier_stream;
mod wire_client;

pub(super) use self::audit::Audit;
pub(super) use self::clients::Clients;
pub(super) use self::keys::Keys;
pub(super) use self::tokens::Tokens;
pub(super) use self::trust::TrustStreams;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use countersign_mesh::guard::Permitted;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Extensions, Request, Response, Status};

use crate::authority::Act;
use crate::client::CertificateNames;
use crate::policy::Operator;
use crate::server::desk::Desk;
use crate::server::errors::CallError;
use crate::server::fields::request_id;
use crate::server::notes::RequestNotes;
use crate::store::RequestKey;

/// A request taken apart. `C` is the proof that the guard permitted the call; a method that takes no token has `()`
/// in its place.
struct Call<M, C = Permitted> {
    message: M,
    peer: String,
    /// The address alone.
    origin: Option<IpAddr>,
    caller: C,
    /// The names in the client certificate of the connection, if it has one.
    certificate: Option<Arc<CertificateNames>>,
    notes: Arc<RequestNotes>,
}

impl<M> Call<M, ()> {
    /// A call of a method that takes no token.
    fn public(request: Request<M>) -> Self {
        Self::taken_apart(request, |_| ())
    }
}

impl<M> Call<M> {
    /// A call of a method that demands a token.
    ///
    /// # Errors
    /// When the guard did not permit it, because nobody put the service behind the guard.
    fn permitted(request: Request<M>) -> Result<Self, Status> {
        let call = Call::taken_apart(request, |extensions| extensions.remove::<Permitted>());
        let Call { message, peer, origin, caller, certificate, notes } = call;
        let Some(caller) = caller else {
            return Err(failed(&notes, &CallError::NotPermitted));
        };
        // Noted once: the extensions are this request's own.
        let _ = notes.client.set(caller.claims().client_id.clone());
        Ok(Self { message, peer, origin, caller, certificate, notes })
    }
}

impl<M, C> Call<M, C> {
    fn taken_apart(request: Request<M>, caller: impl FnOnce(&mut Extensions) -> C) -> Self {
        let (_, mut extensions, message) = request.into_parts();
        let peer: Option<SocketAddr> =
            extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        Self {
            message,
            peer: peer.map(|peer| peer.to_string()).unwrap_or_default(),
            origin: peer.map(|peer| peer.ip()),
            caller: caller(&mut extensions),
            certificate: extensions.get::<Arc<CertificateNames>>().cloned(),
            notes: extensions.get::<Arc<RequestNotes>>().cloned().unwrap_or_default(),
        }
    }
}

impl<M: Message> Call<M> {
    /// This call as an operator's act. A request id is the same request only with the same method and the same
    /// content.
    fn act(&self, desk: &Desk, path: &str, id: &str) -> Result<Act, CallError> {
        let operator = Operator::permitted(&self.caller).ok_or(CallError::NotPermitted)?;
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
    result.map(Response::new).map_err(|error| failed(notes, &error))
}

fn failed(notes: &RequestNotes, error: &CallError) -> Status {
    let told = error.told();
    let _ = notes.failure.set((told.reason(), told.detail));
    error.to_status()
}
