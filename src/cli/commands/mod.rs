//! What the commands do: one file a group, in the order of the command line.

pub mod audit;
pub mod clients;
mod credential_info;
pub mod credentials;
pub mod keys;
pub mod operators;
pub mod policy;
mod registered;
pub mod secrets;
pub mod tokens;
pub mod update;

use std::path::Path;

use crate::cli::args::GlobalArgs;
use crate::cli::connection::{Connection, Plaintext};
use crate::cli::credentials::Credentials;
use crate::cli::environment::Environment;
use crate::cli::error::Error;

/// The server to speak to, once a command knows what to say.
pub struct Server<'a> {
    credentials: Option<&'a Path>,
    environment: &'a Environment,
    plaintext: Plaintext,
}

impl<'a> Server<'a> {
    /// The server that the flags, or else the environment, lead to.
    pub fn new(global: &'a GlobalArgs, environment: &'a Environment) -> Self {
        let plaintext =
            if global.insecure_plaintext { Plaintext::Anywhere } else { Plaintext::OnLoopback };
        Self { credentials: global.credentials.as_deref(), environment, plaintext }
    }

    /// Finds the credentials and connects.
    pub async fn connect(&self) -> Result<Connection, Error> {
        Connection::open(Credentials::find(self.credentials, self.environment)?, self.plaintext)
            .await
    }
}

/// The largest page that the server returns.
const PAGE_SIZE: i32 = 1000;
