//! The command line: reads arguments and environment, does one thing, and says how it went.
//!
//! Commands that speak to a server use nothing but its gRPC API, with a token
//! for just the scopes that the method demands. The others, in `host`, run
//! where the store is.

mod config;
mod connection;
mod credentials;
mod environment;
mod error;
mod output;
mod secret;
mod status;
mod toml_file;

pub use crate::cli::config::settings::reference as configuration_reference;
