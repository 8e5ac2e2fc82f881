//! Writes our code after tonic's.

use std::collections::HashMap;

use prost_build::{Module, Service, ServiceGenerator};

use crate::annotations::ServiceRule;
use crate::service::{AnnotatedService, package_policies};

/// Tonic's generator, and ours at the end of each package, so that all that tonic writes comes
/// first and stays what it is.
pub struct Generator {
    tonic: Box<dyn ServiceGenerator>,
    rules: HashMap<String, ServiceRule>,
    /// By module, not by package: two packages whose names differ in case share a file.
    written: HashMap<Module, Vec<AnnotatedService>>,
}

impl Generator {
    /// Around tonic's generator, for services with these rules, by their full names.
    pub fn new(tonic: Box<dyn ServiceGenerator>, rules: HashMap<String, ServiceRule>) -> Self {
        Self { tonic, rules, written: HashMap::new() }
    }
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, buf: &mut String) {
        let full_name = match service.package.as_str() {
            "" => service.proto_name.clone(),
            package => format!("{package}.{}", service.proto_name),
        };
        let module = Module::from_protobuf_package_name(&service.package);
        let name = service.name.clone();
        let start = buf.len();
        self.tonic.generate(service, buf);
        if let Some(rule) = self.rules.remove(&full_name) {
            let service = AnnotatedService::new(name, rule, &buf[start..]);
            self.written.entry(module).or_default().push(service);
        }
        if buf.is_empty() {
            // prost drops the modules without content, and later fails to find their files.
            buf.push('\n');
        }
    }

    fn finalize(&mut self, buf: &mut String) {
        self.tonic.finalize(buf);
    }

    fn finalize_package(&mut self, package: &str, buf: &mut String) {
        self.tonic.finalize_package(package, buf);
        let module = Module::from_protobuf_package_name(package);
        let services = self.written.remove(&module).unwrap_or_default();
        for service in &services {
            buf.push_str(&service.items());
        }
        if !services.is_empty() {
            buf.push_str(&package_policies(&services));
        }
    }
}
