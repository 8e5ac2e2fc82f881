//! Everything that goes over the wire, against a real server on a real socket.

mod assertions;
mod audit;
mod audit_chain;
mod audit_refusals;
mod caller;
mod clients;
mod guard;
mod http;
mod idempotency;
mod issuing;
mod keys;
mod malformed;
mod mesh;
mod oauth;
mod operators;
mod revocation;
mod secrets;
mod store;
mod support;
mod tokens;
