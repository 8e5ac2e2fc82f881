//! The token sources of one session.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::claims::{Audience, ScopeSet};
use crate::session::reach::jitter::Jitter;
use crate::session::tokens::countersign::Countersign;
use crate::session::tokens::endpoint::Endpoint;
use crate::session::tokens::source::TokenSource;

/// One source for each audience and set of scopes, started when somebody first asks for it, and what the
/// session's clients will ask for.
pub(crate) struct TokenSources {
    countersign: Countersign,
    jitter: Jitter,
    started: Mutex<HashMap<(Audience, ScopeSet), TokenSource>>,
    /// What the clients that were made will need, whether or not they have called yet.
    needed: Mutex<HashSet<(Audience, ScopeSet)>>,
}

impl TokenSources {
    pub(crate) fn new(countersign: Countersign, jitter: Jitter) -> Self {
        Self { countersign, jitter, started: Mutex::default(), needed: Mutex::default() }
    }

    /// Who issues the tokens.
    pub(crate) fn countersign(&self) -> &Countersign {
        &self.countersign
    }

    /// The source for an audience and scopes.
    pub(crate) fn source(&self, audience: Audience, scopes: ScopeSet) -> TokenSource {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started
            .entry((audience, scopes))
            .or_insert_with_key(|(audience, scopes)| {
                let endpoint = Endpoint::Countersign {
                    countersign: self.countersign.clone(),
                    audience: audience.clone(),
                    scopes: scopes.clone(),
                };
                TokenSource::start(endpoint, self.jitter.clone())
            })
            .clone()
    }

    /// Notes what a client that was made will need.
    pub(crate) fn will_need(&self, audience: &Audience, scopes: &ScopeSet) {
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        needed.insert((audience.clone(), scopes.clone()));
    }

    /// The sources of all that is needed, by audience. Whichever was not started yet is now.
    pub(crate) fn needed_by_audience(&self) -> BTreeMap<Audience, Vec<TokenSource>> {
        let needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut by_audience = BTreeMap::<_, Vec<_>>::new();
        for (audience, scopes) in needed {
            let source = self.source(audience.clone(), scopes);
            by_audience.entry(audience).or_default().push(source);
        }
        by_audience
    }
}
