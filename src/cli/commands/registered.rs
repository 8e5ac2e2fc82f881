//! Clients as the server has them.

use std::time::Duration;

use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::rpc::client_service_client::ClientServiceClient;
use crate::rpc::{self, GetClientRequest};

/// Reads one client.
pub async fn read(client_id: String, connection: &Connection) -> Result<rpc::Client, Error> {
    let mut service = ClientServiceClient::new(connection.clone());
    let answer = connection.answer(service.get_client(GetClientRequest { client_id }).await)?;
    Ok(answer.client.unwrap_or_default())
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
