//! `client secret rotate`, and how a new secret reaches whoever asked for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::cli::args::clients::SecretArgs;
use crate::cli::args::credentials::SecretCommand;
use crate::cli::commands::Server;
use crate::cli::commands::credential_info::CredentialInfo;
use crate::cli::commands::registered::{self, proto_duration};
use crate::cli::connection::{Connection, request_id};
use crate::cli::credentials::NewCredentialsFile;
use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::format::Format;
use crate::cli::output::{Output, View};
use crate::cli::secret::Secret;
use crate::rpc::client_credential::Kind as KnownKind;
use crate::rpc::client_service_client::ClientServiceClient;
use crate::rpc::create_client_credential_request::Kind as NewKind;
use crate::rpc::{self, CreateClientCredentialRequest};

/// Rotates a client's secret.
pub async fn run(
    command: SecretCommand,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let SecretCommand::Rotate { id, retire_when_idle, ttl, out } = command;
    let delivery = Delivery::prepare(SecretArgs { ttl, out })?;
    delivery.rotate(&id, retire_when_idle, &server.connect(output).await?, output).await
}

/// Where a secret will go. It is prepared before the server makes the secret, which is shown only once.
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

    /// Makes a secret and delivers it, and says what becomes of the client's other secrets.
    async fn rotate(
        self,
        client_id: &str,
        retire_when_idle: Option<Duration>,
        connection: &Connection,
        output: &mut Output<'_>,
    ) -> Result<(), Error> {
        // Read the older secrets before the new one is made: no call that can fail may stand between
        // making it and delivering it.
        let (client, now) = registered::read_at(client_id.to_owned(), connection).await?;
        let mut older = client.credentials;
        older.retain(|known| {
            matches!(known.kind, Some(KnownKind::Secret(_))) && !has_expired(known, now)
        });
        let mut older: Vec<_> = older.into_iter().map(CredentialInfo::from).collect();
        if let Some(span) = retire_when_idle {
            older.iter_mut().for_each(|secret| secret.retire_when_idle = Some(span.as_secs()));
        }
        let remarks: Vec<_> = older.iter().map(CredentialInfo::prospect).collect();
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
        older_credentials: Option<Vec<CredentialInfo>>,
        connection: &Connection,
        output: &mut Output<'_>,
    ) -> Result<(), Error> {
        let mut service = ClientServiceClient::new(connection.clone());
        let request = CreateClientCredentialRequest {
            client_id: client_id.to_owned(),
            kind: Some(NewKind::Secret(rpc::ClientSecret {})),
            ttl: self.ttl.map(proto_duration).transpose()?,
            request_id: request_id()?,
            retire_others_when_idle: retire_others_when_idle.map(proto_duration).transpose()?,
        };
        let answer = connection.answer(service.create_client_credential(request).await)?;
        let info = CredentialInfo::from(answer.credential.unwrap_or_default());
        let secret = Secret::new(answer.client_secret);

        match self.file {
            Some((file, path)) => {
                file.write(connection.url(), client_id, &secret)
                    .map_err(|error| lost(error, client_id, &info.credential_id))?;
                output.show(&Written {
                    client_id,
                    file: &path,
                    credential: info,
                    older_credentials,
                })
            }
            None => {
                let credential_id = info.credential_id.clone();
                show(client_id, &secret, info, older_credentials, output)
                    .map_err(|error| lost(error, client_id, &credential_id))
            }
        }
    }
}

fn show(
    client_id: &str,
    secret: &Secret,
    info: CredentialInfo,
    older_credentials: Option<Vec<CredentialInfo>>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    if output.format() == Format::Human {
        let expiry = info
            .expire_time
            .as_ref()
            .map_or_else(|| "no expiry".to_owned(), |time| format!("expires {time}"));
        output.remark(&format!(
            "secret {} of client {client_id} ({expiry}); it is not shown again",
            info.credential_id
        ))?;
    }
    let client_secret = secret.expose();
    output.show(&Shown { client_id, client_secret, credential: info, older_credentials })
}

/// The error for a secret that was made but reached nobody. A closed output counts too: its reader has
/// left.
fn lost(error: Error, client_id: &str, credential_id: &str) -> Error {
    let why = match error {
        Error::Closed => "nobody reads the output".to_owned(),
        Error::Usage(advice)
        | Error::Failed(advice)
        | Error::Refused(advice)
        | Error::Unreachable(advice) => advice.problem,
    };
    Error::failed(
        format!("the new secret is lost: {why}"),
        format!("revoke it: countersign client credential revoke {client_id} {credential_id}"),
    )
}

/// Whether the secret has expired. The server forgets an expired secret as soon as a new one is made,
/// so it is not listed.
fn has_expired(secret: &rpc::ClientCredential, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    secret.expire_time.as_ref().is_some_and(|at| u64::try_from(at.seconds).unwrap_or(0) <= now)
}

/// A new secret, shown this once.
#[derive(Serialize)]
struct Shown<'a> {
    client_id: &'a str,
    client_secret: &'a str,
    credential: CredentialInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    older_credentials: Option<Vec<CredentialInfo>>,
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
    credential: CredentialInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    older_credentials: Option<Vec<CredentialInfo>>,
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
