//! For build scripts: compiles your protos, and beside tonic's clients and servers writes what
//! Countersign needs to guard them.
//!
//! # Declare
//!
//! A service says in its `.proto` who may call it. `countersign/v1/auth.proto` needs no copy: every
//! build finds the one that comes with this crate.
//!
//! ```proto
//! syntax = "proto3";
//! package shop.inventory.v1;
//! import "countersign/v1/auth.proto";
//!
//! service Inventory {
//!   option (countersign.v1.service).audience = "inventory";
//!   rpc CheckStock(CheckStockRequest) returns (CheckStockResponse) {
//!     option (countersign.v1.auth).scopes = "stock:read"; // repeated: all are required
//!   }
//!   rpc Ping(PingRequest) returns (PingResponse) {
//!     option (countersign.v1.auth).public = true; // callable without a token
//!   }
//! }
//! ```
//!
//! # Compile
//!
//! Neither `protoc` nor anything else has to be installed. In `Cargo.toml`:
//!
//! ```toml
//! [dependencies]
//! countersign-mesh = "0.1"
//! prost = "0.14"
//! tonic = "0.14"
//! tonic-prost = "0.14"
//!
//! [build-dependencies]
//! countersign-build = "0.1"
//! ```
//!
//! and all of `build.rs`:
//!
//! ```no_run
//! fn main() -> countersign_build::Result {
//!     countersign_build::compile(&["proto/inventory.proto"], &["proto"])
//! }
//! ```
//!
//! A method that says neither which scopes it demands nor that it is public fails the build, and so
//! does every other annotation that cannot be meant. All of them are told at once, each with its
//! file, line and method, and with what to write instead.
//!
//! # Use
//!
//! ```ignore
//! mod pb {
//!     tonic::include_proto!("shop.inventory.v1");
//! }
//!
//! let session = Session::from_env()?;
//! let guard = Guard::new(session.trust(), pb::POLICIES);
//! let mut payment = PaymentClient::authenticated(channel, &session);
//! Server::builder().layer(guard).add_service(InventoryServer::new(shop)).serve(addr).await?;
//! ```
//!
//! The code that tonic writes stays as it is, byte for byte. After it stand, for each service:
//!
//! - `inventory_policy`: its `AUDIENCE`, all of its `SCOPES`, and its `POLICY`;
//! - `InventoryServer::guarded(shop, &guard)`, for a server that guards only some of its services;
//! - `InventoryClient::authenticated(channel, &session)`, a client that sends with each call a token
//!   for just what the method demands (not where tonic was told to do without its transport);
//!
//! and for each package `POLICIES`, the policies of all of its services.
//!
//! A server may also be guarded service by service: `add_service(InventoryServer::guarded(shop,
//! &guard))`. Whatever is added to it unguarded is open to everyone.
//!
//! A service that is deployed under another audience than its `.proto` names says so once on each
//! side: `session.audience(..)` where clients are made, `GuardBuilder::services_as` for the guard.
//!
//! Services of imported files count too, once they have an annotation. An imported service without any,
//! perhaps someone else's, gets none of this, and a guard refuses its calls.
//!
//! # Review
//!
//! The compiled descriptors are written to `descriptors.bin` in `OUT_DIR`, with the annotations, so
//! that server reflection shows them (`tonic::include_file_descriptor_set!("descriptors")`). Of this
//! file, or of any that `buf build` or `protoc --include_imports --descriptor_set_out` makes of your
//! protos, `countersign policy show --descriptor FILE` prints the policy, one line a method. Keep
//! that beside the protos and let CI compare: `public` is one word, and must not slip in.
//!
//! # More
//!
//! [`configure`] takes tonic's and prost's own options, and lets a large API start with only some
//! methods annotated:
//!
//! ```no_run
//! use countersign_build::prost_build;
//! use countersign_build::tonic_prost_build;
//!
//! fn main() -> countersign_build::Result {
//!     let mut prost = prost_build::Config::new();
//!     prost.bytes(["."]);
//!     countersign_build::configure()
//!         .tonic(tonic_prost_build::configure().build_client(false))
//!         .prost(prost)
//!         .allow_undeclared()
//!         .compile(&["proto/inventory.proto", "proto/order.proto"], &["proto"])
//! }
//! ```
//!
//! # How it works
//!
//! 1. [`compile`](fn@compile), or a [`Builder`] with more options, opens the protos with protox. What they
//!    import is found beside them, in this crate, or among Google's well-known types.
//! 2. The annotations of every service become its rules. All gaps and mistakes are collected, and fail the
//!    build as one [`Error`].
//! 3. tonic's generator writes each service. Around it stands ours, which adds the policy, the client and
//!    the server that go with the rules, at the end of each package.
//!
//! A method without an annotation is never open: the build fails, or a guard refuses its calls.

#[doc(hidden)]
pub mod annotations;
#[cfg(feature = "compile")]
mod compile;
#[cfg(feature = "compile")]
mod emit;
#[cfg(feature = "compile")]
mod error;
#[cfg(feature = "compile")]
mod generator;
#[cfg(feature = "compile")]
mod protos;
#[cfg(feature = "compile")]
mod service;

#[cfg(feature = "compile")]
pub use prost_build;
#[cfg(feature = "compile")]
pub use tonic_prost_build;

#[cfg(feature = "compile")]
pub use self::compile::{Builder, compile, configure};
#[cfg(feature = "compile")]
pub use self::error::{Error, Result};
