//! Countersign: a token service for service meshes.
//!
//! A registered client (a service, a cron job, a worker, a script, a partner) proves who it is and
//! gets a short-lived Ed25519-signed token for one audience. It attaches the token to every gRPC
//! call; the callee verifies it offline, in microseconds, and enforces the scopes that its own
//! `.proto` declares. It is the OAuth 2.0 client credentials grant (RFC 6749 §4.4), and only that:
//! the app authenticates itself. There is never a user, so there is no login, no authorization
//! code and no refresh token.
//!
//! # Verify a token
//!
//! All that a verifier needs is a [`TrustBundle`](trust::TrustBundle): the issuer's public keys and
//! what it has revoked.
//!
//! ```
//! use std::sync::Arc;
//!
//! use countersign::claims::{Audience, Claims, DEFAULT_LEEWAY, Issuer, ScopeSet, Timestamp, TokenId};
//! use countersign::keys::{KeySet, SigningKey};
//! use countersign::token::{Audiences, Minter, Rejection};
//! use countersign::trust::{Revocations, TrustBundle};
//!
//! let now = Timestamp::from_unix(1_800_000_000);
//! let inventory = Audience::new("inventory")?;
//! # let key = SigningKey::generate()?;
//! # let jwks = KeySet::from_iter([key.public().clone()]).to_jwks();
//! # let token = Minter::new(Arc::new(key)).mint(&Claims {
//! #     issuer: Issuer::new("https://issuer.example")?,
//! #     client_id: "order".parse()?,
//! #     audience: inventory.clone(),
//! #     scopes: ScopeSet::parse("stock:read")?,
//! #     issued_at: now,
//! #     expires_at: now + std::time::Duration::from_secs(900),
//! #     token_id: TokenId::from_random([7; 12]),
//! # });
//! let bundle = TrustBundle {
//!     issuer: Issuer::new("https://issuer.example")?,
//!     epoch: 1,
//!     keys: KeySet::from_jwks(&jwks)?,
//!     revocations: Revocations::default(),
//! };
//! let verified = bundle
//!     .verify(token.expose(), Audiences::OneOf(&[inventory]), now, DEFAULT_LEEWAY)
//!     .expect("a token for inventory");
//! assert_eq!(verified.claims().client_id.as_str(), "order");
//! assert!(verified.claims().scopes.contains("stock:read"));
//!
//! let payment = Audience::new("payment")?;
//! let elsewhere = bundle.verify(token.expose(), Audiences::OneOf(&[payment]), now, DEFAULT_LEEWAY);
//! assert_eq!(elsewhere, Err(Rejection::AudienceMismatch));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guard a server
//!
#![cfg_attr(feature = "mesh", doc = "```")]
#![cfg_attr(not(feature = "mesh"), doc = "```ignore")]
//! use countersign::guard::{Access, Guard, MethodPolicy, ServicePolicy, Trust};
//! use tonic::transport::Server;
//!
//! // Generated from the annotations in `inventory.proto`.
//! const POLICIES: &[ServicePolicy] = &[ServicePolicy {
//!     service: "inventory.Inventory",
//!     audience: "inventory",
//!     methods: &[
//!         MethodPolicy { path: "/inventory.Inventory/CheckStock", access: Access::Scopes(&["stock:read"]) },
//!         MethodPolicy { path: "/inventory.Inventory/Ping", access: Access::Public },
//!     ],
//! }];
//!
//! # fn guard(bundle: countersign::trust::TrustBundle) {
//! let guard = Guard::new(Trust::fixed(bundle), POLICIES);
//! let server = Server::builder().layer(guard);
//! # let _ = server;
//! # }
//! ```
//!
//! # The rooms
//!
//! One package; an arrow points from what uses to what is used, and never back. `tests/layout.rs`
//! holds the code to it.
//!
//! ```text
//! cli -> server -> authority -> store -> policy -> client -> trust -> token -> keys -> claims
//!           \-> guard -> trust
//! cli, mesh -> guard, token
//! testing -> guard, trust, token, keys, claims
//! build, cli -> codegen, which stands alone
//! the generated protos (rpc) are seen by mesh, server and cli only
//! ```
//!
//! | Room | What it is |
//! |---|---|
//! | [`claims`] | what a token says, in types that are valid by construction |
//! | [`keys`] | signing keys, their lifecycle (pure), the public key set |
//! | [`token`] | the strict codec; minting and verifying |
//! | [`trust`] | keys and revocations at one epoch: what a verifier asks |
//! | `guard` | the tower layer that verifies and enforces |
//! | `mesh` | what services link: sessions whose calls carry fresh tokens |
//! | `testing` | an issuer for the tests of guarded services |
//! | `rpc` | the generated protos |
//! | `client` | registered clients, their credentials, the proof that they authenticated |
//! | `policy` | who gets what, as pure functions |
//! | `store` | SQLite: the state, the one writer, the audit log |
//! | `authority` | the use cases; start reading there |
//! | `server` | the wire |
//! | `cli` | the command line |
//! | `codegen` | annotations to policy tables; `build.rs` shares it |
//! | `build` | for build scripts: protos to guarded servers and authenticated clients |
//!
//! # Features
//!
//! `server` (default) has everything that the binary needs. `mesh` has sessions, the guard and the
//! protos, for services: no SQL, no command line. `build` is for their build scripts. A feature only
//! drops dependencies and rooms; it never changes what the rest does.

pub mod claims;
mod cow_map;
pub mod keys;
pub mod token;
pub mod trust;

#[cfg(feature = "build")]
pub mod build;
#[cfg(any(feature = "build", feature = "server"))]
#[allow(dead_code, reason = "the build script shares it, and uses what the library does not")]
mod codegen;
#[cfg(feature = "mesh")]
pub mod guard;
#[cfg(feature = "mesh")]
pub mod mesh;
#[cfg(feature = "mesh")]
pub mod rpc;
#[cfg(feature = "mesh")]
pub mod testing;

#[cfg(feature = "server")]
pub mod authority;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod client;
#[cfg(feature = "server")]
pub mod policy;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod store;
