//! The shop's Notification: a gRPC server of its own, behind any issuer. `email_worker.rs` sends through
//! it, `health_check.rs` looks after it.
//!
//! ```text
//! cargo run --example notification_service -- --listen 127.0.0.1:8084 --audience notification \
//!     --issuer http://127.0.0.1:9443 --jwks-url http://127.0.0.1:9443/.well-known/jwks.json
//! ```
//!
//! What its methods demand stands in `proto/shop/v1/shop.proto`. In place of sending a message it prints
//! it, and who wanted it sent.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser;
use countersign_mesh::guard;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::log::Failure;
use crate::pb::notification_service_server::{NotificationService, NotificationServiceServer};
use crate::serving::Serving;

#[path = "support/log.rs"]
mod log;
mod pb {
    #![allow(dead_code, reason = "the shop has more services than this one")]
    include!(concat!(env!("OUT_DIR"), "/examples/shop.v1.rs"));
}
#[path = "support/serving.rs"]
mod serving;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    serving: Serving,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    log::run(serve(Args::parse())).await
}

async fn serve(Args { serving }: Args) -> Result<(), Failure> {
    let guard = serving.guard(pb::POLICIES).await?;
    let service = NotificationServiceServer::new(Notification::default());
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<NotificationServiceServer<Notification>>().await;
    Server::builder()
        .layer(guard)
        .add_service(health_service)
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(serving.listener().await?))
        .await?;
    Ok(())
}

#[derive(Default)]
struct Notification {
    sent: AtomicU32,
}

#[tonic::async_trait]
impl NotificationService for Notification {
    async fn notify(
        &self,
        request: Request<pb::NotifyRequest>,
    ) -> Result<Response<pb::NotifyResponse>, Status> {
        let caller = guard::caller(request.extensions())
            .ok_or_else(|| Status::internal("Notify is not public"))?;
        let caller = caller.claims().client_id.to_string();
        writeln!(std::io::stdout(), "from {caller}: {}", request.into_inner().text)
            .map_err(|_| Status::unavailable("messages cannot go out"))?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(pb::NotifyResponse { caller }))
    }

    async fn check(
        &self,
        _: Request<pb::CheckRequest>,
    ) -> Result<Response<pb::CheckResponse>, Status> {
        Ok(Response::new(pb::CheckResponse { sent: self.sent.load(Ordering::Relaxed) }))
    }
}
