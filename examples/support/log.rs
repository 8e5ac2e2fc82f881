//! A log on stderr, for programs that nobody watches. `RUST_LOG` says how much; neither it nor anything
//! else puts a secret or a token there.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

pub type Failure = Box<dyn Error + Send + Sync>;

/// Runs a program, and logs why it ended when it did not end well.
pub async fn run(program: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match program.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("gave up: {error}");
            ExitCode::FAILURE
        }
    }
}
