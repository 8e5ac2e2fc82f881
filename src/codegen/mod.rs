//! From the annotations in a `.proto` to what is compiled into a program.
//!
//! Stands alone: `build.rs` shares these files by path, so nothing here may use another room.

mod annotations;
mod emit;

pub use self::annotations::AnnotationError;
pub use self::annotations::MethodRule;
pub use self::annotations::Problem;
pub use self::annotations::Rule;
pub use self::annotations::ServiceRule;
pub use self::annotations::read_annotations;
pub use self::emit::policy_table;
