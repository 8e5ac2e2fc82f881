//! Who a client of the examples is: what it is told, as the command line is.

use std::path::PathBuf;

use countersign_mesh::session::{Session, SessionBuilder, SessionError};

#[derive(clap::Args)]
pub struct Calling {
    /// The credentials file that `countersign client create --out` wrote; without it, COUNTERSIGN_URL,
    /// COUNTERSIGN_CLIENT_ID and COUNTERSIGN_CLIENT_SECRET, or `_FILE`s of them
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
}

impl Calling {
    /// A session with the token service. It connects when the first token is needed.
    pub fn session(&self) -> Result<Session, SessionError> {
        match &self.credentials {
            Some(path) => SessionBuilder::from_credentials_file(path)?.connect(),
            None => Session::from_env(),
        }
    }
}
