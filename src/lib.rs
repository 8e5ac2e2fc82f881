//! Countersign: a token service for service meshes.
//!
//! A registered client (a service, a cron job, a worker, a script, a partner) proves who it is and
//! gets a short-lived Ed25519-signed token for one audience. It attaches the token to every gRPC
//! call; the callee verifies it offline, in microseconds, and enforces the scopes that its own
//! `.proto` declares. It is the OAuth 2.0 client credentials grant (RFC 6749 §4.4), and only that:
//! the app authenticates itself. There is never a user, so there is no login, no authorization
//! code and no refresh token.
//!
//! This package is the service and its binary. What services link is `countersign-mesh`; what their
//! build scripts use is `countersign-build`. Nothing here is an interface for other crates: the library
//! exists for the binary and for this package's own tests and benchmarks.
//!
//! # The rooms
//!
//! An arrow points from what uses to what is used, and never back. No two files of a room use each other
//! either, by any way round; but for those of `authority`, which is one type in many files. `tests/layout`
//! holds the code to it.
//!
//! ```text
//! cli -> server -> authority -> store -> policy -> client -> ring -> countersign-mesh
//! cli, server -> rpc -> countersign-mesh
//! cli -> countersign-build
//! ```
//!
//! | Room | What it is |
//! |---|---|
//! | `ring` | the lifecycle of signing keys, and when they may rotate: pure |
//! | `client` | registered clients, their credentials, the proof that they authenticated |
//! | `policy` | who gets what, as pure functions |
//! | `store` | SQLite: the state, the one writer, the audit log |
//! | `authority` | the use cases; start reading there |
//! | `rpc` | the generated protos |
//! | `server` | the wire |
//! | `cli` | the command line |

// For the binary, the tests and the benchmarks of this package. Everything in them may change with
// any release.
#[doc(hidden)]
pub mod authority;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod client;
#[doc(hidden)]
pub mod policy;
#[doc(hidden)]
pub mod ring;
#[doc(hidden)]
pub mod rpc;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod store;
