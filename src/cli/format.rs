//! The shapes in which answers and errors are written.

use clap::ValueEnum;

/// How answers and errors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned text for people; may change.
    Human,
    /// One line of JSON for scripts; its keys are stable.
    Json,
}
