//! The examples as their users run them: processes, each with the credentials that an operator made
//! for it, against a token service that is the real one.

mod apis;
mod backup;
mod health;
mod mail;
#[path = "../../examples/support/night.rs"]
mod night;
#[allow(dead_code, reason = "the tests of the program itself use all of it")]
#[path = "../process/support.rs"]
mod process;
mod shop;
mod webhooks;
