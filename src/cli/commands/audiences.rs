//! Whether anyone serves the audiences that grants name. A misspelt audience would be granted as readily as any.

use std::collections::BTreeSet;

use countersign_mesh::claims::COUNTERSIGN;

use crate::cli::args::clients::GrantArg;
use crate::cli::commands::PAGE_SIZE;
use crate::cli::connection::Connection;
use crate::cli::error::Error;
use crate::cli::nearest::nearest;
use crate::cli::output::Output;
use crate::rpc::ListClientsRequest;
use crate::rpc::client_service_client::ClientServiceClient;

/// Warns of audiences that nobody serves, or refuses them. `own` are those that the client itself serves.
///
/// # Errors
/// If `strict`, when nobody serves one of them, or the clients cannot be listed. Otherwise only when the warning cannot
/// be written: whoever may not list clients may grant all the same.
pub async fn check(
    grants: &[GrantArg],
    own: &[String],
    strict: bool,
    connection: &Connection,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let named = grants.iter().map(|grant| grant.audience.as_str());
    let named: BTreeSet<&str> =
        named.filter(|it| *it != COUNTERSIGN && !own.iter().any(|own| own == it)).collect();
    if named.is_empty() {
        return Ok(());
    }
    let served = match served(connection).await {
        Ok(served) => served,
        Err(error) if strict => return Err(error),
        Err(_) => return Ok(()),
    };
    let known: Vec<&str> = served.iter().chain(own).map(String::as_str).collect();
    for audience in named.into_iter().filter(|audience| !served.contains(*audience)) {
        let problem = format!("nobody serves audience {audience}");
        let meant = nearest(audience, &known).map(|near| format!("did you mean {near}?"));
        if strict {
            let next = meant.unwrap_or_else(|| "register its service first".to_owned());
            return Err(Error::failed(problem, format!("{next} Nothing was changed")));
        }
        let next = meant.unwrap_or_else(|| "register its service with --serves".to_owned());
        output.remark(&format!("{problem} yet; {next}"))?;
    }
    Ok(())
}

/// The audiences that some client serves.
async fn served(connection: &Connection) -> Result<BTreeSet<String>, Error> {
    let mut service = ClientServiceClient::new(connection.clone());
    let (mut served, mut page_token) = (BTreeSet::new(), String::new());
    loop {
        let request = ListClientsRequest { page_size: PAGE_SIZE, page_token };
        let page = connection.answer(service.list_clients(request).await)?;
        served.extend(page.clients.into_iter().flat_map(|client| client.serves));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(served);
        }
    }
}
