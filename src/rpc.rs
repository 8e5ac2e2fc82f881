//! The wire as the server sees it: the messages that `countersign-mesh` has for everyone, and the
//! servers that `build.rs` makes of the files in `proto/`.

pub use countersign_mesh::rpc::*;

pub use self::generated::{
    audit_service_server, client_service_server, key_service_server, token_service_server,
    trust_service_server,
};

#[allow(
    clippy::pedantic,
    dead_code,
    missing_docs,
    reason = "generated code: servers carry no comments, and the policies stand in countersign-mesh too"
)]
mod generated {
    tonic::include_proto!("countersign.v1");
}

/// The compiled protos with their options, for server reflection.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("countersign");
