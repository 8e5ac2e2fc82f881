//! OAuth 2.0 over plain HTTP, as tools speak it that know nothing of this project.

mod call;
mod token;
