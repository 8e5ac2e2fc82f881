//! What a gRPC status means to whoever typed the command.

use std::collections::BTreeMap;
use std::error::Error as StdError;

use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::cli::error::Error;
use crate::cli::output;

/// The error to print for a call's status. `url` is where the call went, `origin` where its credentials
/// were found.
pub fn explain(status: &Status, url: &str, origin: &str) -> Error {
    // A status that came over the wire has no source. One that tonic made on this side of a broken
    // connection has.
    if let Some(source) = status.source() {
        return no_connection(url, origin, source);
    }
    let (kind, name) = classify(status.code());
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    let reason = info.as_ref().map_or(name, |info| info.reason.as_str());

    let mut problem = match kind {
        Kind::Refused => format!("refused ({reason})"),
        Kind::Unreachable => format!("no answer from {url} ({reason})"),
        Kind::Failed => format!("the server at {url} failed ({reason})"),
    };
    let special = special_advice(reason, origin);
    // A message of ours that says what to do says it last.
    let message = status.message().trim_end_matches('.');
    let (message, told) = match message.rsplit_once("; ") {
        Some((message, told)) if info.is_some() && special.is_none() => (message, Some(told)),
        _ => (message, None),
    };
    if !message.is_empty() {
        problem.push_str(&format!(": {message}"));
    }
    let violation =
        status.get_details_bad_request().and_then(|bad| bad.field_violations.into_iter().next());
    if let Some(violation) = violation.filter(|violation| !message.contains(&violation.description))
    {
        problem.push_str(&format!(
            ": {}: {}",
            violation.field,
            violation.description.trim_end_matches('.')
        ));
    }

    let wait = status.get_details_retry_info().and_then(|retry| retry.retry_delay);
    let next = match (reason, wait) {
        ("VERIFIERS_BEHIND", Some(wait)) => format!(
            "try again in {}, have that done with --wait, or go ahead with --force",
            output::span(wait.as_secs().max(1))
        ),
        (_, Some(wait)) => format!("try again in {}", output::span(wait.as_secs().max(1))),
        (_, None) => special
            .or_else(|| told.map(str::to_owned))
            .unwrap_or_else(|| advice(status.code(), url, origin)),
    };
    let error = match kind {
        Kind::Refused => Error::refused(problem, next),
        Kind::Unreachable => Error::unreachable(problem, next),
        Kind::Failed => Error::failed(problem, next),
    };
    error.with_reason(reason, details(status, name))
}

/// What a status says beside its reason, for scripts: its code, the field at fault, when to try again, and the
/// metadata of the reason.
fn details(status: &Status, code: &str) -> BTreeMap<String, Value> {
    let told = status.get_error_details();
    let mut details = BTreeMap::from([("code".to_owned(), Value::from(code))]);
    if let Some(info) = told.error_info() {
        let metadata = info.metadata.iter();
        details.extend(metadata.map(|(key, value)| (key.clone(), Value::from(value.as_str()))));
    }
    if let Some(violation) = told.bad_request().and_then(|bad| bad.field_violations.first()) {
        details.insert("field".to_owned(), Value::from(violation.field.as_str()));
    }
    if let Some(delay) = told.retry_info().and_then(|retry| retry.retry_delay) {
        details.insert("retry_after_seconds".to_owned(), Value::from(delay.as_secs().max(1)));
    }
    details
}

