//! The wire: gRPC and OAuth 2.0 over one port, from the listener to the [`Authority`](crate::authority::Authority).
//!
//! # A request's way
//!
//! ```text
//! connections ─▶ inbound ─▶ hyper ─▶ peer, framing ─▶ request_log ─▶ limits::Overload ─▶ http
//!                                                                                        ├─▶ guard ─▶ grpc ──┐
//!                                                                                        └─▶ oauth ──────────┴─▶ attempt, authority
//! ```
//!
//! 1. `connections` accepts, over TLS or not (`tls`), and speaks HTTP/1.1 and HTTP/2. `inbound` watches the bytes, and
//!    `framing` refuses heads that two servers could read differently.
//! 2. `request_log` gives the request an id and writes its line in the end, whatever becomes of it.
//! 3. `limits` refuses what is too much: too many requests at once here, failed authentications and greedy clients in
//!    `attempt`.
//! 4. gRPC goes through the [`Guard`](countersign_mesh::guard::Guard), with Countersign's own policy, to a service in
//!    `grpc`. OAuth over plain HTTP stands beside the guard, in `oauth`: its clients authenticate in the request.
//! 5. Either turns a message into values (`fields`), asks the authority, and turns what it says into a message or an
//!    error (`errors`, `oauth::errors`). An `attempt` to authenticate is the same for both.
//!
//! # What holds
//!
//! - A handler of a method that demands a token gets a [`Permitted`](countersign_mesh::guard::Permitted), which only the
//!   guard makes. Without one there is no call to handle.
//! - Failures to authenticate are the same bytes for the same work, whatever the reason.
//! - Everything that a peer can make us keep is bounded in size or in time.
//! - No error and no line of the log repeats a secret or a token.
//!
//! The room decides nothing: who gets what is decided in `policy`, by the `authority`.

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
