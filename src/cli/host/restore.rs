//! `backup` and `restore`: copies the store, and starts again from a copy.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use countersign_mesh::claims::{Clock, Timestamp};
use serde::Serialize;

use crate::authority::host::{self, HostError};
use crate::cli::args::host::{BackupArgs, RestoreArgs};
use crate::cli::config::StoreConfig;
use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::host::errors::{host_error, store_error};
use crate::cli::host::place::Place;
use crate::cli::output::{self, Output, View};
use crate::client::ClientInfo;
use crate::store::{self, Restored, StoreError};

/// Copies the store, also while a server runs.
pub fn back_up(
    args: &BackupArgs,
    store: StoreConfig,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let place = Place::new(store);
    if args.to.exists() {
        return Err(Error::failed(
            format!("{} is there already, and was not touched", args.to.display()),
            "name another file with --to",
        ));
    }
    store::back_up(&place.database(), &args.to).map_err(store_error)?;
    output.show(&BackedUp { file: args.to.display().to_string() })
}

/// Puts a backup in place of the store, and says what to look at.
pub fn restore(
    args: &RestoreArgs,
    store: StoreConfig,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let place = Place::new(store);
    let kek = place.read_kek()?;
    place.prepare()?;
    // Created before anything is changed: the report cannot be produced a second time.
    let out = args.out.as_deref().map(new_file).transpose()?;
    let now = Clock::system().now();
    let restored = host::restore(&place.database(), kek, args.from.as_deref(), now);
    let to_review = match restored {
        Ok(restored) => ToReview::of(&restored),
        Err(error) => {
            if let Some(path) = &args.out {
                let _ = fs::remove_file(path);
            }
            return Err(not_restored(error, args.from.as_deref()));
        }
    };
    match out {
        Some(mut file) => {
            let json = serde_json::to_string(&to_review).map_err(io::Error::from)?;
            writeln!(file, "{json}").and_then(|()| file.sync_all())?;
        }
        None => output.show(&to_review)?,
    }
    output.remark(
        "Every token from before is refused from now on. What was changed after the backup is lost: look through the \
         clients, and revoke, disable or delete again what you had before",
    )
}

/// Says of the backup what is wrong with it; the store in its place is not at fault.
fn not_restored(error: HostError, from: Option<&Path>) -> Error {
    let Some(from) = from.map(|from| escape(&from.display().to_string())) else {
        return host_error(error);
    };
    let problem = match &error {
        HostError::Store(StoreError::NotOurs(_)) => format!("{from} is not a Countersign store"),
        HostError::Store(StoreError::NotFound(_)) => format!("there is no backup at {from}"),
        HostError::Store(StoreError::Corrupt(what)) => {
            format!("the backup {from} is damaged ({what})")
        }
        _ => return host_error(error),
    };
    Error::failed(problem, "name another with --from; nothing was changed")
}

/// A new file for its owner only.
fn new_file(path: &Path) -> Result<File, Error> {
    let opened = File::options().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| {
        Error::failed(format!("cannot write {}: {error}", path.display()), "nothing was changed")
    })
}

#[derive(Serialize)]
struct BackedUp {
    file: String,
}

impl View for BackedUp {
    fn human(&self) -> String {
        format!(
            "The store was copied to {}. It opens only with the key-encryption key: keep that elsewhere.\n",
            escape(&self.file)
        )
    }
}

/// The clients and credentials in the backup, for the operator to review: any of them may have been
/// revoked after it was made.
#[derive(Serialize)]
struct ToReview {
    backup_epoch: u64,
    epoch: u64,
    /// Where the store was moved to that was there before.
    aside: Option<String>,
    clients: Vec<ClientToReview>,
}

#[derive(Serialize)]
struct ClientToReview {
    client_id: String,
    disabled: bool,
    update_time: String,
    credentials: Vec<CredentialToReview>,
}

#[derive(Serialize)]
struct CredentialToReview {
    credential_id: String,
    kind: &'static str,
    create_time: String,
    last_use_time: Option<String>,
}

impl ToReview {
    fn of(restored: &Restored) -> Self {
        Self {
            backup_epoch: restored.backup_epoch,
            epoch: restored.epoch,
            aside: restored.aside.as_ref().map(|path| path.display().to_string()),
            clients: restored.clients.iter().map(ClientToReview::of).collect(),
        }
    }
}

impl ClientToReview {
    fn of(client: &ClientInfo) -> Self {
        let credentials = client.credentials.iter().map(|credential| CredentialToReview {
            credential_id: credential.id.to_string(),
            kind: credential.content.kind(),
            create_time: time(credential.created_at),
            last_use_time: credential.last_used_at.map(time),
        });
        Self {
            client_id: client.id.to_string(),
            disabled: client.settings.disabled,
            update_time: time(client.updated_at),
            credentials: credentials.collect(),
        }
    }
}

impl View for ToReview {
    fn human(&self) -> String {
        let mut text = format!(
            "The store was restored from a backup of epoch {}; epoch {} begins a new generation, with new keys.\n",
            self.backup_epoch, self.epoch
        );
        if let Some(aside) = &self.aside {
            text.push_str(&format!("What was there before is {}.\n", escape(aside)));
        }
        text.push_str("\nClients and their credentials as they were then:\n\n");
        let rows: Vec<[String; 5]> = self.clients.iter().flat_map(ClientToReview::rows).collect();
        text.push_str(&output::table(
            ["CLIENT", "CHANGED", "CREDENTIAL", "CREATED", "LAST USED"],
            &rows,
        ));
        text
    }
}

impl ClientToReview {
    fn rows(&self) -> Vec<[String; 5]> {
        let name = if self.disabled {
            format!("{} (disabled)", self.client_id)
        } else {
            self.client_id.clone()
        };
        let row = |credential: &CredentialToReview| {
            [
                name.clone(),
                self.update_time.clone(),
                format!("{} {}", credential.kind, credential.credential_id),
                credential.create_time.clone(),
                credential.last_use_time.clone().unwrap_or_else(|| "never".to_owned()),
            ]
        };
        let rows: Vec<[String; 5]> = self.credentials.iter().map(row).collect();
        if rows.is_empty() {
            let none = || "-".to_owned();
            return vec![[name.clone(), self.update_time.clone(), none(), none(), none()]];
        }
        rows
    }
}

fn time(time: Timestamp) -> String {
    let seconds = i64::try_from(time.as_unix()).unwrap_or(i64::MAX);
    output::time(&prost_types::Timestamp { seconds, nanos: 0 })
}