/// The error for a connection that could not be made, or that broke.
pub fn no_connection(url: &str, origin: &str, source: &(dyn StdError + 'static)) -> Error {
    // The innermost cause is the one that names the trouble: "connection refused", not "transport error".
    let mut cause = source;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Error::unreachable(
        format!("cannot reach {url}: {cause}"),
        format!("start a server there (countersign serve), or correct the url in {origin}"),
    )
}

/// The `ErrorInfo` domain of the reasons that this program knows.
const DOMAIN: &str = "countersign.dev";

enum Kind {
    Refused,
    Unreachable,
    Failed,
}

fn classify(code: Code) -> (Kind, &'static str) {
    match code {
        Code::InvalidArgument => (Kind::Refused, "INVALID_ARGUMENT"),
        Code::NotFound => (Kind::Refused, "NOT_FOUND"),
        Code::AlreadyExists => (Kind::Refused, "ALREADY_EXISTS"),
        Code::PermissionDenied => (Kind::Refused, "PERMISSION_DENIED"),
        Code::ResourceExhausted => (Kind::Refused, "RESOURCE_EXHAUSTED"),
        Code::FailedPrecondition => (Kind::Refused, "FAILED_PRECONDITION"),
        Code::Aborted => (Kind::Refused, "ABORTED"),
        Code::OutOfRange => (Kind::Refused, "OUT_OF_RANGE"),
        Code::Unauthenticated => (Kind::Refused, "UNAUTHENTICATED"),
        Code::Unavailable => (Kind::Unreachable, "UNAVAILABLE"),
        Code::DeadlineExceeded => (Kind::Unreachable, "DEADLINE_EXCEEDED"),
        // tonic's server answers CANCELLED when the caller's deadline has passed there.
        Code::Cancelled => (Kind::Unreachable, "CANCELLED"),
        Code::Ok => (Kind::Failed, "OK"),
        Code::Unknown => (Kind::Failed, "UNKNOWN"),
        Code::Unimplemented => (Kind::Failed, "UNIMPLEMENTED"),
        Code::Internal => (Kind::Failed, "INTERNAL"),
        Code::DataLoss => (Kind::Failed, "DATA_LOSS"),
    }
}

/// What to do next about a reason that takes more than its message says.
fn special_advice(reason: &str, origin: &str) -> Option<String> {
    Some(match reason {
        "CLIENT_REJECTED" => format!("check client_id and its secret or key in {origin}"),
        "SCOPE_DENIED" | "SCOPE_MISSING" => format!(
            "have the scope granted (countersign client update ID --add-grant), or use other credentials than {origin}"
        ),
        "AUDIENCE_DENIED" => format!(
            "use the credentials of a client that has a grant for it, or serves it, instead of those in {origin}"
        ),
        "CREDENTIAL_LIMIT" => {
            "countersign client credential list shows when each was last used".to_owned()
        }
        "VERIFIERS_BEHIND" => "wait until they have caught up, or go ahead with --force".to_owned(),
        _ => return None,
    })
}

/// What to do next, by the code.
fn advice(code: Code, url: &str, origin: &str) -> String {
    match code {
        Code::InvalidArgument | Code::OutOfRange => "correct it and try again".to_owned(),
        Code::NotFound => "check the name; `list` shows what there is".to_owned(),
        Code::AlreadyExists => "choose another name, or change the one there is".to_owned(),
        Code::PermissionDenied => {
            format!("use credentials that may do this, not those in {origin}")
        }
        Code::Unauthenticated => format!("check the credentials in {origin}"),
        Code::ResourceExhausted => "try again later".to_owned(),
        Code::FailedPrecondition => "put that right first".to_owned(),
        Code::Aborted => "someone else changed it meanwhile: look at it, and try again".to_owned(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            "try again in a moment".to_owned()
        }
        Code::Unimplemented => {
            format!("check that {url} is a Countersign server as new as this program")
        }
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
            "look at the server's log".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io;
    use std::time::Duration;

    use tonic_types::ErrorDetails;

    use super::*;

    const URL: &str = "http://127.0.0.1:9443";

    fn refused(code: Code, message: &str, details: ErrorDetails) -> String {
        let status = Status::with_error_details(code, message, details);
        match explain(&status, URL, "op.toml") {
            error @ Error::Refused(_) => error.line().expect("a refusal says something"),
            other => panic!("{other:?} is no refusal"),
        }
    }

    #[test]
    fn a_reason_of_ours_is_named_with_what_to_do() {
        let details = ErrorDetails::with_error_info("CLIENT_REJECTED", DOMAIN, HashMap::new());
        assert_eq!(
            refused(Code::Unauthenticated, "client or credential not accepted.", details),
            "countersign: refused (CLIENT_REJECTED): client or credential not accepted; \
             check client_id and its secret or key in op.toml"
        );
    }

    #[test]
    fn a_reason_of_another_domain_gives_way_to_the_code() {
        let details =
            ErrorDetails::with_error_info("CLIENT_REJECTED", "example.com", HashMap::new());
        let line = refused(Code::Unauthenticated, "no", details);
        assert_eq!(
            line,
            "countersign: refused (UNAUTHENTICATED): no; check the credentials in op.toml"
        );
    }

    #[test]
    fn the_first_field_at_fault_is_shown_once() {
        let details = || {
            ErrorDetails::with_bad_request_violation(
                "client.client_id",
                "longer than 64 characters",
            )
        };
        assert_eq!(
            refused(Code::InvalidArgument, "malformed request", details()),
            "countersign: refused (INVALID_ARGUMENT): malformed request: client.client_id: longer than 64 characters; \
             correct it and try again"
        );
        let said = refused(
            Code::InvalidArgument,
            "client.client_id: longer than 64 characters",
            details(),
        );
        assert_eq!(said.matches("longer").count(), 1, "{said}");
    }

    #[test]
    fn a_retry_delay_from_the_server_is_passed_on() {
        let mut details = ErrorDetails::with_retry_info(Some(Duration::from_secs(3)));
        details.set_error_info("RATE_LIMITED", DOMAIN, HashMap::new());
        let line = refused(Code::ResourceExhausted, "too many requests", details);
        assert_eq!(line, "countersign: refused (RATE_LIMITED): too many requests; try again in 3s");
    }

    #[test]
    fn no_answer_and_a_fault_of_the_server_have_different_errors() {
        let explained = |code| explain(&Status::new(code, "m"), URL, "op.toml");
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled] {
            assert!(matches!(explained(code), Error::Unreachable(_)), "{code:?}");
        }
        for code in [Code::Internal, Code::Unknown, Code::Unimplemented] {
            assert!(matches!(explained(code), Error::Failed(_)), "{code:?}");
        }
        let mut broken = Status::unknown("transport error");
        broken.set_source(std::sync::Arc::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert!(matches!(explain(&broken, URL, "op.toml"), Error::Unreachable(_)));
    }
}
