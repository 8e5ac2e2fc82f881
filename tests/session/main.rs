//! A session and all that it keeps fresh, against issuers and callees that do as the test tells them.
//!
//! `countersign` issues tokens in memory, `trust_server` hands trust streams to the test, `endpoint`
//! speaks HTTP on a real socket, and `callee` is a service that is called. Most tests pause tokio's
//! clock, so that minutes pass at once. Tests with real sockets move it by hand.

mod callee;
mod calls;
mod countersign;
mod credentials_file;
mod endpoint;
mod files;
mod metrics;
mod oauth;
mod retries;
mod staleness;
mod tls;
mod tokens;
mod trust;
mod trust_server;
mod trust_stream;
mod variables;
