//! A guard before real services: what it lets through, what it refuses, and when streams end.

mod calls;
mod explain;
mod http_routes;
mod reports;
mod sockets;
mod stale;
mod streams;
mod support;
