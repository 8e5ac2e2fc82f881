//! What the commands do: one file a group, in the order of the command line.

mod audiences;
pub mod audit;
pub mod clients;
pub mod contexts;
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
use crate::cli::contexts::Contexts;
use crate::cli::credentials::{Credentials, DevClient};
use crate::cli::environment::Environment;
use crate::cli::error::Error;
use crate::cli::output::Output;

/// The server to speak to, once a command knows what to say.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    credentials: Option<&'a Path>,
    context: Option<&'a str>,
    dev_client: DevClient,
    environment: &'a Environment,
    plaintext: Plaintext,
}

impl<'a> Server<'a> {
    /// The server that the flags, or else the environment, lead to.
    pub fn new(global: &'a GlobalArgs, environment: &'a Environment) -> Self {
        let plaintext =
            if global.insecure_plaintext { Plaintext::Anywhere } else { Plaintext::OnLoopback };
        let (credentials, context) = (global.credentials.as_deref(), global.context.as_deref());
        Self { credentials, context, dev_client: DevClient::Operator, environment, plaintext }
    }

    /// The same, as another client where the credentials are those that `serve --dev` has written.
    pub fn of(self, dev_client: DevClient) -> Self {
        Self { dev_client, ..self }
    }

    /// Finds the credentials and connects. Says so when they are those that `serve --dev` has written, which
    /// nobody has named.
    pub async fn connect(&self, output: &mut Output<'_>) -> Result<Connection, Error> {
        let context = match self.context {
            Some(name) => Some(Contexts::read(self.environment)?.file(name)?.to_owned()),
            None => None,
        };
        let named = self.credentials.or(context.as_deref());
        let credentials = Credentials::find(named, self.dev_client, self.environment)?;
        if credentials.unasked {
            output.remark(&format!("with the credentials in {}", credentials.origin))?;
        }
        Connection::open(credentials, self.plaintext).await
    }
}

/// The largest page that the server returns.
const PAGE_SIZE: i32 = 1000;
