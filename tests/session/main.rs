//! A session and all that it keeps fresh, against issuers and callees that do as they are told.

mod callee;
mod calls;
mod countersign;
mod credentials_file;
mod endpoint;
mod files;
mod metrics;
mod oauth;
mod retries;
mod tls;
mod tokens;
mod trust;
mod variables;
