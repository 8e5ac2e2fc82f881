//! What a service links to call others, and to be called, with tokens of Countersign.
//!
//! A [`Session`](session::Session) keeps tokens fresh and knows whom to trust; a
//! [`Guard`](guard::Guard) stands before a server, verifies each call's token offline, in
//! microseconds, and enforces the scopes that the service's `.proto` declares. Build scripts get the
//! policies, clients and servers that go with them from `countersign-build`; [`testing`] has an
//! issuer for tests.
//!
//! # Verify a token
//!
//! All that a verifier needs is a [`TrustBundle`](trust::TrustBundle): the issuer's public keys and
//! what it has revoked.
//!
//! ```
//! use std::sync::Arc;
//!
//! use countersign_mesh::claims::{Audience, Claims, DEFAULT_LEEWAY, Issuer, ScopeSet, Timestamp, TokenId};
//! use countersign_mesh::keys::{KeySet, SigningKey};
//! use countersign_mesh::token::{Audiences, Minter, Rejection};
//! use countersign_mesh::trust::{Revocations, TrustBundle};
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
//! ```
//! use countersign_mesh::guard::{Access, Guard, MethodPolicy, ServicePolicy, Trust};
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
//! # fn guard(bundle: countersign_mesh::trust::TrustBundle) {
//! let guard = Guard::new(Trust::fixed(bundle), POLICIES);
//! let server = Server::builder().layer(guard);
//! # let _ = server;
//! # }
//! ```
//!
//! # The rooms
//!
//! An arrow points from what uses to what is used, and never back. `tests/layout` of the workspace
//! holds the code to it.
//!
//! ```text
//! session -> guard -> trust -> token -> keys -> claims
//! testing -> guard
//! the generated protos (rpc) are seen by session only
//! ```
//!
//! | Room | What it is |
//! |---|---|
//! | [`claims`] | what a token says, in types that are valid by construction |
//! | [`keys`] | keys that sign and keys that verify, the public key set |
//! | [`token`] | the strict codec; minting and verifying |
//! | [`trust`] | keys and revocations at one epoch: what a verifier asks |
//! | [`guard`] | the tower layer that verifies and enforces |
//! | [`session`] | a workload's live link to Countersign: calls that carry fresh tokens |
//! | [`testing`] | an issuer for the tests of guarded services |
//! | [`rpc`] | messages and clients of Countersign's own services |

// Generated code refers to this crate by its name, here as in every other crate.
extern crate self as countersign_mesh;

pub mod claims;
mod cow_map;
mod encoding;
pub mod guard;
pub mod keys;
mod net;
pub mod rpc;
mod secret_file;
pub mod session;
pub mod testing;
pub mod token;
pub mod trust;

/// What the service itself shares with this crate. No promise is made to anyone else.
#[doc(hidden)]
pub mod internals {
    pub use crate::cow_map::CowMap;
    pub use crate::encoding::base64_url;
    pub use crate::net::{grpc_timeout, is_loopback};
    pub use crate::secret_file::{
        SecretFileError, open_to_others, read as read_secret_file, without_mark,
    };
    pub use crate::session::link::{Link, LinkError};
    pub use crate::session::reach::credentials_file::{CredentialsFile, Proves, read_private};
    pub use crate::session::trust::parts::{Gathering, Update};
}
