//! `operator`: clients that hold an administrative scope.

use countersign_mesh::claims::COUNTERSIGN;

use crate::cli::args::admin::OperatorArgs;
use crate::cli::commands::{Server, clients};
use crate::cli::error::Error;
use crate::cli::output::Output;
use crate::rpc::{Client, Grant};

/// Lists the operators.
pub async fn list(server: &Server<'_>, output: &mut Output<'_>) -> Result<(), Error> {
    let connection = server.connect(output).await?;
    let is_operator =
        |client: &Client, _| client.grants.iter().any(|grant| grant.audience == COUNTERSIGN);
    clients::list(&connection, is_operator, output).await
}

/// Registers an operator and makes its first secret.
pub async fn create(
    args: OperatorArgs,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let scopes = match args.scopes.as_slice() {
        [] => ADMINISTRATIVE.map(str::to_owned).to_vec(),
        given => given.to_vec(),
    };
    let operator = Client {
        client_id: args.id,
        grants: vec![Grant { audience: COUNTERSIGN.to_owned(), scopes }],
        ..Client::default()
    };
    clients::create_with_secret(operator, args.secret, server, output).await
}

/// The scopes that make a client an operator, all of them.
const ADMINISTRATIVE: [&str; 7] = [
    "keys:read",
    "keys:rotate",
    "clients:read",
    "clients:write",
    "operators:write",
    "tokens:revoke",
    "audit:read",
];
