//! `client`: registered clients.

use std::time::SystemTime;

use serde::Serialize;

use crate::cli::args::clients::{ClientCommand, CreateArgs, ListArgs, SecretArgs};
use crate::cli::commands::credential_info::{self, CredentialInfo};
use crate::cli::commands::registered::{self, proto_duration};
use crate::cli::commands::secrets::{self, Delivery};
use crate::cli::commands::{PAGE_SIZE, Server, credentials, update};
use crate::cli::confirm::Confirm;
use crate::cli::connection::{Connection, request_id};
use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::output::{self, Output, View};
use crate::rpc::client_service_client::ClientServiceClient;
use crate::rpc::{
    self, CreateClientRequest, DeleteClientRequest, Grant, ListClientsRequest, ResourceAlias,
    RevokeClientTokensRequest,
};

/// Runs a command about clients.
pub async fn run(
    command: ClientCommand,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        ClientCommand::Create(args) => create(args, server, output).await,
        ClientCommand::Credential(command) => credentials::run(command, server, output).await,
        ClientCommand::Secret(command) => secrets::run(command, server, output).await,
        ClientCommand::List(args) => {
            let is_asked_for = |client: &rpc::Client, now| is_asked_for(client, &args, now);
            list(&server.connect(output).await?, is_asked_for, output).await
        }
        ClientCommand::Show { id } => {
            let client = registered::read(id, &server.connect(output).await?).await?;
            output.show(&Client::from(client))
        }
        ClientCommand::Update(args) => {
            let client = update::update(args, server, output).await?;
            output.show(&Client::from(client))
        }
        ClientCommand::Delete { id, yes } => {
            let connection = server.connect(output).await?;
            let confirm = Confirm::unless(yes);
            if confirm == Confirm::Ask {
                let (client, now) = registered::read_at(id.clone(), &connection).await?;
                confirm.ask(&registered::Losing::new(&client, now, "is deleted"))?;
            }
            let request = DeleteClientRequest {
                client_id: id.clone(),
                etag: String::new(),
                request_id: request_id()?,
            };
            connection.answer(
                ClientServiceClient::new(connection.clone()).delete_client(request).await,
            )?;
            output.show(&Deleted { client_id: id })
        }
        ClientCommand::RevokeTokens { id } => {
            let connection = server.connect(output).await?;
            let request =
                RevokeClientTokensRequest { client_id: id.clone(), request_id: request_id()? };
            let answer = connection.answer(
                ClientServiceClient::new(connection.clone()).revoke_client_tokens(request).await,
            )?;
            let revoked_before = answer.revoked_before.as_ref().map(output::time);
            output.show(&TokensRevoked { client_id: id, revoked_before })
        }
    }
}

/// Registers a client and makes its first secret.
pub async fn create_with_secret(
    client: rpc::Client,
    secret: SecretArgs,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let delivery = Delivery::prepare(secret)?;
    let connection = server.connect(output).await?;
    let id = register(client, &connection).await?.client_id;
    delivery.create(&id, &connection, output).await.map_err(|error| {
        error.after(
            &format!("client {id} is created, but without a secret that works"),
            format!("run: countersign client credential add {id} --secret"),
        )
    })
}

async fn create(
    args: CreateArgs,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let client = rpc::Client {
        resources: update::resources(args.resources, &args.serves)?,
        client_id: args.id,
        description: args.description,
        grants: update::added(Vec::new(), args.grants),
        serves: args.serves,
        max_token_ttl: args.max_token_ttl.map(proto_duration).transpose()?,
        ..rpc::Client::default()
    };
    if args.no_secret {
        let client = register(client, &server.connect(output).await?).await?;
        return output.show(&Client::from(client));
    }
    create_with_secret(client, args.secret, server, output).await
}

async fn register(client: rpc::Client, connection: &Connection) -> Result<rpc::Client, Error> {
    let request = CreateClientRequest { client: Some(client), request_id: request_id()? };
    let answer = connection
        .answer(ClientServiceClient::new(connection.clone()).create_client(request).await)?;
    Ok(answer.client.unwrap_or_default())
}

/// Whether a client is one that `client list` was asked for, at a time of the server.
fn is_asked_for(client: &rpc::Client, args: &ListArgs, now: SystemTime) -> bool {
    let text = args.filter.as_ref().is_none_or(|text| {
        client.client_id.contains(text.as_str()) || client.description.contains(text.as_str())
    });
    let audience = args.audience.as_ref().is_none_or(|audience| {
        client.serves.contains(audience)
            || client.grants.iter().any(|grant| grant.audience == *audience)
    });
    let unused = args.unused.is_none_or(|span| {
        let last = registered::last_use(client).unwrap_or(SystemTime::UNIX_EPOCH);
        now.duration_since(last).is_ok_and(|since| since >= span)
    });
    text && audience && unused
}

