//! What each method demands: generated from the annotations, looked up for each call.

use std::collections::HashMap;
use std::sync::OnceLock;

use metrics::{Counter, SharedString};

use crate::claims::{Audience, InvalidName, ScopeSet};

/// What one service demands of its callers. Generated from the service's `.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePolicy {
    /// The service's full name, `inventory.v1.Inventory`.
    pub service: &'static str,
    /// The audience that tokens must name.
    pub audience: &'static str,
    /// What each of its methods demands.
    pub methods: &'static [MethodPolicy],
}

/// What one method demands of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodPolicy {
    /// The path that calls of the method have, `/inventory.v1.Inventory/CheckStock`.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
}

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a token.
    Public,
    /// Bearers of a token with all of these scopes.
    Scopes(&'static [&'static str]),
}

/// All that is declared, ready for look-up.
#[derive(Default)]
pub(super) struct PolicyTable {
    methods: HashMap<&'static str, Method>,
    /// Services that anyone may call, each with the prefix of its paths, `/grpc.health.v1.Health/`.
    public_services: Vec<(String, Method)>,
}

/// What is known of a method before it is called.
pub(super) struct Method {
    /// What it goes by in metrics: its path, or the name of a service that is public as a whole.
    /// Never the caller's own text.
    pub(super) label: SharedString,
    /// What a call must bring.
    pub(super) demand: Demand,
    /// Whether its streams go on when their token has expired or is revoked.
    pub(super) streams: Streams,
    /// Counts admitted calls. The counter is looked up once, with the first of them.
    pub(super) admitted: OnceLock<Counter>,
}

/// What becomes of streams whose token has expired or is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streams {
    /// They end with it.
    EndWithToken,
    /// They go on: the service has opted out.
    OutliveToken,
}

impl Method {
    fn new(label: impl Into<SharedString>, demand: Demand) -> Self {
        let streams = Streams::EndWithToken;
        Self { label: label.into(), demand, streams, admitted: OnceLock::new() }
    }
}

/// What a call must bring.
#[derive(Debug)]
pub(super) enum Demand {
    /// Nothing.
    Nothing,
    /// A token for this audience with these scopes.
    Token {
        /// The audience.
        audience: Audience,
        /// The scopes.
        scopes: ScopeSet,
    },
}

impl Demand {
    fn of(audience: &str, access: Access) -> Result<Self, InvalidName> {
        Ok(match access {
            Access::Public => Self::Nothing,
            Access::Scopes(scopes) => Self::Token {
                audience: Audience::new(audience)?,
                scopes: ScopeSet::from_texts(scopes.iter().copied())?,
            },
        })
    }
}

impl PolicyTable {
    pub(super) fn declare(&mut self, service: &ServicePolicy) {
        self.declare_as(service.audience, service);
    }

    /// Declares a service whose tokens name this audience, whatever its policy says.
    pub(super) fn declare_as(&mut self, audience: &str, service: &ServicePolicy) {
        for method in service.methods {
            match Demand::of(audience, method.access) {
                Ok(demand) => {
                    self.methods.insert(method.path, Method::new(method.path, demand));
                }
                Err(error) => {
                    tracing::error!(path = method.path, %error, "left out: a policy that cannot be")
                }
            }
        }
    }

    pub(super) fn declare_public(&mut self, service: &str) {
        let method = Method::new(service.to_owned(), Demand::Nothing);
        self.public_services.push((format!("/{service}/"), method));
    }

    /// Lets the streams of a service outlive their tokens. The service must have been declared before.
    pub(super) fn outlive_tokens(&mut self, service: &str) {
        let prefix = format!("/{service}/");
        for (_, method) in self.methods.iter_mut().filter(|(path, _)| path.starts_with(&prefix)) {
            method.streams = Streams::OutliveToken;
        }
    }

