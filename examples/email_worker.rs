//! A background worker: it drains a queue, and has Notification send what is in it. It authenticates as
//! itself and runs for months, while the token service and Notification are restarted: a token at hand
//! stays good without the token service, and a message leaves the queue only when Notification has it.
//!
//! ```text
//! countersign client create email-worker --credentials countersign-dev/operator.toml \
//!     --grant notification=messages:send --out email-worker.toml
//! cargo run --example email_worker -- --credentials email-worker.toml \
//!     --notification http://127.0.0.1:8084 --queue /var/spool/shop
//! ```
//!
//! The queue is a directory. Each file is a message, and they are taken in the order of their names. A
//! producer writes a message under a name that begins with a dot and then renames it. A message whose
//! receipt was lost on the way is sent again: delivery is at least once, as in every queue that loses
//! nothing. Notification is `notification_service.rs`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};

use clap::Parser;
use countersign_mesh::claims::Audience;
use countersign_mesh::session::Authenticated;
use tokio::time::sleep;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::backoff::Backoff;
use crate::calling::Calling;
use crate::log::Failure;
use crate::pb::notification_service_client::NotificationServiceClient;

#[path = "support/backoff.rs"]
mod backoff;
#[path = "support/calling.rs"]
mod calling;
#[path = "support/log.rs"]
mod log;
mod pb {
    #![allow(dead_code, reason = "the shop has more services than this one")]
    include!(concat!(env!("OUT_DIR"), "/examples/shop.v1.rs"));
}

/// How often an empty queue is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long a message may take.
const LONGEST_CALL: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    calling: Calling,
    /// Notification
    #[arg(long, value_name = "URL")]
    notification: String,
    /// What Notification is called in tokens
    #[arg(long, value_name = "NAME", default_value = "notification")]
    audience: Audience,
    /// The messages to send
    #[arg(long, value_name = "DIRECTORY")]
    queue: PathBuf,
    /// End when the queue is empty
    #[arg(long)]
    drain: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    log::run(work(Args::parse())).await
}

async fn work(args: Args) -> Result<(), Failure> {
    // Nothing connects yet: it does not matter who is up first.
    let session = args.calling.session()?.audience(args.audience.clone());
    let channel = session.channel(&args.notification)?;
    let notification = NotificationServiceClient::authenticated(channel, &session);
    loop {
        match first(&args.queue)
            .map_err(|error| format!("cannot read {}: {error}", args.queue.display()))?
        {
            Some(message) => deliver(&notification, &message).await?,
            None if args.drain => return Ok(()),
            None => sleep(LOOK_EVERY).await,
        }
    }
}

/// Sends one message, however long that takes, and removes it from the queue.
async fn deliver(
    notification: &NotificationServiceClient<Authenticated<Channel>>,
    path: &Path,
) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let text = fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let mut backoff = Backoff::new();
    loop {
        let mut request = Request::new(pb::NotifyRequest { text: text.clone() });
        request.set_timeout(LONGEST_CALL);
        match notification.clone().notify(request).await {
            Ok(_) => {
                fs::remove_file(path)
                    .map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
                tracing::info!(%name, "sent");
                return Ok(());
            }
            Err(status) if passes(status.code()) => {
                tracing::warn!(%name, code = ?status.code(), why = status.message(), "not yet; trying again");
                backoff.wait().await;
            }
            // The message stays where it is: an operator has to see to it first.
            Err(status) => {
                return Err(format!("{name}: {:?}: {}", status.code(), status.message()).into());
            }
        }
    }
}

/// Whether the failure may pass by itself.
fn passes(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Unknown
    )
}

/// The message that is next, if there is one.
fn first(queue: &Path) -> io::Result<Option<PathBuf>> {
    let mut messages = Vec::new();
    for entry in fs::read_dir(queue)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') && entry.path().is_file() {
            messages.push(entry.path());
        }
    }
    Ok(messages.into_iter().min())
}
