//! `client secret`, and how a new secret reaches whoever asked for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::cli::args::clients::{SecretArgs, SecretCommand};
use crate::cli::commands::Server;
use crate::cli::commands::clients::proto_duration;
use crate::cli::connection::{Connection, request_id};
use crate::cli::credentials::NewCredentialsFile;
use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::output::{self, Format, Output, View};
use crate::cli::secret::Secret;
use crate::rpc::client_service_client::ClientServiceClient;
use crate::rpc::{self, CreateClientSecretRequest, GetClientRequest, RevokeClientSecretRequest};

/// Makes, rotates, lists or revokes a client's secrets.
pub async fn run(
    command: SecretCommand,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        SecretCommand::Create { id, ttl, out } => {
            let delivery = Delivery::prepare(SecretArgs { ttl, out })?;
            let connection = server.connect().await?;
            delivery.create(&id, &connection, output).await
        }
        SecretCommand::Rotate { id, retire_when_idle, ttl, out } => {
            let delivery = Delivery::prepare(SecretArgs { ttl, out })?;
            let connection = server.connect().await?;
            delivery.rotate(&id, retire_when_idle, &connection, output).await
        }
        SecretCommand::List { id } => {
            let connection = server.connect().await?;
            let secrets = known(&id, &connection).await?;
            output.show(&Secrets { secrets: secrets.into_iter().map(SecretInfo::from).collect() })
        }
        SecretCommand::Revoke { id, secret_id, tokens } => {
            let connection = server.connect().await?;
            let mut service = ClientServiceClient::new(connection.clone());
            let request = RevokeClientSecretRequest {
                client_id: id.clone(),
                secret_id: secret_id.clone(),
                request_id: request_id()?,
                revoke_tokens: tokens,
            };
            connection.answer(service.revoke_client_secret(request).await)?;
            output.show(&Revoked { client_id: id, secret_id, tokens_revoked: tokens })
        }
    }
}

async fn known(client_id: &str, connection: &Connection) -> Result<Vec<rpc::ClientSecret>, Error> {
    let mut service = ClientServiceClient::new(connection.clone());
    let request = GetClientRequest { client_id: client_id.to_owned() };
    let answer = connection.answer(service.get_client(request).await)?;
    Ok(answer.client.unwrap_or_default().secrets)
}

/// Where a secret will go. Made before the secret is: it is shown only once.
pub struct Delivery {
    ttl: Option<Duration>,
    file: Option<(NewCredentialsFile, String)>,
}

impl Delivery {
    /// Creates the file that was asked for, if one was.
    pub fn prepare(args: SecretArgs) -> Result<Self, Error> {
        let file = match &args.out {
            Some(path) => Some((NewCredentialsFile::create(path)?, path.display().to_string())),
            None => None,
        };
        Ok(Self { ttl: args.ttl, file })
    }

    /// Makes a secret and delivers it.
    pub async fn create(
        self,
        client_id: &str,
        connection: &Connection,
        output: &mut Output<'_>,
    ) -> Result<(), Error> {
        self.make(client_id, None, None, connection, output).await
    }

    /// Makes a secret and delivers it, and says what becomes of those that the client has.
    async fn rotate(
        self,
        client_id: &str,
        retire_when_idle: Option<Duration>,
        connection: &Connection,
        output: &mut Output<'_>,
    ) -> Result<(), Error> {
        // Read before the new one is made: nothing may go wrong between that and its delivery.
        let mut older = known(client_id, connection).await?;
        older.retain(|secret| !has_expired(secret));
        let mut older: Vec<_> = older.into_iter().map(SecretInfo::from).collect();
        if let Some(span) = retire_when_idle {
            older.iter_mut().for_each(|secret| secret.retire_when_idle = Some(span.as_secs()));
        }
        let remarks: Vec<_> = older.iter().map(SecretInfo::prospect).collect();
        self.make(client_id, retire_when_idle, Some(older), connection, output).await?;
        if output.format() == Format::Human {
            remarks.iter().try_for_each(|remark| output.remark(remark))?;
        }
        Ok(())
    }

    async fn make(
        self,
        client_id: &str,
        retire_others_when_idle: Option<Duration>,
        older_secrets: Option<Vec<SecretInfo>>,
        connection: &Connection,
        output: &mut Output<'_>,
    ) -> Result<(), Error> {
        let mut service = ClientServiceClient::new(connection.clone());
        let request = CreateClientSecretRequest {
            client_id: client_id.to_owned(),
            ttl: self.ttl.map(proto_duration).transpose()?,
            request_id: request_id()?,
            retire_others_when_idle: retire_others_when_idle.map(proto_duration).transpose()?,
        };
        let answer = connection.answer(service.create_client_secret(request).await)?;
        let info = SecretInfo::from(answer.secret.unwrap_or_default());
        let secret = Secret::new(answer.client_secret);

        match self.file {
            Some((file, path)) => {
                file.write(connection.url(), client_id, &secret)
                    .map_err(|error| lost(error, client_id, &info.secret_id))?;
                output.show(&Written { client_id, file: &path, secret: info, older_secrets })
            }
            None => {
                let secret_id = info.secret_id.clone();
                show(client_id, &secret, info, older_secrets, output)
                    .map_err(|error| lost(error, client_id, &secret_id))
            }
        }
    }
}

