//! The server side: a tower layer that verifies the token of every call and enforces what the
//! callee's `.proto` demands, deny by default.
//!
//! # A guarded server
//!
//! A service says in its `.proto` what it demands; from that its policy table is generated. The
//! guard stands before the whole server. What nobody declared is refused; health and reflection are
//! let through only by name.
//!
//! ```
//! use countersign_mesh::guard::{Access, Guard, MethodPolicy, ServicePolicy, Trust};
//! use tonic::transport::Server;
//!
//! // Generated.
//! const POLICIES: &[ServicePolicy] = &[ServicePolicy {
//!     service: "inventory.Inventory",
//!     audience: "inventory",
//!     methods: &[
//!         MethodPolicy { path: "/inventory.Inventory/CheckStock", access: Access::Scopes(&["stock:read"]) },
//!         MethodPolicy { path: "/inventory.Inventory/Ping", access: Access::Public },
//!     ],
//! }];
//!
//! # fn serve(trust: Trust) {
//! let guard = Guard::builder(trust)
//!     .services(POLICIES)
//!     .public_service("grpc.health.v1.Health")
//!     .build();
//! let server = Server::builder().layer(guard);
//! # let _ = server;
//! # }
//! ```
//!
//! For each call: path → policy → bearer token → verified-token cache or
//! [verification](crate::trust::TrustBundle::verify) → time, key and revocation against today's trust
//! bundle, cached or not → scopes → [`Permitted`] in the request's extensions. No step asks anyone over
//! the network.
//!
//! # Who calls
//!
//! A handler asks with [`caller`]:
//!
//! ```
//! use countersign_mesh::guard;
//! use tonic::{Request, Response, Status};
//!
//! async fn check_stock(request: Request<()>) -> Result<Response<String>, Status> {
//!     let caller = guard::caller(request.extensions())
//!         .ok_or_else(|| Status::internal("CheckStock is not public"))?;
//!     let claims = caller.claims();
//!     Ok(Response::new(format!("{} until {}", claims.client_id, claims.expires_at.as_unix())))
//! }
//! ```
//!
//! # One `.proto`, several deployments
//!
//! A server that is deployed under another audience than its `.proto` says takes tokens for that one
//! with [`GuardBuilder::services_as`]; its clients say the same with `session.audience(..)`.
//!
//! # HTTP routes
//!
//! [`Guard::require`] puts the same guard before axum routes. [`Guard::for_audience`] says which
//! audience those routes have.
//!
//! # Streams
//!
//! A stream, in either direction, ends when the token that opened it expires, or when that token, its
//! client or its key is revoked. The caller gets UNAUTHENTICATED with the reason, and the handler gets
//! the same as an error of its request stream. A unary call that was admitted is left to finish.
//! [`GuardBuilder::streams_outlive_tokens`] opts a service out.
//!
//! # Stale trust
//!
//! A guard that has not heard from its issuer for too long goes on with what it knows, unless
//! [`GuardBuilder::when_stale`], or its [session](crate::session#staleness), says
//! [`WhenStale::FailClosed`]: then it refuses calls with UNAVAILABLE `TRUST_STALE`, and ends streams
//! with it.
//!
//! # Rolling it out
//!
//! [`GuardBuilder::report_only_until`] refuses nothing until a certain time, and tells what it would
//! refuse. [`Guard::explain`] lists each check of a token for a call, for whoever wonders why:
//!
//! ```
//! # use countersign_mesh::guard::{Access, MethodPolicy, ServicePolicy};
//! # use countersign_mesh::testing::TestIssuer;
//! # const POLICIES: &[ServicePolicy] = &[ServicePolicy {
//! #     service: "inventory.Inventory",
//! #     audience: "inventory",
//! #     methods: &[MethodPolicy { path: "/inventory.Inventory/CheckStock", access: Access::Scopes(&["stock:read"]) }],
//! # }];
//! # let issuer = TestIssuer::new();
//! # let guard = issuer.guard(POLICIES).build();
//! let token = issuer.token("order").audience("payment").scopes("stock:read").mint();
//! println!("{}", guard.explain(token.expose(), "/inventory.Inventory/CheckStock"));
//! // path        ok      /inventory.Inventory/CheckStock demands stock:read
//! // ...
//! // audience    FAILED  payment; expected inventory
//! // ...
//! // The call would be refused: AUDIENCE_MISMATCH.
//! ```
//!
//! # What operators see
//!
//! One line in the log for each refusal, with its reason and never with the token, and these metrics
//! through the [`metrics`] facade; the program's recorder should be installed before it serves:
//!
//! | Metric | Labels |
//! |---|---|
//! | `countersign_guard_admitted_total` | `method` |
//! | `countersign_guard_refusals_total` | `method`, `reason`, `enforced` |
//! | `countersign_guard_streams_ended_total` | `method`, `reason`, `enforced` |
//! | `countersign_guard_report_only` | `until` |
//!
//! `method` is a declared path, the name of a service that is public as a whole, `undeclared` or
//! `http`; `enforced` is `false` for what was only reported.
//!
//! # Testing
//!
//! [`testing`](crate::testing) has an issuer for tests of guarded services: any token, no server, no
//! real clock.

mod admission;
mod builder;
mod explain;
mod http_routes;
mod layer;
mod live_trust;
mod policy_table;
mod refusal;
mod report;
mod stream;

use http::Extensions;

pub use self::admission::Permitted;
pub use self::builder::GuardBuilder;
pub use self::explain::{Check, Explanation, Outcome};
pub use self::http_routes::{RequireScopes, ScopesRequired};
pub use self::layer::{Guard, Guarded, GuardedCall};
pub use self::live_trust::{Freshness, Trust, WhenStale};
pub use self::policy_table::{Access, MethodPolicy, ServicePolicy};
pub use self::refusal::{ERROR_DOMAIN, Refusal, RefusedClient};
pub use self::stream::GuardedBody;

/// Who calls, and with what: from the extensions of a request, tonic's `request.extensions()` or those
/// of an HTTP request. `None` when no token is demanded, and when a guard in report-only mode would
/// have refused the call.
///
/// The same [`Permitted`] is what axum's `Extension` extracts.
pub fn caller(extensions: &Extensions) -> Option<&Permitted> {
    extensions.get()
}
