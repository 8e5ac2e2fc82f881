//! Everything that goes over the wire, against a real server on a real socket.

mod assertions;
mod audit;
mod audit_chain;
mod audit_refusals;
mod caller;
mod certificates;
mod client_certificates;
mod clients;
mod epochs;
mod guard;
mod http;
mod idempotency;
mod issuing;
mod keys;
mod limits;
mod malformed;
mod mesh;
mod oauth;
mod operators;
mod pki;
mod revocation;
mod secrets;
mod store;
mod support;
mod tls;
mod tokens;