fn show(
    client_id: &str,
    secret: &Secret,
    info: SecretInfo,
    older_secrets: Option<Vec<SecretInfo>>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    if output.format() == Format::Human {
        let expiry = info
            .expire_time
            .as_ref()
            .map_or_else(|| "no expiry".to_owned(), |time| format!("expires {time}"));
        output.remark(&format!(
            "secret {} of client {client_id} ({expiry}); it is not shown again",
            info.secret_id
        ))?;
    }
    let client_secret = secret.expose();
    output.show(&Shown { client_id, client_secret, secret: info, older_secrets })
}

/// The error that a secret was made but reached nobody, not even a reader that has left.
fn lost(error: Error, client_id: &str, secret_id: &str) -> Error {
    let why = match error {
        Error::Closed => "nobody reads the output".to_owned(),
        Error::Usage(advice)
        | Error::Failed(advice)
        | Error::Refused(advice)
        | Error::Unreachable(advice) => advice.problem,
    };
    Error::failed(
        format!("the new secret is lost: {why}"),
        format!("revoke it: countersign client secret revoke {client_id} {secret_id}"),
    )
}

/// What is known of a secret.
#[derive(Serialize)]
pub struct SecretInfo {
    secret_id: String,
    create_time: Option<String>,
    expire_time: Option<String>,
    last_use_time: Option<String>,
    retire_when_idle: Option<u64>,
}

impl From<rpc::ClientSecret> for SecretInfo {
    fn from(secret: rpc::ClientSecret) -> Self {
        Self {
            secret_id: secret.secret_id,
            create_time: secret.create_time.as_ref().map(output::time),
            expire_time: secret.expire_time.as_ref().map(output::time),
            last_use_time: secret.last_use_time.as_ref().map(output::time),
            retire_when_idle: output::seconds(secret.retire_when_idle.as_ref()),
        }
    }
}

impl SecretInfo {
    /// When it was last used, and what becomes of it after a rotation.
    fn prospect(&self) -> String {
        let used = match &self.last_use_time {
            Some(time) => format!("last used {time}"),
            None => "never used".to_owned(),
        };
        let prospect = match self.retire_when_idle.map(output::span) {
            Some(span) => {
                format!("revoked once nobody has used it for {span}, and somebody a newer one")
            }
            None => "goes on working; revoke it once nobody uses it".to_owned(),
        };
        format!("secret {} ({used}): {prospect}", self.secret_id)
    }
}

/// The server forgets such a secret as soon as there is a new one.
fn has_expired(secret: &rpc::ClientSecret) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    secret.expire_time.as_ref().is_some_and(|at| u64::try_from(at.seconds).unwrap_or(0) <= now)
}

/// A table of secrets.
pub fn table(secrets: &[SecretInfo]) -> String {
    let row = |secret: &SecretInfo| {
        let or = |time: &Option<String>, otherwise: &str| {
            time.clone().unwrap_or_else(|| otherwise.to_owned())
        };
        [
            secret.secret_id.clone(),
            or(&secret.create_time, "-"),
            or(&secret.expire_time, "never"),
            or(&secret.last_use_time, "never"),
            secret.retire_when_idle.map_or_else(|| "-".to_owned(), output::span),
        ]
    };
    output::table(
        ["SECRET ID", "CREATED", "EXPIRES", "LAST USED", "RETIRES WHEN IDLE FOR"],
        &secrets.iter().map(row).collect::<Vec<_>>(),
    )
}

#[derive(Serialize)]
struct Secrets {
    secrets: Vec<SecretInfo>,
}

impl View for Secrets {
    fn human(&self) -> String {
        table(&self.secrets)
    }
}

/// A new secret, shown this once.
#[derive(Serialize)]
struct Shown<'a> {
    client_id: &'a str,
    client_secret: &'a str,
    secret: SecretInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    older_secrets: Option<Vec<SecretInfo>>,
}

impl View for Shown<'_> {
    /// The secret alone, to be piped.
    fn human(&self) -> String {
        format!("{}\n", escape(self.client_secret))
    }
}

/// A new secret, written to a file.
#[derive(Serialize)]
struct Written<'a> {
    client_id: &'a str,
    file: &'a str,
    secret: SecretInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    older_secrets: Option<Vec<SecretInfo>>,
}

impl View for Written<'_> {
    fn human(&self) -> String {
        format!(
            "credentials of client {} written to {}\n",
            escape(self.client_id),
            escape(self.file)
        )
    }
}

#[derive(Serialize)]
struct Revoked {
    client_id: String,
    secret_id: String,
    tokens_revoked: bool,
}

impl View for Revoked {
    fn human(&self) -> String {
        let tokens = if self.tokens_revoked { ", and its tokens so far" } else { "" };
        format!(
            "secret {} of client {} is revoked{tokens}\n",
            escape(&self.secret_id),
            escape(&self.client_id)
        )
    }
}
