//! The options of a guard beyond its trust and its services.

use std::sync::Arc;

use crate::claims::{Audience, Clock, DEFAULT_LEEWAY, Timestamp};
use crate::guard::admission::Checks;
use crate::guard::layer::Guard;
use crate::guard::live_trust::{Trust, WhenStale};
use crate::guard::policy_table::{PolicyTable, ServicePolicy};
use crate::guard::report::{RefusalLog, Reports};

/// Builds a [`Guard`] with options.
pub struct GuardBuilder {
    trust: Trust,
    policies: PolicyTable,
    clock: Clock,
    outliving: Vec<String>,
    report_only_until: Option<Timestamp>,
    refusal_log: RefusalLog,
}

impl Guard {
    /// A guard that knows these services and refuses calls of all others.
    pub fn new(trust: impl Into<Trust>, services: &[ServicePolicy]) -> Self {
        Self::builder(trust).services(services).build()
    }

    /// A guard that knows no service yet.
    pub fn builder(trust: impl Into<Trust>) -> GuardBuilder {
        GuardBuilder::new(trust.into())
    }
}

impl GuardBuilder {
    fn new(trust: Trust) -> Self {
        Self {
            trust,
            policies: PolicyTable::default(),
            clock: Clock::system(),
            outliving: Vec::new(),
            report_only_until: None,
            refusal_log: RefusalLog::Written,
        }
    }

    /// Enforces the policies of these services. A policy with a malformed audience or scope is left
    /// out, so that its calls are refused; generated policies have none.
    pub fn services(mut self, services: &[ServicePolicy]) -> Self {
        services.iter().for_each(|service| self.policies.declare(service));
        self
    }

    /// Enforces the policies of these services with tokens for this audience instead of the one that
    /// their `.proto` names, where a service is deployed under another: the counterpart of
    /// [`Session::audience`](crate::session::Session::audience).
    pub fn services_as(mut self, audience: &Audience, services: &[ServicePolicy]) -> Self {
        services.iter().for_each(|service| self.policies.declare_as(audience.as_str(), service));
        self
    }

    /// Lets anyone call a service, by its full name: `grpc.health.v1.Health`.
    pub fn public_service(mut self, name: &str) -> Self {
        self.policies.declare_public(name);
        self
    }

    /// Lets the streams of a service, by its full name, go on when the token that opened them has
    /// expired or is revoked. For services that end such streams themselves.
    pub fn streams_outlive_tokens(mut self, service: &str) -> Self {
        self.outliving.push(service.to_owned());
        self
    }

    /// Refuses nothing until this time, and reports what it would refuse: in the log, in
    /// `countersign_guard_refusals_total{enforced="false"}`, and by `countersign_guard_report_only`
    /// being 1. For rolling a guard out on a live mesh; afterwards it enforces by itself.
    ///
    /// A call that would be refused goes on as it came and carries no [`Permitted`](crate::guard::Permitted),
    /// so that a handler cannot take it for permitted.
    pub fn report_only_until(mut self, until: Timestamp) -> Self {
        self.report_only_until = Some(until);
        self
    }

    /// What this guard does while its trust is stale, instead of what the trust itself says.
    pub fn when_stale(mut self, when_stale: WhenStale) -> Self {
        self.trust = self.trust.treated(when_stale);
        self
    }

    /// Writes refused calls to the log at debug level only, for servers whose own request log has
    /// them: the [`Refusal`](crate::guard::Refusal) is in the response's extensions. They are counted all the same.
    pub fn without_refusal_log(mut self) -> Self {
        self.refusal_log = RefusalLog::LeftOut;
        self
    }

    /// Reads the time from this clock instead of the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The guard.
    pub fn build(self) -> Guard {
        let Self { trust, mut policies, clock, outliving, report_only_until, refusal_log } = self;
        outliving.iter().for_each(|service| policies.outlive_tokens(service));
        let reports = Reports::new(report_only_until, refusal_log, clock.now());
        let checks = Checks::new(policies, trust, clock, DEFAULT_LEEWAY, reports);
        Guard { checks: Arc::new(checks), audience: None }
    }
}