    /// The method that calls of this path are for; `None` when nobody declared it.
    pub(super) fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path).or_else(|| {
            let public =
                self.public_services.iter().find(|(prefix, _)| path.starts_with(prefix.as_str()));
            public.map(|(_, method)| method)
        })
    }

    /// The audience of everything declared, if there is exactly one.
    pub(super) fn only_audience(&self) -> Option<&Audience> {
        let mut audiences = self.methods.values().filter_map(|method| match &method.demand {
            Demand::Nothing => None,
            Demand::Token { audience, .. } => Some(audience),
        });
        let first = audiences.next()?;
        audiences.all(|audience| audience == first).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(audience: &'static str, methods: &'static [MethodPolicy]) -> ServicePolicy {
        ServicePolicy { service: "inventory.v1.Inventory", audience, methods }
    }

    fn demand_of<'a>(table: &'a PolicyTable, path: &str) -> Option<&'a Demand> {
        table.method(path).map(|method| &method.demand)
    }

    const METHODS: &[MethodPolicy] = &[
        MethodPolicy { path: "/inventory.v1.Inventory/Ping", access: Access::Public },
        MethodPolicy {
            path: "/inventory.v1.Inventory/CheckStock",
            access: Access::Scopes(&["stock:read", "a:b"]),
        },
    ];

    #[test]
    fn a_declared_method_is_found_with_its_demand_and_no_other_path_is_found() {
        let mut table = PolicyTable::default();
        table.declare(&service("inventory", METHODS));
        assert!(matches!(demand_of(&table, "/inventory.v1.Inventory/Ping"), Some(Demand::Nothing)));
        let demand = demand_of(&table, "/inventory.v1.Inventory/CheckStock");
        let Some(Demand::Token { audience, scopes }) = demand else {
            panic!("not a demand for a token: {demand:?}");
        };
        assert_eq!((audience.as_str(), scopes.as_str()), ("inventory", "a:b stock:read"));

        for undeclared in [
            "",
            "/",
            "/inventory.v1.Inventory/",
            "/inventory.v1.Inventory/Ping/",
            "//inventory.v1.Inventory/Ping",
            "/inventory.v1.Inventory/ping",
            "/inventory.v1.Inventory/Restock",
            "/inventory.v1.Inventory/%50ing",
            "/inventory.v1.Other/Ping",
        ] {
            assert!(demand_of(&table, undeclared).is_none(), "{undeclared}");
        }
    }

    #[test]
    fn a_public_service_is_public_by_its_whole_name() {
        let mut table = PolicyTable::default();
        table.declare_public("grpc.health.v1.Health");
        let public = |path| matches!(demand_of(&table, path), Some(Demand::Nothing));
        assert!(public("/grpc.health.v1.Health/Check"));
        assert!(!public("/grpc.health.v1.HealthAdmin/Check"));
        assert!(!public("/x/grpc.health.v1.Health/Check"));
    }

    #[test]
    fn a_declared_method_keeps_its_demand_even_in_a_public_service() {
        let mut table = PolicyTable::default();
        table.declare_public("inventory.v1.Inventory");
        table.declare(&service("inventory", METHODS));
        let demand = demand_of(&table, "/inventory.v1.Inventory/CheckStock");
        assert!(matches!(demand, Some(Demand::Token { .. })));
    }

    #[test]
    fn a_policy_with_malformed_names_is_left_out() {
        const BAD_SCOPE: &[MethodPolicy] = &[MethodPolicy {
            path: "/inventory.v1.Inventory/CheckStock",
            access: Access::Scopes(&["a b"]),
        }];
        for bad in
            [service("in ventory", METHODS), service("", METHODS), service("inventory", BAD_SCOPE)]
        {
            let mut table = PolicyTable::default();
            table.declare(&bad);
            assert!(demand_of(&table, "/inventory.v1.Inventory/CheckStock").is_none(), "{bad:?}");
        }
        let mut table = PolicyTable::default();
        table.declare(&service("", &METHODS[..1]));
        assert!(
            demand_of(&table, "/inventory.v1.Inventory/Ping").is_some(),
            "all public: no audience needed"
        );
    }
}
