//! The wire: gRPC over one port, from the listener to the [`Authority`].
//!
//! Outermost is the [request log](request_log), then the [`Guard`](crate::guard::Guard) with
//! Countersign's own policy, then the services, each of which turns a message into values, asks the
//! authority, and turns what it says into a message or a [status](errors).

mod deadline;
mod errors;
mod fields;
mod grpc;
mod request_log;
mod wiring;

pub use self::wiring::ServeError;
pub use self::wiring::serve;
