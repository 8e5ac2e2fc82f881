//! `serve`: from the configuration to a server that runs until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use countersign_mesh::claims::Clock;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::authority::{Authority, OpenError, Settings};
use crate::cli::config::{LogFormat, Mode, ServeConfig};
use crate::cli::error::Error;
use crate::cli::host::errors::store_error;
use crate::cli::host::place::Place;
use crate::cli::host::{dev, listeners, open_files};
use crate::cli::output::Output;
use crate::server::{self, Options, Tls};

/// Serves until SIGTERM or SIGINT. A second one ends the process at once.
pub fn serve(config: ServeConfig, output: &mut Output<'_>) -> Result<(), Error> {
    start_log(&config)?;
    runtime(config.workers)?.block_on(run(config, output))
}

async fn run(config: ServeConfig, output: &mut Output<'_>) -> Result<(), Error> {
    let clock = Clock::system();
    let tls = config.tls.map(|files| Tls::load(files, clock.now())).transpose();
    let tls = tls.map_err(|error| Error::failed(error.to_string(), "correct the tls settings"))?;
    let place = Place::new(config.store);
    // What is wrong with the store is told before what is wrong with the port: whoever names another store would
    // not think of the port. A first store of `--dev` is named after its port, which it needs first.
    let first = config.mode == Mode::Dev && !place.database().exists();
    let mut listeners = if first { listeners::bind(&config.listen).await? } else { Vec::new() };
    if first {
        dev::prepare(&place, address_of(&listeners)?, clock.now())?;
    }
    let kek = place.read_kek()?;
    let settings = Settings {
        default_ttl: config.tokens_default_ttl,
        audit_retention: config.audit_retention,
        max_staleness: config.trust_max_staleness,
        max_streams: config.trust_max_streams,
        rotate_every: config.keys_rotate_every,
        ..Settings::default()
    };
    let authority =
        Authority::open(&place.database(), kek, settings, &clock).map_err(|error| match error {
            OpenError::Store(error) => store_error(error),
            OpenError::ClockBehind(error) => {
                Error::failed(error.to_string(), "nothing was changed")
            }
        })?;

    if !first {
        listeners = listeners::bind(&config.listen).await?;
    }
    let address = address_of(&listeners)?;
    if config.mode == Mode::Dev {
        dev::point_credentials(&place, address)?;
    }

    let mut stop = Stop::new().map_err(cannot_start)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    for listener in &listeners {
        let address = listener.local_addr().map_err(cannot_start)?;
        output.text(&format!("Countersign serves on {scheme}://{address}\n"))?;
        tracing::info!(%address, "serving");
    }
    if config.mode == Mode::Dev {
        output.text(&dev::banner(&place, address))?;
    }
    let stopped = async move {
        stop.asked().await;
        tracing::info!("stopping; a second signal ends at once");
        tokio::spawn(async move {
            stop.asked().await;
            // 128 plus the number of SIGINT (2), as shells report it.
            std::process::exit(130);
        });
    };
    let mut limits = config.limits;
    limits.connections = open_files::connections(limits.connections);
    let options = Options { tls: tls.map(Arc::new), limits };
    let grace = config.shutdown_grace;
    server::serve_with(listeners, Arc::new(authority), clock, options, stopped, grace)
        .await
        .map_err(|error| Error::failed(error.to_string(), "see the log"))
}

/// A runtime with so many threads. With one it is `current_thread`, which serves more calls per
/// processor than each thread of `multi_thread` does. Several threads are for more load than one
/// processor can take.
pub(super) fn runtime(workers: NonZeroUsize) -> Result<Runtime, Error> {
    let mut builder = match workers.get() {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(workers.get()).enable_all().build().map_err(cannot_start)
}

/// The first address that is listened on: the one to name to people.
fn address_of(listeners: &[TcpListener]) -> Result<SocketAddr, Error> {
    let first = listeners.first().ok_or(io::ErrorKind::AddrNotAvailable.into());
    first.and_then(TcpListener::local_addr).map_err(cannot_start)
}

/// The signals that ask the process to stop.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn start_log(config: &ServeConfig) -> Result<(), Error> {
    let filter = EnvFilter::builder()
        .parse(&config.log_filter)
        .map_err(|error| Error::failed(format!("log.filter: {error}"), "correct it"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match config.log_format {
        LogFormat::Human => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

fn cannot_start(error: io::Error) -> Error {
    Error::failed(format!("cannot start: {error}"), "try again")
}
