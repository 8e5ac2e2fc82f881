//! The caller's deadline.
//!
//! tonic enforces it too, around all of our layers: there a refusal gets no reason, and the log no line. We enforce
//! it inside of them, where it passes first.

use std::future::Future;

use countersign_mesh::internals::grpc_timeout;
use http::{HeaderMap, Response};
use tokio::time::Sleep;
use tonic::Status;

use crate::server::http::is_grpc;

/// When the caller stops waiting (`grpc-timeout`), counted from now. tonic begins to count once the outermost layer
/// has been called, so that this must be called before. A malformed header counts as none, as it does for tonic. So
/// does one on plain HTTP: its callers cannot read a gRPC status.
pub(super) fn deadline(headers: &HeaderMap) -> Option<Sleep> {
    let waits = grpc_timeout(headers).filter(|_| is_grpc(headers));
    waits.map(tokio::time::sleep)
}

/// Answers a call when its deadline passes, finished or not. A change that the call has begun may still be made.
pub(super) async fn keep<B: Default, E>(
    deadline: Option<Sleep>,
    call: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<B>, E> {
    let Some(deadline) = deadline else { return call.await };
    tokio::select! {
        biased;
        answer = call => answer,
        () = deadline => {
            Ok(Status::deadline_exceeded("the call took longer than its caller waits").into_http())
        }
    }
}
