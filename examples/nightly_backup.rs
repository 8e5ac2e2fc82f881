//! A cron job: every night at 02:00 UTC the day's data goes to a protected storage API. Nobody is awake, so
//! it asks nobody: it authenticates itself, tries again while the token service or the storage is down,
//! and writes all that happens to its log. When it gives up it says why and ends with 1, for whatever
//! watches over it.
//!
//! ```text
//! countersign client create nightly-backup --credentials countersign-dev/operator.toml \
//!     --grant storage=backup:write --out nightly-backup.toml
//! cargo run --example nightly_backup -- --credentials nightly-backup.toml \
//!     --storage http://127.0.0.1:8083 --data /var/lib/shop/export
//! ```
//!
//! `--now` does it at once, for a cron daemon or a Kubernetes `CronJob`. The storage is `storage_api.rs`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use bytes::Bytes;
use clap::Parser;
use countersign_mesh::claims::Audience;
use countersign_mesh::session::{BearerToken, NoToken, TokenSource};
use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use tokio::time::{Instant, sleep, timeout_at};

use crate::backoff::Backoff;
use crate::calling::Calling;
use crate::http_client::Http;
use crate::log::Failure;

#[path = "support/backoff.rs"]
mod backoff;
#[path = "support/calling.rs"]
mod calling;
#[path = "support/http.rs"]
mod http_client;
#[path = "support/log.rs"]
mod log;
#[path = "support/night.rs"]
mod night;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    calling: Calling,
    /// Do it at once and end, instead of every night at 02:00 UTC
    #[arg(long)]
    now: bool,
    /// The storage API
    #[arg(long, value_name = "URL")]
    storage: String,
    /// What the storage is called in tokens
    #[arg(long, value_name = "NAME", default_value = "storage")]
    audience: Audience,
    /// The day's data: all files in here
    #[arg(long, value_name = "DIRECTORY")]
    data: PathBuf,
    /// How long to try
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "1h")]
    give_up_after: Duration,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    log::run(every_night(Args::parse())).await
}

async fn every_night(args: Args) -> Result<(), Failure> {
    loop {
        if !args.now {
            until_two_at_night().await;
        }
        let files = backup(&args).await?;
        tracing::info!(files, "the backup is done");
        if args.now {
            return Ok(());
        }
    }
}

/// Uploads everything, or says why not.
async fn backup(args: &Args) -> Result<usize, Failure> {
    let give_up_at = Instant::now() + args.give_up_after;
    // The name is that of the day on which the run starts: tries that go on past midnight keep it.
    let day = humantime::format_rfc3339(SystemTime::now()).to_string();
    let day = day.split('T').next().unwrap_or_default();
    let files = files(&args.data)
        .map_err(|error| format!("cannot read {}: {error}", args.data.display()))?;
    if files.is_empty() {
        // Whoever was to put the data there has not. It is better to say so tonight than when the
        // backup is needed.
        return Err(format!("there is nothing in {}", args.data.display()).into());
    }

    // A session for each night: nobody needs its tokens until the next one.
    let session = args.calling.session()?;
    let tokens = session.token_source(args.audience.clone(), "backup:write".parse()?);
    let http = Http::new()?;
    for path in &files {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
            return Err(format!("{name}: no name for the storage; use letters and digits").into());
        }
        let url = format!("{}/backups/{day}/{name}", args.storage.trim_end_matches('/'));
        let mut backoff = Backoff::new();
        loop {
            match upload(&http, &tokens, &url, path, give_up_at).await {
                Ok(()) => break,
                Err(Trouble::Lasting(why)) => return Err(format!("{name}: {why}").into()),
                Err(Trouble::Passing(why)) => {
                    tracing::warn!(%name, why, "not yet; trying again");
                    if timeout_at(give_up_at, backoff.wait()).await.is_err() {
                        let tried = humantime::format_duration(args.give_up_after);
                        return Err(format!("{name}: tried for {tried}: {why}").into());
                    }
                }
            }
        }
        tracing::info!(%name, day, "uploaded");
    }
    Ok(files.len())
}

/// Why a file was not uploaded.
enum Trouble {
    /// The failure may pass by itself.
    Passing(String),
    /// Only a human can help.
    Lasting(String),
}

/// Uploads one file. Safe to repeat: the storage keeps one file of a name.
async fn upload(
    http: &Http,
    tokens: &TokenSource,
    url: &str,
    path: &Path,
    give_up_at: Instant,
) -> Result<(), Trouble> {
    let file = fs::read(path).map(Bytes::from).map_err(|error| lasting(&error))?;
    let soon = (Instant::now() + Duration::from_secs(10)).min(give_up_at);
    // Only the first token is waited for; from then on there is always one at hand.
    let token = tokens.token(soon).await.map_err(|error| match error {
        NoToken::Refused(_) => Trouble::Lasting(error.to_string()),
        NoToken::Unavailable(_) => Trouble::Passing(error.to_string()),
    })?;
    let mut answer = put(http, url, &file, &token).await?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        // Its key may have been revoked in the middle of the night: try another token, but only once.
        if let Some(token) = tokens.replace(&token, soon).await {
            answer = put(http, url, &file, &token).await?;
        }
    }
    let status = answer.status();
    let told = format!("the storage answered {status} {}", String::from_utf8_lossy(answer.body()));
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Err(Trouble::Passing(told)),
        _ if status.is_server_error() => Err(Trouble::Passing(told)),
        _ => Err(Trouble::Lasting(told)),
    }
}

async fn put(
    http: &Http,
    url: &str,
    file: &Bytes,
    token: &BearerToken,
) -> Result<Response<Bytes>, Trouble> {
    let request = Request::put(url)
        .header(AUTHORIZATION, token.header())
        .body(file.clone().into())
        .map_err(|error| lasting(&error))?;
    let answer = http.send(request).await;
    answer.map_err(|error| Trouble::Passing(format!("the storage: {error}")))
}

fn lasting(error: &dyn Error) -> Trouble {
    Trouble::Lasting(error.to_string())
}

/// All files of a directory, in order, but for hidden ones, which may not be finished.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !is_hidden && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Waits by the system's clock, which may be set, and which goes on while the machine sleeps. So it
/// looks at the clock again and again instead of sleeping once.
async fn until_two_at_night() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let two = now() + night::seconds_until_two(now());
    tracing::info!(seconds = two - now(), "waiting for 02:00 UTC");
    while now() < two {
        sleep(Duration::from_secs((two - now()).min(60))).await;
    }
}
