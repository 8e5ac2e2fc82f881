//! The commands that run where the store is, without a server. Not wired yet.

use serde_json::Value;

use crate::cli::args::host::AuditVerifyArgs;
use crate::cli::args::host::InitArgs;
use crate::cli::args::host::RecoverArgs;
use crate::cli::config::Kek;
use crate::cli::config::ServeConfig;
use crate::cli::config::StoreConfig;
use crate::cli::error::Error;
use crate::cli::output::Output;

/// What a token says of itself. Nothing in it was verified.
#[derive(Debug)]
pub struct Inspection {
    /// The JOSE header.
    pub header: Value,
    /// The claims.
    pub unverified_claims: Value,
}

/// Creates the store, its keys, its key-encryption key and the first operator.
pub fn init(args: &InitArgs, store: StoreConfig, _output: &mut Output<'_>) -> Result<(), Error> {
    let InitArgs { issuer: _issuer, operator_id: _operator_id, .. } = args;
    let StoreConfig { data_dir: _data_dir, kek } = store;
    match kek {
        Kek::File(_path) => {}
        Kek::Given(_secret) => {}
    }
    Err(not_wired("init"))
}

/// Serves until it is told to stop.
pub fn serve(config: ServeConfig, _output: &mut Output<'_>) -> Result<(), Error> {
    let ServeConfig {
        mode: _mode,
        listen: _listen,
        store: _store,
        workers: _workers,
        shutdown_grace: _grace,
        log_format: _format,
        log_filter: _filter,
        tokens_default_ttl: _ttl,
        audit_retention: _retention,
    } = config;
    Err(not_wired("serve"))
}

/// Makes another operator and records it in the audit trail.
pub fn recover_operator(
    args: &RecoverArgs,
    _store: StoreConfig,
    _output: &mut Output<'_>,
) -> Result<(), Error> {
    let RecoverArgs { operator_id: _operator_id, out: _out, .. } = args;
    Err(not_wired("operator recover"))
}

/// Proves the audit trail, or names the first bad row.
pub fn verify_audit(
    args: &AuditVerifyArgs,
    _store: StoreConfig,
    _output: &mut Output<'_>,
) -> Result<(), Error> {
    let AuditVerifyArgs { head: _head, .. } = args;
    Err(not_wired("audit verify"))
}

/// Exports the head of the audit trail.
pub fn export_audit_head(_store: StoreConfig, _output: &mut Output<'_>) -> Result<(), Error> {
    Err(not_wired("audit head"))
}

/// Decodes a token without verifying anything.
pub fn inspect(_token: &str) -> Result<Inspection, Error> {
    Err(not_wired("token inspect"))
}

fn not_wired(command: &str) -> Error {
    Error::failed(format!("{command} is not wired in this build"), "use a later one")
}
