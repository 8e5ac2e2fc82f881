//! Tokens for clients that are made with tonic's own constructors:
//! `InventoryClient::with_interceptor(channel, interceptor)`.

use std::sync::Arc;

use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::{GrpcMethod, Request, Status};

use crate::session::calls::outgoing::OutgoingPolicy;

/// Attaches the token that a call's method demands. It cannot wait: a call that comes before its token
/// fails with UNAVAILABLE; the token is then being fetched.
#[derive(Clone)]
pub struct AuthInterceptor(Arc<OutgoingPolicy>);

impl AuthInterceptor {
    pub(crate) fn new(policy: OutgoingPolicy) -> Self {
        Self(Arc::new(policy))
    }
}

impl Interceptor for AuthInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let method = request.extensions().get::<GrpcMethod<'static>>();
        let method = method
            .ok_or_else(|| Status::internal("the call does not say which method it is of"))?;
        let path = format!("/{}/{}", method.service(), method.method());
        if let Some(source) = self.0.source(&path)? {
            let token = source.at_hand().map_err(|error| source.status(error))?;
            let mut value = MetadataValue::try_from(token.header().as_bytes())
                .map_err(|_| Status::internal("a token is ASCII"))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}
