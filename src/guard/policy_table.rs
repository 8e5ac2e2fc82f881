//! What each method demands: generated from the annotations, looked up for each call.

use std::collections::HashMap;

use crate::claims::Audience;
use crate::claims::InvalidName;
use crate::claims::ScopeSet;

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
#[derive(Debug, Default)]
pub(super) struct PolicyTable {
    methods: HashMap<&'static str, Demand>,
    /// Prefixes of paths, `/grpc.health.v1.Health/`, of services that anyone may call.
    public_services: Vec<String>,
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
        for method in service.methods {
            match Demand::of(service.audience, method.access) {
                Ok(demand) => drop(self.methods.insert(method.path, demand)),
                Err(error) => {
                    tracing::error!(path = method.path, %error, "left out: a policy that cannot be")
                }
            }
        }
    }

    pub(super) fn declare_public(&mut self, service: &str) {
        self.public_services.push(format!("/{service}/"));
    }

    /// What a call of this path must bring; `None` when nobody declared it.
    pub(super) fn demand(&self, path: &str) -> Option<&Demand> {
        self.methods.get(path).or_else(|| {
            let public =
                self.public_services.iter().any(|prefix| path.starts_with(prefix.as_str()));
            public.then_some(&Demand::Nothing)
        })
    }
}
