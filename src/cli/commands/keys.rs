//! `keys`: the signing keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::cli::args::admin::KeysCommand;
use crate::cli::commands::PAGE_SIZE;
use crate::cli::commands::Server;
use crate::cli::connection::Connection;
use crate::cli::connection::request_id;
use crate::cli::error::Error;
use crate::cli::output;
use crate::cli::output::Output;
use crate::cli::output::View;
use crate::rpc;
use crate::rpc::KeyState;
use crate::rpc::ListKeysRequest;
use crate::rpc::RevokeKeyRequest;
use crate::rpc::RotateKeysRequest;
use crate::rpc::key_service_client::KeyServiceClient;

/// Lists, rotates or revokes keys.
pub async fn run(
    command: KeysCommand,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let connection = server.connect().await?;
    let mut service = KeyServiceClient::new(connection.clone());
    match command {
        KeysCommand::List => output.show(&list(&connection, &mut service).await?),
        KeysCommand::Rotate { force } => {
            let request = RotateKeysRequest { force, request_id: request_id()? };
            let rotated = connection.answer(service.rotate_keys(request).await)?;
            output.show(&Rotated {
                active: rotated.active.map(Key::from),
                next: rotated.next.map(Key::from),
                retired: rotated.retired.map(Key::from),
                verifiers_behind: rotated.verifiers_behind,
            })
        }
        KeysCommand::Revoke { kid } => {
            let request = RevokeKeyRequest { kid, request_id: request_id()? };
            let revoked = connection.answer(service.revoke_key(request).await)?;
            output.show(&Revoked {
                revoked: revoked.revoked.map(Key::from),
                active: revoked.active.map(Key::from),
                next: revoked.next.map(Key::from),
            })
        }
    }
}

async fn list(
    connection: &Connection,
    service: &mut KeyServiceClient<Connection>,
) -> Result<Keys, Error> {
    let mut keys = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListKeysRequest { page_size: PAGE_SIZE, page_token };
        let page = connection.answer(service.list_keys(request).await)?;
        keys.extend(page.keys.into_iter().map(Key::from));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(Keys { keys });
        }
    }
}

#[derive(Serialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Rotated {
    active: Option<Key>,
    next: Option<Key>,
    retired: Option<Key>,
    verifiers_behind: Vec<String>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: Option<Key>,
    active: Option<Key>,
    next: Option<Key>,
}

#[derive(Serialize)]
struct Key {
    kid: String,
    state: &'static str,
    /// base64url, as `x` in a JWK (RFC 8037 §2).
    public_key: String,
    create_time: Option<String>,
    activate_time: Option<String>,
    retire_time: Option<String>,
    expire_time: Option<String>,
    revoke_time: Option<String>,
}

impl From<rpc::Key> for Key {
    fn from(key: rpc::Key) -> Self {
        let time =
            |timestamp: &Option<prost_types::Timestamp>| timestamp.as_ref().map(output::time);
        Self {
            state: match key.state() {
                KeyState::Unspecified => "unknown",
                KeyState::Next => "next",
                KeyState::Active => "active",
                KeyState::Retired => "retired",
                KeyState::Revoked => "revoked",
            },
            public_key: URL_SAFE_NO_PAD.encode(&key.public_key),
            create_time: time(&key.create_time),
            activate_time: time(&key.activate_time),
            retire_time: time(&key.retire_time),
            expire_time: time(&key.expire_time),
            revoke_time: time(&key.revoke_time),
            kid: key.kid,
        }
    }
}

impl View for Keys {
    fn human(&self) -> String {
        let or_dash = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
        let rows: Vec<_> = self
            .keys
            .iter()
            .map(|key| {
                [
                    key.kid.clone(),
                    key.state.to_owned(),
                    or_dash(&key.create_time),
                    or_dash(&key.activate_time),
                    or_dash(&key.retire_time),
                    or_dash(&key.expire_time),
                    or_dash(&key.revoke_time),
                ]
            })
            .collect();
        output::table(
            ["KID", "STATE", "CREATED", "ACTIVATED", "RETIRED", "EXPIRES", "REVOKED"],
            &rows,
        )
    }
}

impl View for Rotated {
    fn human(&self) -> String {
        let mut text = output::fields([
            ("active", kid(&self.active)),
            ("next", kid(&self.next)),
            ("retired", kid(&self.retired)),
        ]);
        if !self.verifiers_behind.is_empty() {
            text.push_str(&output::fields([(
                "verifiers behind",
                self.verifiers_behind.join(", "),
            )]));
        }
        text
    }
}

impl View for Revoked {
    fn human(&self) -> String {
        output::fields([
            ("revoked", kid(&self.revoked)),
            ("active", kid(&self.active)),
            ("next", kid(&self.next)),
        ])
    }
}

fn kid(key: &Option<Key>) -> String {
    key.as_ref().map_or_else(|| "-".to_owned(), |key| key.kid.clone())
}
