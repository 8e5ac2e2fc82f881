//! What the methods that a client calls demand of it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tonic::Status;

use crate::claims::{Audience, InvalidName, ScopeSet};
use crate::guard::{Access, ServicePolicy};
use crate::session::tokens::source::TokenSource;
use crate::session::tokens::sources::TokenSources;

/// What each method demands of us, and where the tokens for it come from.
pub(crate) struct OutgoingPolicy {
    tokens: Arc<TokenSources>,
    methods: HashMap<&'static str, Needs>,
}

enum Needs {
    Nothing,
    Token { audience: Audience, scopes: ScopeSet, source: OnceLock<TokenSource> },
}

impl Needs {
    fn of(audience: &str, access: Access) -> Result<Self, InvalidName> {
        Ok(match access {
            Access::Public => Self::Nothing,
            Access::Scopes(scopes) => Self::Token {
                audience: Audience::new(audience)?,
                scopes: ScopeSet::from_texts(scopes.iter().copied())?,
                source: OnceLock::new(),
            },
        })
    }
}

impl OutgoingPolicy {
    /// A method whose policy has a malformed audience or scope is left out, so that its calls fail.
    pub(crate) fn new(
        tokens: &Arc<TokenSources>,
        audience: Option<&Audience>,
        policies: &[ServicePolicy],
    ) -> Self {
        let mut methods = HashMap::new();
        for policy in policies {
            let audience = audience.map_or(policy.audience, Audience::as_str);
            for method in policy.methods {
                match Needs::of(audience, method.access) {
                    Ok(needs) => {
                        if let Needs::Token { audience, scopes, .. } = &needs {
                            tokens.will_need(audience, scopes);
                        }
                        methods.insert(method.path, needs);
                    }
                    Err(error) => {
                        tracing::error!(path = method.path, %error, "left out: a policy that cannot be")
                    }
                }
            }
        }
        Self { tokens: Arc::clone(tokens), methods }
    }

    /// Where the token for a call of this path comes from; `None` when it carries none.
    pub(crate) fn source(&self, path: &str) -> Result<Option<&TokenSource>, Status> {
        match self.methods.get(path) {
            Some(Needs::Nothing) => Ok(None),
            Some(Needs::Token { audience, scopes, source }) => {
                let start = || self.tokens.source(audience.clone(), scopes.clone());
                Ok(Some(source.get_or_init(start)))
            }
            None => Err(Status::unimplemented(format!(
                "{path} is not in the policy that this client was made with"
            ))),
        }
    }
}
