//! `client key`: the public keys that a client signs assertions with.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use countersign_mesh::keys::{InvalidKeyFile, PublicKey};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::args::client_credentials::KeyCommand;
use crate::cli::commands::Server;
use crate::cli::commands::clients::{self, proto_duration};
use crate::cli::connection::request_id;
use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::output::{self, Output, View};
use crate::rpc::client_service_client::ClientServiceClient;
use crate::rpc::{self, CreateClientKeyRequest, RevokeClientKeyRequest};

/// Registers, lists or revokes a client's public keys.
pub async fn run(
    command: KeyCommand,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        KeyCommand::Add { id, file, ttl } => {
            let key = read(&file)?;
            let connection = server.connect().await?;
            let mut service = ClientServiceClient::new(connection.clone());
            let request = CreateClientKeyRequest {
                client_id: id.clone(),
                public_key: key.as_bytes().to_vec(),
                ttl: ttl.map(proto_duration).transpose()?,
                request_id: request_id()?,
            };
            let answer = connection.answer(service.create_client_key(request).await)?;
            let key = KeyInfo::from(answer.key.unwrap_or_default());
            output.show(&Added { client_id: id, key })
        }
        KeyCommand::List { id } => {
            let client = clients::read(id, &server.connect().await?).await?;
            output.show(&Keys { keys: client.keys.into_iter().map(KeyInfo::from).collect() })
        }
        KeyCommand::Revoke { id, kid } => {
            let connection = server.connect().await?;
            let mut service = ClientServiceClient::new(connection.clone());
            let request = RevokeClientKeyRequest {
                client_id: id.clone(),
                kid: kid.clone(),
                request_id: request_id()?,
            };
            connection.answer(service.revoke_client_key(request).await)?;
            output.show(&Revoked { client_id: id, kid })
        }
    }
}

/// No key takes more.
const MAX_FILE: u64 = 16 * 1024;

fn read(path: &Path) -> Result<PublicKey, Error> {
    // Erased when dropped: it may be a private key, given by mistake.
    let mut text = Zeroizing::new(String::new());
    File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)).map_err(
        |error| {
            Error::failed(
                format!("cannot read {}: {error}", path.display()),
                "name the file of the client's public key",
            )
        },
    )?;
    PublicKey::from_file_text(&text).map_err(|error| {
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

/// What is known of a key.
#[derive(Serialize)]
pub struct KeyInfo {
    kid: String,
    create_time: Option<String>,
    expire_time: Option<String>,
    last_use_time: Option<String>,
}

impl From<rpc::ClientKey> for KeyInfo {
    fn from(key: rpc::ClientKey) -> Self {
        Self {
            kid: key.kid,
            create_time: key.create_time.as_ref().map(output::time),
            expire_time: key.expire_time.as_ref().map(output::time),
            last_use_time: key.last_use_time.as_ref().map(output::time),
        }
    }
}

/// A table of keys.
pub fn table(keys: &[KeyInfo]) -> String {
    let row = |key: &KeyInfo| {
        let or = |time: &Option<String>, otherwise: &str| {
            time.clone().unwrap_or_else(|| otherwise.to_owned())
        };
        [
            key.kid.clone(),
            or(&key.create_time, "-"),
            or(&key.expire_time, "never"),
            or(&key.last_use_time, "never"),
        ]
    };
    output::table(
        ["KID", "CREATED", "EXPIRES", "LAST USED"],
        &keys.iter().map(row).collect::<Vec<_>>(),
    )
}

#[derive(Serialize)]
struct Keys {
    keys: Vec<KeyInfo>,
}

impl View for Keys {
    fn human(&self) -> String {
        table(&self.keys)
    }
}

#[derive(Serialize)]
struct Added {
    client_id: String,
    key: KeyInfo,
}

impl View for Added {
    fn human(&self) -> String {
        format!(
            "key {} of client {} is registered\n",
            escape(&self.key.kid),
            escape(&self.client_id)
        )
    }
}

#[derive(Serialize)]
struct Revoked {
    client_id: String,
    kid: String,
}

impl View for Revoked {
    fn human(&self) -> String {
        format!("key {} of client {} is revoked\n", escape(&self.kid), escape(&self.client_id))
    }
}
