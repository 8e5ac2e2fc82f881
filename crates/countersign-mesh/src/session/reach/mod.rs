//! How others are reached: addresses, TLS and HTTP, and the credentials that say who we are.

pub(crate) mod address;
pub(crate) mod credentials;
pub(crate) mod credentials_file;
pub(crate) mod error;
pub(crate) mod http_client;
pub(crate) mod jitter;
pub(crate) mod presenting;

pub use self::credentials::{ClientSecret, Credentials};
pub use self::error::{CredentialsError, CredentialsFileProblem, SessionError};
pub use self::jitter::Jitter;
