//! placeholder
pub mod claims; pub mod keys; pub mod token; pub mod trust; mod cow_map;
pub mod guard;
pub mod rpc; pub mod client; pub mod policy; pub mod store; pub mod authority;
