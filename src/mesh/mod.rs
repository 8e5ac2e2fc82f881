//! What services link: a [`Session`] with Countersign that keeps tokens fresh and attaches them to
//! outgoing calls.
//!
//! One session serves a whole process. It fetches one token for each audience and set of scopes
//! when it is first needed, refreshes it in the background, and gives each call what *its* method
//! demands and no more. While Countersign is down, the token at hand serves until it expires.

mod authenticated;
mod credentials;
mod endpoint;
mod http_client;
mod interceptor;
mod replay;
mod session;
mod token_source;
mod trust_source;

pub use self::authenticated::Authenticated;
pub use self::credentials::Credentials;
pub use self::credentials::CredentialsError;
pub use self::interceptor::AuthInterceptor;
pub use self::session::Session;
pub use self::session::SessionBuilder;
pub use self::session::SessionError;
pub use self::session::trust_in;
pub use self::token_source::BearerToken;
pub use self::token_source::NoToken;
pub use self::token_source::TokenSource;
