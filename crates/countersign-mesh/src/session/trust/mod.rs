//! Trust that keeps itself fresh: the stream or the JWK Set, what is kept in a file, how old it is.

pub(crate) mod feed;
pub(crate) mod file;
pub(crate) mod freshness;
pub(crate) mod health;
pub(crate) mod parts;
pub(crate) mod source;
pub(crate) mod stream;
pub(crate) mod verifier_name;

pub use self::feed::FedBy;
pub use self::health::Health;
pub use self::source::trust_in;
