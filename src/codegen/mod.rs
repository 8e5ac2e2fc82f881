//! From the annotations in a `.proto` to what is compiled into a program.
//!
//! Stands alone: `build.rs` shares these files by path, so nothing here may use another room.

pub mod annotations;
pub mod emit;
