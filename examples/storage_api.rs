//! Where backups go; `nightly_backup.rs` calls it.
//!
//! ```text
//! cargo run --example storage_api -- --listen 127.0.0.1:8083 --audience storage --store /var/backups/shop \
//!     --issuer http://127.0.0.1:9443 --jwks-url http://127.0.0.1:9443/.well-known/jwks.json
//! ```
//!
//! `PUT /backups/DAY/NAME` demands `backup:write`. What a client stores is kept under its own name, which
//! stands in the token: nobody writes over the backups of another. The same file twice is one file, so
//! that a client may try again.

use std::path::{Path as FilePath, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::{fs, io};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Extension, Router};
use clap::Parser;
use countersign_mesh::guard::Permitted;

use crate::log::Failure;
use crate::serving::Serving;

#[path = "support/log.rs"]
mod log;
#[path = "support/serving.rs"]
mod serving;

/// The largest file that is taken, in bytes.
const MAX_FILE: usize = 64 * 1024 * 1024;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    serving: Serving,
    /// Where to keep the files
    #[arg(long, value_name = "DIRECTORY")]
    store: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    log::run(serve(Args::parse())).await
}

async fn serve(Args { serving, store }: Args) -> Result<(), Failure> {
    let guard = serving.guard(&[]).await?;
    let routes = Router::new()
        .route("/backups/{day}/{name}", put(keep))
        .layer(DefaultBodyLimit::max(MAX_FILE))
        // The outermost layer: a client that may not write is refused before a byte of the file is
        // read.
        .route_layer(guard.require(["backup:write"]))
        .route("/health/live", get(|| async { "alive" }))
        .with_state(Arc::from(store));
    Ok(axum::serve(serving.listener().await?, routes).await?)
}

async fn keep(
    State(store): State<Arc<FilePath>>,
    Path((day, name)): Path<(String, String)>,
    Extension(caller): Extension<Permitted>,
    file: Bytes,
) -> StatusCode {
    let client_id = caller.claims().client_id.to_string();
    if ![&client_id, &day, &name].into_iter().all(|part| is_plain(part)) {
        return StatusCode::BAD_REQUEST;
    }
    let written = write(&store.join(&client_id).join(&day), &name, &file);
    match written {
        Ok(()) => {
            tracing::info!(client_id, day, name, bytes = file.len(), "kept");
            StatusCode::NO_CONTENT
        }
        Err(error) => {
            tracing::error!(client_id, day, name, %error, "not kept");
            StatusCode::INSUFFICIENT_STORAGE
        }
    }
}

/// Writes atomically: there is the whole file or none.
fn write(directory: &FilePath, name: &str, file: &[u8]) -> io::Result<()> {
    let unfinished = directory.join(format!(".{name}"));
    fs::create_dir_all(directory)?;
    fs::write(&unfinished, file)?;
    fs::rename(&unfinished, directory.join(name))
}

/// Accepts plain file names only, no path to another place.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}
