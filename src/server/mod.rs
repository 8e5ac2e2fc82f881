//! The wire: gRPC and a little HTTP over one port, from the listener to the [`Authority`](crate::authority::Authority).
//!
//! `connections` accepts, over TLS or not, and speaks HTTP/1.1 and HTTP/2. Outermost in it is the request log, then the
//! [`Guard`](countersign_mesh::guard::Guard) with Countersign's own policy, then the services, each of which turns a message into values, asks the authority, and
//! turns what it says into a message or a status. OAuth 2.0 over plain HTTP stands beside the guard:
//! its clients authenticate in the request.

mod attempt;
mod connections;
mod deadline;
mod desk;
mod errors;
mod fields;
mod framing;
mod grpc;
mod http;
mod inbound;
mod limits;
mod notes;
mod oauth;
mod peer;
mod request_log;
mod tls;
mod wiring;

pub use self::limits::LimitSettings;
pub use self::oauth::{BasicCredentials, Form, FormError};
pub use self::tls::{Tls, TlsError, TlsFiles, TlsProblem};
pub use self::wiring::{Options, ServeError, serve, serve_on, serve_with};
