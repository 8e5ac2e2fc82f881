//! The wire: gRPC and a little HTTP over one port, from the listener to the [`Authority`](crate::authority::Authority).
//!
//! Outermost is the request log, then the [`Guard`](crate::guard::Guard) with Countersign's own
//! policy, then the services, each of which turns a message into values, asks the authority, and
//! turns what it says into a message or a status.

mod deadline;
mod errors;
mod fields;
mod grpc;
mod http;
mod oauth;
mod request_log;
mod wiring;

pub use self::oauth::BasicCredentials;
pub use self::oauth::Form;
pub use self::oauth::FormError;
pub use self::wiring::ServeError;
pub use self::wiring::serve;
