//! The caller's deadline.
//!
//! tonic keeps it too, but around all of our layers, where a refusal gets no reason and the log no
//! line. So it is kept within them, and there first.

use std::future::Future;

use countersign_mesh::internals::grpc_timeout;
use http::{HeaderMap, Response};
use tokio::time::Sleep;
use tonic::Status;

use crate::server::http::is_grpc;

/// Ends when the caller waits no longer (`grpc-timeout`), counted from now: tonic begins to count
/// when the outermost layer has been called, so this must be before. A header that makes no sense is
/// none, as it is for tonic; so is one on plain HTTP, whose callers cannot read a gRPC status.
pub(super) fn deadline(headers: &HeaderMap) -> Option<Sleep> {
    let waits = grpc_timeout(headers).filter(|_| is_grpc(headers));
    waits.map(tokio::time::sleep)
}

/// Answers a call in any case when its deadline has passed. What it has begun to change may be
/// changed all the same.
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
