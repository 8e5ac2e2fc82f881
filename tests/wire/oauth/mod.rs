//! OAuth 2.0 over plain HTTP, as tools speak it that know nothing of this project.

mod assertions;
mod call;
mod client_authentication;
mod contract;
mod forms;
mod health;
mod http2;
mod introspection;
mod metadata;
mod openapi;
mod revocation;
mod targets;
mod throttling;
mod tls_client_auth;
mod token;
