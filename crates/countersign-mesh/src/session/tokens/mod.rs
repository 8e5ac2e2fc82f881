//! Tokens that keep themselves fresh: where they come from, the task that fetches them, what holds them.

pub(crate) mod bearer_token;
pub(crate) mod countersign;
pub(crate) mod current;
pub(crate) mod endpoint;
pub(crate) mod fetched;
pub(crate) mod meter;
pub(crate) mod oauth;
pub(crate) mod refresh;
pub(crate) mod source;
pub(crate) mod sources;

pub use self::bearer_token::BearerToken;
pub use self::current::NoToken;
pub use self::oauth::OAuthEndpoint;
pub use self::source::TokenSource;
