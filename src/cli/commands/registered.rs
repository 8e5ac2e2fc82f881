//! Clients as the server has them.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::cli::output;
use crate::rpc::client_service_client::ClientServiceClient;
use crate::rpc::{self, GetClientRequest};

/// Reads one client.
pub async fn read(client_id: String, connection: &Connection) -> Result<rpc::Client, Error> {
    read_at(client_id, connection).await.map(|(client, _)| client)
}

/// Reads one client, and when that was by the clock of the server.
pub async fn read_at(
    client_id: String,
    connection: &Connection,
) -> Result<(rpc::Client, SystemTime), Error> {
    let mut service = ClientServiceClient::new(connection.clone());
    let answer = service.get_client(GetClientRequest { client_id }).await;
    let (answer, now) = connection.answer_at(answer)?;
    Ok((answer.client.unwrap_or_default(), now))
}

/// When one of a client's credentials was used last.
pub fn last_use(client: &rpc::Client) -> Option<SystemTime> {
    let times = client.credentials.iter().filter_map(|credential| credential.last_use_time);
    let seconds = times.filter_map(|time| u64::try_from(time.seconds).ok()).max()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// What is lost with a client or its last credential.
pub struct Losing(String);

impl Losing {
    /// What is lost when this is done to the client.
    pub fn new(client: &rpc::Client, now: SystemTime, what: &str) -> Self {
        let count = |count: usize, one: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {one}s"),
        };
        let used = match last_use(client).and_then(|last| now.duration_since(last).ok()) {
            Some(ago) => format!("last used {} ago", output::span(ago.as_secs())),
            None => "never used".to_owned(),
        };
        let mut text = format!(
            "client {} {what}: {}, {used}",
            client.client_id,
            count(client.grants.len(), "grant")
        );
        if !client.serves.is_empty() {
            text.push_str(&format!(", serves {}", client.serves.join(" ")));
        }
        Self(text)
    }
}

impl fmt::Display for Losing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A span as a protobuf `Duration`.
pub fn proto_duration(span: Duration) -> Result<prost_types::Duration, Error> {
    prost_types::Duration::try_from(span).map_err(|_| {
        Error::usage(
            format!("{} is too long", humantime::format_duration(span)),
            "give a shorter one",
        )
    })
}
