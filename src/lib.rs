//! placeholder
pub mod guard { 
 /// a
 #[derive(Debug)] pub struct ServicePolicy {/// a
 pub service: &'static str,/// a
 pub audience: &'static str,/// a
 pub methods: &'static [MethodPolicy]}
 /// a
 #[derive(Debug)] pub struct MethodPolicy {/// a
 pub path: &'static str, /// a
 pub access: Access}
 /// a
 #[derive(Debug)] pub enum Access {/// a
 Public, /// a
 Scopes(&'static [&'static str])}
}
#[cfg(feature = "server")]
pub mod cli;
pub mod rpc;