/// Lists the clients of which `is_asked_for` is true, which is told the server's time.
pub async fn list(
    connection: &Connection,
    is_asked_for: impl Fn(&rpc::Client, SystemTime) -> bool,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let mut service = ClientServiceClient::new(connection.clone());
    let mut clients = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListClientsRequest { page_size: PAGE_SIZE, page_token };
        let (page, now) = connection.answer_at(service.list_clients(request).await)?;
        let asked_for = page.clients.into_iter().filter(|client| is_asked_for(client, now));
        clients.extend(asked_for.map(Client::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return output.show(&Clients { clients });
        }
    }
}

#[derive(Serialize)]
struct Clients {
    clients: Vec<Client>,
}

#[derive(Serialize)]
struct Client {
    client_id: String,
    description: String,
    grants: Vec<GrantInfo>,
    serves: Vec<String>,
    resources: Vec<ResourceInfo>,
    /// In seconds; none for the server's default.
    max_token_ttl: Option<u64>,
    disabled: bool,
    create_time: Option<String>,
    update_time: Option<String>,
    etag: String,
    credentials: Vec<CredentialInfo>,
}

#[derive(Serialize)]
struct GrantInfo {
    audience: String,
    scopes: Vec<String>,
}

#[derive(Serialize)]
struct ResourceInfo {
    uri: String,
    audience: String,
}

#[derive(Serialize)]
struct Deleted {
    client_id: String,
}

#[derive(Serialize)]
struct TokensRevoked {
    client_id: String,
    revoked_before: Option<String>,
}

impl From<rpc::Client> for Client {
    fn from(client: rpc::Client) -> Self {
        Self {
            max_token_ttl: output::seconds(client.max_token_ttl.as_ref()),
            create_time: client.create_time.as_ref().map(output::time),
            update_time: client.update_time.as_ref().map(output::time),
            client_id: client.client_id,
            description: client.description,
            grants: client
                .grants
                .into_iter()
                .map(|Grant { audience, scopes }| GrantInfo { audience, scopes })
                .collect(),
            serves: client.serves,
            resources: client
                .resources
                .into_iter()
                .map(|ResourceAlias { uri, audience }| ResourceInfo { uri, audience })
                .collect(),
            disabled: client.disabled,
            etag: client.etag,
            credentials: client.credentials.into_iter().map(CredentialInfo::from).collect(),
        }
    }
}

impl Client {
    fn state(&self) -> String {
        if self.disabled { "disabled" } else { "enabled" }.to_owned()
    }

    fn grants(&self) -> Vec<String> {
        self.grants
            .iter()
            .map(|grant| format!("{}={}", grant.audience, grant.scopes.join(",")))
            .collect()
    }
}

impl View for Clients {
    fn human(&self) -> String {
        let row = |client: &Client| {
            [
                client.client_id.clone(),
                client.state(),
                client.grants().join(" "),
                client.serves.join(" "),
                client.credentials.len().to_string(),
                client.description.clone(),
            ]
        };
        let rows: Vec<_> = self.clients.iter().map(row).collect();
        output::table(
            ["CLIENT ID", "STATE", "GRANTS", "SERVES", "CREDENTIALS", "DESCRIPTION"],
            &rows,
        )
    }
}

impl View for Client {
    fn human(&self) -> String {
        let time = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
        let mut text = output::fields([
            ("client", self.client_id.clone()),
            ("description", self.description.clone()),
            ("state", self.state()),
            ("grants", self.grants().join(" ")),
            ("serves", self.serves.join(" ")),
            (
                "max token ttl",
                self.max_token_ttl.map_or_else(|| "default".to_owned(), output::span),
            ),
            ("created", time(&self.create_time)),
            ("updated", time(&self.update_time)),
            ("etag", self.etag.clone()),
        ]);
        if !self.resources.is_empty() {
            let rows: Vec<_> = self
                .resources
                .iter()
                .map(|resource| [resource.uri.clone(), resource.audience.clone()])
                .collect();
            text.push('\n');
            text.push_str(&output::table(["RESOURCE", "AUDIENCE"], &rows));
        }
        if self.credentials.is_empty() {
            text.push_str(&format!(
                "\nIt has no credential and gets no tokens; run: countersign client credential add {} --secret\n",
                escape(&self.client_id)
            ));
        } else {
            text.push('\n');
            text.push_str(&credential_info::table(&self.credentials));
        }
        text
    }
}

impl View for Deleted {
    fn human(&self) -> String {
        format!("client {} is deleted, and its tokens are revoked\n", escape(&self.client_id))
    }
}

impl View for TokensRevoked {
    fn human(&self) -> String {
        let before = self.revoked_before.as_deref().unwrap_or("now");
        format!("tokens of client {} issued before {before} are revoked\n", escape(&self.client_id))
    }
}
