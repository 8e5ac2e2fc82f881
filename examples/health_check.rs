//! An automated checker: is a server up, and does it work? Anyone may ask whether it is up, so that
//! needs no token. Whether it works is shown by a call of the kind that everyone makes, with a token.
//!
//! ```text
//! countersign client create checker --credentials countersign-dev/operator.toml \
//!     --grant notification=messages:check --out checker.toml
//! cargo run --example health_check -- --grpc http://127.0.0.1:8084 --http http://127.0.0.1:8083/health/live
//! cargo run --example health_check -- --grpc http://127.0.0.1:8084 --deep --credentials checker.toml
//! ```
//!
//! One line for each check; ends with 0 when all is well, with 1 when something is not, and with 2 when
//! it was called wrongly.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use http_body_util::Full;
use tonic::Request;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::calling::Calling;
use crate::http_client::Http;
use crate::pb::notification_service_client::NotificationServiceClient;

#[path = "support/calling.rs"]
mod calling;
#[path = "support/http.rs"]
mod http_client;
mod pb {
    #![allow(dead_code, reason = "the shop has more services than this one")]
    include!(concat!(env!("OUT_DIR"), "/examples/shop.v1.rs"));
}

type Failure = Box<dyn Error + Send + Sync>;

/// How long a check may take: what takes longer does not work.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    calling: Calling,
    /// A gRPC server to ask with `grpc.health.v1`
    #[arg(long, value_name = "URL", required_unless_present = "http")]
    grpc: Option<String>,
    /// A page that is there while its server is up
    #[arg(long, value_name = "URL")]
    http: Option<String>,
    /// Also call Notification's `Check`, with a token
    #[arg(long, requires = "grpc")]
    deep: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut all_well = true;
    if let Some(url) = &args.http {
        all_well &= tell("http", url, page(url)).await;
    }
    if let Some(url) = &args.grpc {
        all_well &= tell("grpc", url, grpc(url)).await;
    }
    if let (Some(url), true) = (&args.grpc, args.deep) {
        all_well &= tell("deep", url, deep(&args.calling, url)).await;
    }
    if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Does one check, and writes what came of it.
async fn tell<T: Display>(
    what: &str,
    url: &str,
    check: impl Future<Output = Result<T, Failure>>,
) -> bool {
    let began = Instant::now();
    let outcome = tokio::time::timeout(LONGEST_WAIT, check).await;
    let took = began.elapsed().as_millis();
    let outcome = outcome.unwrap_or_else(|_| Err("no answer in time".into()));
    let line = match &outcome {
        Ok(told) => format!("ok      {what}  {url}  {told}, {took} ms"),
        Err(error) => format!("FAILED  {what}  {url}  {error}"),
    };
    // Whoever has closed our output still gets the exit code.
    let _ = writeln!(io::stdout(), "{line}");
    outcome.is_ok()
}

async fn page(url: &str) -> Result<String, Failure> {
    let request = http::Request::get(url).body(Full::<Bytes>::default())?;
    let answer = Http::new()?.send(request).await?;
    if !answer.status().is_success() {
        return Err(format!("answered {}", answer.status()).into());
    }
    Ok(answer.status().to_string())
}

async fn grpc(url: &str) -> Result<&'static str, Failure> {
    let channel = Endpoint::from_shared(url.to_owned())?.connect().await.map_err(innermost)?;
    // The whole server: the service without a name.
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    let answer = answer.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok("SERVING"),
        status => Err(status.as_str_name().into()),
    }
}

async fn deep(calling: &Calling, url: &str) -> Result<String, Failure> {
    let session = calling.session()?;
    let mut notification =
        NotificationServiceClient::authenticated(session.channel(url)?, &session);
    let mut request = Request::new(pb::CheckRequest {});
    // Shorter than our own timeout, so that the session's error, which names the cause, comes first.
    request.set_timeout(LONGEST_WAIT * 4 / 5);
    let answer = notification.check(request).await;
    let answer = answer.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
    Ok(format!("{} messages sent", answer.into_inner().sent))
}

/// The cause that names the trouble: "connection refused", not "transport error".
fn innermost(error: tonic::transport::Error) -> Failure {
    let mut cause: &dyn Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string().into()
}
