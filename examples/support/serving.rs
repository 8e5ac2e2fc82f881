//! What every server of the examples is told, so that it can stand behind any issuer.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use countersign_mesh::claims::{Audience, Issuer};
use countersign_mesh::guard::{Guard, ServicePolicy};
use countersign_mesh::session::{SessionError, trust_in};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// How long a server waits for the issuer's keys before it serves without them, and refuses.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub struct Serving {
    /// Where to listen; port 0 is a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Whose tokens are good: the `iss` in them
    #[arg(long, value_name = "URL")]
    issuer: Issuer,
    /// Where the issuer's public keys are
    #[arg(long, value_name = "URL")]
    jwks_url: String,
    /// What this server is called in tokens: the `aud` in them
    #[arg(long, value_name = "NAME")]
    audience: Audience,
}

impl Serving {
    /// A guard for the gRPC services of these policies, and for HTTP routes with `guard.require(..)`.
    /// It verifies tokens by itself: all that it fetches are the issuer's keys.
    pub async fn guard(&self, services: &[ServicePolicy]) -> Result<Guard, SessionError> {
        let mut trust = trust_in(self.issuer.clone(), &self.jwks_url)?;
        // Wait for the keys first: whoever reads that we listen may call at once, and without keys we
        // refuse everyone with 503.
        while trust.bundle().is_none() {
            if timeout(LONGEST_WAIT, trust.changed()).await.is_err() {
                break;
            }
        }
        let guard = Guard::builder(trust)
            .services_as(&self.audience, services)
            .public_service("grpc.health.v1.Health")
            .build();
        Ok(guard.for_audience(self.audience.clone()))
    }

    /// Listens, and says where in one line on stdout.
    pub async fn listener(&self) -> io::Result<TcpListener> {
        let listener = TcpListener::bind(self.listen).await?;
        writeln!(io::stdout(), "listening on http://{}", listener.local_addr()?)?;
        Ok(listener)
    }
}
