//! Everything that goes over the wire, against a real server on a real socket.

mod audit;
mod audit_chain;
mod store;
mod support;
mod tokens;
