//! Clients as the server has them.

use std::time::{Duration, SystemTime};

use crate::cli::connection::Connection;
use crate::cli::error::Error;
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

/// A span as a protobuf `Duration`.
pub fn proto_duration(span: Duration) -> Result<prost_types::Duration, Error> {
    prost_types::Duration::try_from(span).map_err(|_| {
        Error::usage(
            format!("{} is too long", humantime::format_duration(span)),
            "give a shorter one",
        )
    })
}
