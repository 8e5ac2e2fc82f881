//! `keys`: the signing keys.

use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use tonic::Status;
use tonic_types::StatusExt;

use crate::cli::args::admin::KeysCommand;
use crate::cli::commands::{PAGE_SIZE, Server};
use crate::cli::confirm::Confirm;
use crate::cli::connection::{Connection, request_id};
use crate::cli::error::Error;
use crate::cli::output::{self, Output, View};
use crate::rpc::key_service_client::KeyServiceClient;
use crate::rpc::{
    self, KeyState, ListKeysRequest, RevokeKeyRequest, RotateKeysRequest, RotateKeysResponse,
};

/// Lists, rotates or revokes keys.
pub async fn run(
    command: KeysCommand,
    server: &Server<'_>,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let connection = server.connect(output).await?;
    let mut service = KeyServiceClient::new(connection.clone());
    match command {
        KeysCommand::List => output.show(&list(&connection, &mut service).await?),
        KeysCommand::Rotate { wait, timeout, force } => {
            let request = RotateKeysRequest { force, request_id: request_id()? };
            let patience = if wait { timeout } else { Duration::ZERO };
            let rotated = rotate(&connection, &mut service, request, patience, output).await?;
            output.show(&Rotated {
                active: rotated.active.map(Key::from),
                next: rotated.next.map(Key::from),
                retired: rotated.retired.map(Key::from),
                verifiers_behind: rotated.verifiers_behind,
            })
        }
        KeysCommand::Revoke { kid, yes } => {
            let confirm = Confirm::unless(yes);
            if confirm == Confirm::Ask {
                let keys = list(&connection, &mut service).await?;
                let state = keys.keys.iter().find(|key| key.kid == kid).map_or("", |key| key.state);
                confirm.ask(&format_args!(
                    "the {state} key {kid} is revoked: every token that it has signed is refused at once"
                ))?;
            }
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

/// Rotates the keys. While the server answers that some verifier would refuse the next key's tokens,
/// tries again until `patience` is over.
async fn rotate(
    connection: &Connection,
    service: &mut KeyServiceClient<Connection>,
    request: RotateKeysRequest,
    patience: Duration,
    output: &mut Output<'_>,
) -> Result<RotateKeysResponse, Error> {
    let began = Instant::now();
    loop {
        // Every try carries the same request id: whichever of them succeeds, the keys are rotated once.
        let answer = service.rotate_keys(request.clone()).await;
        let Some(pause) = answer.as_ref().err().and_then(blocked_for) else {
            return connection.answer(answer);
        };
        if began.elapsed() + pause > patience {
            return connection.answer(answer);
        }
        let why = answer.as_ref().err().map_or("", Status::message);
        output.remark(&format!("{why}; trying again in {}", output::span(pause.as_secs())))?;
        tokio::time::sleep(pause).await;
    }
}

/// How long to wait before the next try, at least a second; `None` unless the refusal is
/// `VERIFIERS_BEHIND`.
fn blocked_for(status: &Status) -> Option<Duration> {
    status.get_details_error_info().filter(|info| info.reason == "VERIFIERS_BEHIND")?;
    let told = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    Some(told.unwrap_or_default().max(Duration::from_secs(1)))
}

async fn list(
    connection: &Connection,
    service: &mut KeyServiceClient<Connection>,
) -> Result<Keys, Error> {
    let mut keys = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListKeysRequest { page_size: PAGE_SIZE, page_token };
        let (page, now) = connection.answer_at(service.list_keys(request).await)?;
        keys.extend(page.keys.into_iter().map(|key| Key::at(key, now)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(Keys { keys, verifiers_connected: page.verifiers_connected });
        }
    }
}

#[derive(Serialize)]
struct Keys {
    keys: Vec<Key>,
    verifiers_connected: i32,
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
    verifiers_holding: i32,
    /// Shown to people only. It is counted by the clock of the server, which made the key.
    #[serde(skip)]
    age: Option<u64>,
}

impl Key {
    fn at(key: rpc::Key, now: SystemTime) -> Self {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let made = key.create_time.as_ref().and_then(|made| u64::try_from(made.seconds).ok());
        Self { age: made.map(|made| now.saturating_sub(made)), ..Self::from(key) }
    }
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
            verifiers_holding: key.verifiers_holding,
            age: None,
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
                    key.age.map_or_else(|| "-".to_owned(), age),
                    format!("{} of {}", key.verifiers_holding, self.verifiers_connected),
                    or_dash(&key.create_time),
                    or_dash(&key.activate_time),
                    or_dash(&key.retire_time),
                    or_dash(&key.expire_time),
                    or_dash(&key.revoke_time),
                ]
            })
            .collect();
        output::table(
            [
                "KID",
                "STATE",
                "AGE",
                "HELD BY",
                "CREATED",
                "SIGNED FROM",
                "SIGNED UNTIL",
                "EXPIRES",
                "REVOKED",
            ],
            &rows,
        )
    }
}

/// A span in its largest unit.
fn age(seconds: u64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400.. => format!("{}d", seconds / 86_400),
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
