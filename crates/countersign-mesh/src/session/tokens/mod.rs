//! Tokens that keep themselves fresh: where they come from, the task that fetches them, what holds them.
//!
//! 1. `sources` has one `source` for each audience and set of scopes, started when it is first asked for.
//! 2. Behind each source runs one task, `refresh`. It fetches a token from its `endpoint`, publishes it in
//!    a watch channel as `current`, and fetches the next one before that expires. The task ends when
//!    nobody holds the source any more.
//! 3. A caller takes the token at hand, or waits for the first one. When a callee has refused a token, the
//!    caller wishes for another: one fetch serves all who wish, and there is one in five seconds at most.
//!
//! A token that was fetched is used until it expires, even while its issuer is down.

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
