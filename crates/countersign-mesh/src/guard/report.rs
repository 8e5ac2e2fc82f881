//! What operators see of a guard: a line and a count for each refusal, a count of what was admitted,
//! and whether it only reports.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use metrics::{Counter, SharedString};

use crate::claims::{ClientId, Timestamp};
use crate::guard::refusal::{Refusal, RefusalDetail};
use crate::trust::VerifiedToken;

/// The `method` label of calls whose path nobody declared. Callers choose those paths, so there is no
/// bound to them.
pub(super) const UNDECLARED: SharedString = SharedString::const_str("undeclared");

/// The `method` label of calls of HTTP routes, whose paths carry ids.
pub(super) const HTTP_ROUTE: SharedString = SharedString::const_str("http");

/// How a guard reports.
pub(super) struct Reports {
    report_only: Option<ReportOnly>,
    refusal_log: RefusalLog,
}

/// Whether refused calls get a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalLog {
    /// Each one.
    Written,
    /// Somebody else writes it.
    LeftOut,
}

/// What becomes of a call or a stream that does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enforcement {
    /// It is refused.
    Enforced,
    /// It goes on, and is reported.
    Reported,
}

impl Enforcement {
    fn as_label(self) -> &'static str {
        match self {
            Self::Enforced => "true",
            Self::Reported => "false",
        }
    }
}

struct ReportOnly {
    until: Timestamp,
    /// What the gauge shows: nothing yet, on, or over.
    shown: AtomicU8,
}

const SHOWN_ON: u8 = 1;
const SHOWN_OVER: u8 = 2;

impl Reports {
    pub(super) fn new(
        report_only_until: Option<Timestamp>,
        refusal_log: RefusalLog,
        now: Timestamp,
    ) -> Self {
        let report_only = report_only_until.map(|until| {
            if now < until {
                tracing::warn!(
                    until = until.as_unix(),
                    "the guard only reports, and refuses nothing"
                );
            }
            // Set again with the first call: the program may install its metrics recorder after this.
            show(until, now);
            ReportOnly { until, shown: AtomicU8::new(0) }
        });
        Self { report_only, refusal_log }
    }

    /// Until when the guard only reports; `None` once it enforces. Sets the gauge when that has
    /// changed.
    pub(super) fn only_until(&self, now: Timestamp) -> Option<Timestamp> {
        let ReportOnly { until, shown } = self.report_only.as_ref()?;
        let state = if now < *until { SHOWN_ON } else { SHOWN_OVER };
        // The load alone is enough for nearly every call; the swap lets one call of many set the gauge.
        if shown.load(Ordering::Relaxed) != state && shown.swap(state, Ordering::Relaxed) != state {
            show(*until, now);
        }
        (now < *until).then_some(*until)
    }

    /// What becomes of a call that does not pass.
    pub(super) fn enforcement(&self, now: Timestamp) -> Enforcement {
        match self.only_until(now) {
            Some(_) => Enforcement::Reported,
            None => Enforcement::Enforced,
        }
    }

    /// Reports a call that is, or would be, refused.
    pub(super) fn refused(
        &self,
        label: SharedString,
        path: &str,
        refused: &RefusalDetail,
        enforcement: Enforcement,
    ) {
        let reason = refused.refusal.reason();
        metrics::counter!(
            "countersign_guard_refusals_total",
            "reason" => reason,
            "method" => label,
            "enforced" => enforcement.as_label(),
        )
        .increment(1);
        let client = refused.client.as_ref().map_or("", ClientId::as_str);
        let detail = refused.rejection.as_ref().map(tracing::field::debug);
        // The path is the caller's own text. `Debug` escapes control characters in it.
        match (enforcement, self.refusal_log) {
            (Enforcement::Reported, _) => {
                tracing::warn!(?path, reason, client, detail, "call would be refused")
            }
            (Enforcement::Enforced, RefusalLog::Written) => {
                tracing::info!(?path, reason, client, detail, "call refused")
            }
            (Enforcement::Enforced, RefusalLog::LeftOut) => {
                tracing::debug!(?path, reason, client, detail, "call refused")
            }
        }
    }

    /// Reports a stream whose token has expired or is revoked. A server's own request log does not show
    /// that, so the line is always written.
    pub(super) fn ended(
        &self,
        label: SharedString,
        token: &VerifiedToken,
        refusal: &Refusal,
        enforcement: Enforcement,
    ) {
        let reason = refusal.reason();
        let client = token.claims().client_id.as_str();
        match enforcement {
            Enforcement::Reported => {
                tracing::warn!(path = &*label, reason, client, "stream would be ended")
            }
            Enforcement::Enforced => tracing::info!(path = &*label, reason, client, "stream ended"),
        }
        metrics::counter!(
            "countersign_guard_streams_ended_total",
            "reason" => reason,
            "method" => label,
            "enforced" => enforcement.as_label(),
        )
        .increment(1);
    }

    /// Counts an admitted call. The counter is looked up once, when there is something to count.
    pub(super) fn admitted(&self, counter: &OnceLock<Counter>, label: &SharedString) {
        let counter = counter.get_or_init(
            || metrics::counter!("countersign_guard_admitted_total", "method" => label.clone()),
        );
        counter.increment(1);
    }
}

fn show(until: Timestamp, now: Timestamp) {
    let gauge = metrics::gauge!(
        "countersign_guard_report_only",
        "until" => until.as_unix().to_string(),
    );
    gauge.set(if now < until { 1.0 } else { 0.0 });
}
