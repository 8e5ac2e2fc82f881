//! The server side: a tower layer that verifies the token of every call and enforces what the
//! callee's `.proto` demands, deny by default.
//!
//! For each call: path → policy (what is not declared is refused) → bearer token → verified-token
//! cache or [`verify`](crate::token::verify()) → time, key and revocation against today's trust
//! bundle, cached or not → scopes → [`VerifiedToken`](crate::token::VerifiedToken) in the request's
//! extensions.

mod layer;
mod policy_table;
mod refusal;
mod trust;

pub use self::layer::Guard;
pub use self::layer::GuardBuilder;
pub use self::layer::Guarded;
pub use self::policy_table::Access;
pub use self::policy_table::MethodPolicy;
pub use self::policy_table::ServicePolicy;
pub use self::refusal::ERROR_DOMAIN;
pub use self::refusal::Refusal;
pub use self::trust::Trust;
