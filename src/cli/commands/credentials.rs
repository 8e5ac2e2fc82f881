//! `client credential`: what a client proves itself with.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use countersign_mesh::internals::without_mark;
use countersign_mesh::keys::{InvalidKeyFile, PublicKey};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::args::clients::SecretArgs;
use crate::cli::args::credentials::{AddArgs, CredentialCommand, KindArgs};
use crate::cli::commands::Server;
use crate::cli::commands::credential_info::{self, CredentialInfo};
use crate::cli::commands::registered::{self, proto_duration};
use crate::cli::commands::secrets::Delivery;
use crate::cli::confirm::Confirm;
use crate::cli::connection::request_id;
use crate::cli::credentials::NewCredentialsFile;
use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::output::{Output, View};
use crate::cli::sheet::Sheet;
use crate::client::CertificateNameKind;
use crate::rpc::certificate_name::Name;
use crate::rpc::client_service_client::ClientServiceClient;
use crate::rpc::create_client_credential_request::Kind as NewKind;
use crate::rpc::{self, CreateClientCredentialRequest, RevokeClientCredentialRequest};

/// Adds, lists or revokes a client's credentials.
pub async fn run(
    command: CredentialCommand,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        CredentialCommand::Add(args) => add(args, server, output).await,
        CredentialCommand::List { id } => {
            let client = registered::read(id, &server.connect(output).await?).await?;
            let credentials = client.credentials.into_iter().map(CredentialInfo::from).collect();
            output.show(&Credentials { credentials })
        }
        CredentialCommand::Revoke { id, credential_id, tokens, yes } => {
            let connection = server.connect(output).await?;
            let confirm = Confirm::unless(yes);
            if confirm == Confirm::Ask {
                let (client, now) = registered::read_at(id.clone(), &connection).await?;
                let last = client.credentials.len() == 1;
                if last && client.credentials[0].credential_id == credential_id {
                    confirm.ask(&registered::Losing::new(
                        &client,
                        now,
                        "loses its only credential",
                    ))?;
                }
            }
            let request = RevokeClientCredentialRequest {
                client_id: id.clone(),
                credential_id: credential_id.clone(),
                request_id: request_id()?,
                revoke_tokens: tokens,
            };
            let mut service = ClientServiceClient::new(connection.clone());
            connection.answer(service.revoke_client_credential(request).await)?;
            output.show(&Revoked { client_id: id, credential_id, tokens_revoked: tokens })
        }
    }
}

async fn add(args: AddArgs, server: &Server<'_>, output: &mut Output<'_>) -> Result<(), Error> {
    let AddArgs { id, kind, ttl, out, private_key_file } = args;
    let with_key = match (&kind.key, &out, private_key_file) {
        (Some(_), Some(out), Some(private)) => Some((NewCredentialsFile::create(out)?, private)),
        (Some(_), Some(_), None) => {
            return Err(Error::usage(
                "a credentials file names the private key, and which one is not given",
                "give it with --private-key-file",
            ));
        }
        _ => None,
    };
    let kind = match kind {
        KindArgs { key: Some(file), .. } => NewKind::PublicKey(read(&file)?.as_bytes().to_vec()),
        KindArgs { certificate_name: Some((kind, name)), .. } => {
            NewKind::CertificateName(rpc::CertificateName { name: Some(named(kind, name)) })
        }
        KindArgs { secret: _, key: None, certificate_name: None } => {
            let delivery = Delivery::prepare(SecretArgs { ttl, out })?;
            return delivery.create(&id, &server.connect(output).await?, output).await;
        }
    };
    let connection = server.connect(output).await?;
    let request = CreateClientCredentialRequest {
        client_id: id.clone(),
        kind: Some(kind),
        ttl: ttl.map(proto_duration).transpose()?,
        request_id: request_id()?,
        retire_others_when_idle: None,
    };
    let mut service = ClientServiceClient::new(connection.clone());
    let answer = connection.answer(service.create_client_credential(request).await)?;
    let credential = CredentialInfo::from(answer.credential.unwrap_or_default());
    if let Some((file, private_key_file)) = with_key {
        let issuer = connection.issuer().await?;
        file.write_key(connection.url(), &id, &whole(&private_key_file)?, &issuer)?;
    }
    output.show(&Added { client_id: id, credential })
}

/// The whole path of a file: what names it may be read from anywhere.
fn whole(path: &Path) -> Result<String, Error> {
    let whole = std::path::absolute(path).ok().and_then(|whole| whole.to_str().map(str::to_owned));
    whole.ok_or_else(|| {
        let problem = format!("{} is not a path in UTF-8", path.display());
        Error::failed(problem, "give its whole path, or rename it")
    })
}

fn named(kind: CertificateNameKind, name: String) -> Name {
    match kind {
        CertificateNameKind::SubjectDn => Name::SubjectDn(name),
        CertificateNameKind::SanDns => Name::SanDns(name),
        CertificateNameKind::SanUri => Name::SanUri(name),
        CertificateNameKind::SanIp => Name::SanIp(name),
        CertificateNameKind::SanEmail => Name::SanEmail(name),
    }
}

/// The most that is read of a key file, in bytes: no key takes more.
const MAX_FILE: u64 = 16 * 1024;

fn read(path: &Path) -> Result<PublicKey, Error> {
    // Erased when dropped: the file may hold a private key, given by mistake.
    let mut text = Zeroizing::new(String::new());
    File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)).map_err(
        |error| {
            Error::failed(
                format!("cannot read {}: {error}", path.display()),
                "name the file of the client's public key",
            )
        },
    )?;
    PublicKey::from_file_text(without_mark(&text)).map_err(|error| {
        let next = match error {
            InvalidKeyFile::Private => {
                "keep it where the client is, and give the public key: openssl pkey -in FILE -pubout"
            }
            InvalidKeyFile::Encrypted | InvalidKeyFile::Malformed | InvalidKeyFile::NotEd25519 => {
                "give what this writes: openssl pkey -in FILE -pubout, of a key from \
                 openssl genpkey -algorithm ed25519"
            }
        };
        Error::failed(format!("{}: {error}", path.display()), next)
    })
}

#[derive(Serialize)]
struct Credentials {
    credentials: Vec<CredentialInfo>,
}

impl View for Credentials {
    fn human(&self, sheet: Sheet) -> String {
        credential_info::table(sheet, &self.credentials)
    }
}

#[derive(Serialize)]
struct Added {
    client_id: String,
    credential: CredentialInfo,
}

impl View for Added {
    fn human(&self, _: Sheet) -> String {
        format!(
            "{} {} of client {} is registered\n",
            self.credential.kind,
            escape(&self.credential.credential_id),
            escape(&self.client_id)
        )
    }
}

#[derive(Serialize)]
struct Revoked {
    client_id: String,
    credential_id: String,
    tokens_revoked: bool,
}

impl View for Revoked {
    fn human(&self, _: Sheet) -> String {
        let tokens = if self.tokens_revoked { ", and its tokens so far" } else { "" };
        format!(
            "credential {} of client {} is revoked{tokens}\n",
            escape(&self.credential_id),
            escape(&self.client_id)
        )
    }
}
