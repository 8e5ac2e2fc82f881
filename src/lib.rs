//! placeholder
pub mod claims;
mod cow_map;
pub mod keys;
pub mod token;
pub mod trust;
pub mod guard {
    /// a
    #[derive(Debug)]
    pub struct ServicePolicy {
        /// a
        pub service: &'static str,
        /// a
        pub audience: &'static str,
        /// a
        pub methods: &'static [MethodPolicy],
    }
    /// a
    #[derive(Debug)]
    pub struct MethodPolicy {
        /// a
        pub path: &'static str,
        /// a
        pub access: Access,
    }
    /// a
    #[derive(Debug)]
    pub enum Access {
        /// a
        Public,
        /// a
        Scopes(&'static [&'static str]),
    }
}
pub mod authority;
pub mod client;
pub mod policy;
pub mod rpc;
pub mod store;
