//! What a token source tells the process's metrics. The names are documented on the module page.

use std::time::Duration;

use metrics::{Label, counter, gauge, histogram};

use crate::claims::ScopeSet;

/// Counts for one token source. The recorder is looked up at each event, so that one which is installed
/// later is found.
#[derive(Clone)]
pub(crate) struct Meter([Label; 2]);

impl Meter {
    pub(crate) fn new(audience: &str, scopes: &ScopeSet) -> Self {
        Self([
            Label::new("audience", audience.to_owned()),
            Label::new("scopes", scopes.to_string()),
        ])
    }

    /// What the tokens are for: an audience, or the host of an OAuth endpoint.
    pub(crate) fn audience(&self) -> &str {
        self.0[0].value()
    }

    /// The scopes of the tokens.
    pub(crate) fn scopes(&self) -> &str {
        self.0[1].value()
    }

    pub(crate) fn refreshed(&self, runway: Duration) {
        counter!("countersign_token_refreshes_total", self.0.iter()).increment(1);
        self.runway(runway);
    }

    pub(crate) fn failed(&self, runway: Option<Duration>) {
        counter!("countersign_token_failures_total", self.0.iter()).increment(1);
        self.runway(runway.unwrap_or_default());
    }

    pub(crate) fn waited(&self, wait: Duration) {
        counter!("countersign_token_waits_total", self.0.iter()).increment(1);
        histogram!("countersign_token_wait_seconds", self.0.iter()).record(wait);
    }

    fn runway(&self, runway: Duration) {
        gauge!("countersign_token_runway_seconds", self.0.iter()).set(runway);
    }
}
