//! Countersign: a token service for service meshes.

pub mod claims;
mod cow_map;
pub mod keys;
pub mod token;
pub mod trust;

#[cfg(feature = "mesh")]
pub mod guard;
#[cfg(feature = "mesh")]
pub mod rpc;

#[cfg(feature = "server")]
pub mod authority;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod client;
#[cfg(feature = "server")]
pub mod policy;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod store;
