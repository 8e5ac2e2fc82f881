//! From fields of messages to values, and back. An error names its field.

use std::time::Duration;

use countersign_mesh::claims::{InvalidName, Name, NameRule, ScopeSet, Timestamp};
use prost_types::Timestamp as WireTimestamp;
use tonic_types::FieldViolation;

/// A field that cannot be what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InvalidField {
    field: String,
    problem: String,
}

impl InvalidField {
    pub(super) fn new(field: impl Into<String>, problem: impl ToString) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }

    pub(super) fn message(&self) -> String {
        format!("{}: {}", self.field, self.problem)
    }

    pub(super) fn to_violation(&self) -> FieldViolation {
        FieldViolation::new(self.field.clone(), self.problem.clone())
    }
}

/// A name that must be there.
pub(super) fn name<R: NameRule>(field: &str, text: &str) -> Result<Name<R>, InvalidField> {
    Name::new(text).map_err(|error| InvalidField::new(field, error))
}

/// A name that may be absent, which is empty on the wire.
pub(super) fn optional_name<R: NameRule>(
    field: &str,
    text: &str,
) -> Result<Option<Name<R>>, InvalidField> {
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}

/// Scopes, of which there may be none; at most 64.
pub(super) fn scopes(field: &str, texts: &[String]) -> Result<ScopeSet, InvalidField> {
    if texts.len() > 64 {
        return Err(InvalidField::new(field, "more than 64 scopes"));
    }
    ScopeSet::from_texts(texts.iter().map(String::as_str))
        .map_err(|error: InvalidName| InvalidField::new(field, error))
}

/// A life: one second at least, whole seconds count.
pub(super) fn life(
    field: &str,
    duration: &prost_types::Duration,
) -> Result<Duration, InvalidField> {
    match u64::try_from(duration.seconds) {
        Ok(seconds) if seconds >= 1 && duration.nanos >= 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(InvalidField::new(field, "not a duration of one second or more")),
    }
}

/// How many entries a page is to have.
pub(super) fn page_size(asked: i32) -> Result<usize, InvalidField> {
    match usize::try_from(asked) {
        Ok(0) => Ok(100),
        Ok(size) => Ok(size.min(1000)),
        Err(_) => Err(InvalidField::new("page_size", "negative")),
    }
}

/// A page token that is not one of ours.
pub(super) fn bad_page_token() -> InvalidField {
    InvalidField::new("page_token", "not the next_page_token of an earlier answer")
}

/// The id that makes a request idempotent, if it has one.
pub(super) fn request_id(text: &str) -> Result<Option<&str>, InvalidField> {
    match text.len() {
        0 => Ok(None),
        1..=64 if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(text)),
        _ => Err(InvalidField::new("request_id", "not 1 to 64 printable ASCII characters")),
    }
}

pub(super) fn wire_time(time: Timestamp) -> WireTimestamp {
    WireTimestamp { seconds: i64::try_from(time.as_unix()).unwrap_or(i64::MAX), nanos: 0 }
}

pub(super) fn wire_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos().cast_signed(),
    }
}

pub(super) fn wire_scopes(scopes: &ScopeSet) -> Vec<String> {
    scopes.iter().map(str::to_owned).collect()
}
