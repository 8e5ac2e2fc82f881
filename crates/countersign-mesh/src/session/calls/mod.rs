//! Calls that carry tokens: what each method demands, and how it gets on the wire.

pub(crate) mod authenticated;
pub(crate) mod interceptor;
pub(crate) mod outgoing;
pub(crate) mod recorded;

pub use self::authenticated::Authenticated;
pub use self::interceptor::AuthInterceptor;
