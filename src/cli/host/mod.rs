//! The commands that run where the store is, with the key-encryption key at hand. They open the
//! database themselves, so none of them needs a token. `backup` and the `audit` commands also work
//! while a server runs; the others need the store for themselves.

mod dev;
mod errors;
mod listeners;
mod open_files;
mod place;
mod restore;
mod serve;

pub use self::restore::{back_up, restore};
pub use self::serve::serve;

use std::fs;
use std::path::Path;

use countersign_mesh::claims::{ClientId, Clock, Issuer};
use countersign_mesh::internals::without_mark;
use serde::Serialize;

use crate::authority::host::{self, NewClient};
use crate::cli::args::host::{AuditVerifyArgs, InitArgs, RecoverArgs};
use crate::cli::config::{StoreConfig, settings};
use crate::cli::credentials::NewCredentialsFile;
use crate::cli::error::Error;
use crate::cli::host::errors::{host_error, no_randomness, store_error};
use crate::cli::host::place::Place;
use crate::cli::output::{self, Output, View};
use crate::cli::secret::Secret;
use crate::store::{self, AuditHead};

/// Creates the store, its keys, its key-encryption key and the first operator.
pub fn init(args: &InitArgs, store: StoreConfig, output: &mut Output<'_>) -> Result<(), Error> {
    let issuer = Issuer::new(&args.issuer)
        .map_err(|error| Error::usage(error.to_string(), "correct --issuer"))?;
    let operator_id = operator_id(&args.operator_id)?;
    let place = Place::new(store);
    place.prepare()?;
    let now = Clock::system().now();
    let operator =
        NewClient::operator(operator_id, "The first operator", now).map_err(no_randomness)?;
    // While the reservation is held, no other process creates a store here: the files below are ours
    // alone.
    let reservation = store::reserve(&place.database()).map_err(store_error)?;
    let credentials = place.directory().join(format!("{}.toml", operator.id()));
    let url = args.url.clone().unwrap_or_else(|| format!("http://{}", settings::LISTEN.default));
    let kek = place.create_kek()?;
    // The store is created last, so that a store never exists without its key and its credentials file.
    let file = credentials_file(&credentials, &url, &operator)?;
    host::init(&reservation, &kek, &issuer, std::slice::from_ref(&operator), now)
        .map_err(store_error)?;
    file.keep();

    output.text(&format!("The store is {}.\n", place.database().display()))?;
    output.text(&format!("The operator's credentials are in {}.\n", credentials.display()))?;
    if let Some(kek) = place.kek_file() {
        output.text(&format!(
            "The key-encryption key is {}. Keep a copy elsewhere, and keep it out of backups of the store: \
             without it the store cannot be opened, and with it and the store anyone can issue tokens.\n",
            kek.display()
        ))?;
    }
    Ok(())
}

/// Makes another operator, and records it in the audit log.
pub fn recover_operator(
    args: &RecoverArgs,
    store: StoreConfig,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let operator_id = operator_id(&args.operator_id)?;
    let place = Place::new(store);
    let kek = place.read_kek()?;
    let now = Clock::system().now();
    let operator =
        NewClient::operator(operator_id, "Recovered on the host", now).map_err(no_randomness)?;
    let url = format!("http://{}", settings::LISTEN.default);
    let file =
        args.out.as_deref().map(|path| credentials_file(path, &url, &operator)).transpose()?;
    let runtime = serve::runtime(std::num::NonZeroUsize::MIN)?;
    runtime.block_on(host::recover(&place.database(), kek, &operator, now)).map_err(host_error)?;
    match file {
        Some(file) => {
            file.keep();
            Ok(())
        }
        None => {
            output.remark(&format!("client_id {}; the secret is shown only now", operator.id()))?;
            output.text(&format!("{}\n", operator.secret.expose()))
        }
    }
}

/// Verifies the chain of the audit log, or names the first bad row.
pub fn verify_audit(
    args: &AuditVerifyArgs,
    store: StoreConfig,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let exported = match &args.head {
        None => None,
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|error| {
                Error::failed(
                    format!("cannot read {}: {error}", path.display()),
                    "name another file",
                )
            })?;
            Some(serde_json::from_str::<AuditHead>(without_mark(&text)).map_err(|_| {
                let problem = format!("{} is not a head of the audit log", path.display());
                Error::failed(problem, "export one with `countersign audit head --format json`")
            })?)
        }
    };
    let place = Place::new(store);
    let report = store::verify_audit(&place.database(), &place.read_kek()?, exported.as_ref())
        .map_err(store_error)?
        .map_err(|error| {
            Error::refused(
                format!("the audit log does not hold: {error}"),
                "find out who can write to the database, and compare with a backup",
            )
        })?;
    output.show(&Verified { ok: true, first: report.first, head: Head(report.head) })
}

/// Exports the head of the audit log.
pub fn export_audit_head(store: StoreConfig, output: &mut Output<'_>) -> Result<(), Error> {
    let place = Place::new(store);
    let report = store::verify_audit(&place.database(), &place.read_kek()?, None)
        .map_err(store_error)?
        .map_err(|error| {
            Error::refused(
                format!("the audit log does not hold: {error}"),
                "see `countersign audit verify`",
            )
        })?;
    output.show(&Head(report.head))
}

#[derive(Serialize)]
#[serde(transparent)]
struct Head(AuditHead);

impl View for Head {
    fn human(&self) -> String {
        output::fields([("sequence", self.0.sequence.to_string()), ("mac", self.0.mac.clone())])
    }
}

#[derive(Serialize)]
struct Verified {
    ok: bool,
    first: u64,
    head: Head,
}

impl View for Verified {
    fn human(&self) -> String {
        format!("The audit log holds: rows {} to {}.\n", self.first, self.head.0.sequence)
    }
}

fn operator_id(text: &str) -> Result<ClientId, Error> {
    ClientId::new(text).map_err(|error| Error::usage(error.to_string(), "correct --operator-id"))
}

/// The credentials file of a client that is about to be made. Dropping it removes it, unless it was
/// kept.
fn credentials_file(
    path: &Path,
    url: &str,
    client: &NewClient,
) -> Result<NewCredentialsFile, Error> {
    let mut file = NewCredentialsFile::create(path)?;
    let secret = Secret::new(client.secret.expose().to_owned());
    file.fill(url, client.id().as_str(), &secret)?;
    Ok(file)
}
