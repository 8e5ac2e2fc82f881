//! What services link: a [`Session`] with Countersign that keeps tokens fresh, attaches them to
//! outgoing calls, and feeds the guard of incoming ones.
//!
//! # Call a service
//!
//! One session serves a whole process. It fetches one token for each audience and set of scopes when
//! it is first needed, refreshes it in the background, and gives each call what *its* method demands
//! and no more. No code names a token or a scope: the policies are generated from the `.proto` of the
//! callee.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use countersign_mesh::session::Session;
//! # use countersign_mesh::rpc as pb;
//! # use countersign_mesh::rpc::key_service_client::KeyServiceClient;
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let session = Session::from_env()?;
//! let channel = session.channel("https://keys.example:9443")?;
//! let mut keys = KeyServiceClient::new(session.attach(channel, pb::POLICIES));
//!
//! // Optional: start only when there is a way in.
//! session.ready(Duration::from_secs(30)).await?;
//! keys.list_keys(pb::ListKeysRequest::default()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What a call meets:
//!
//! | When | The call |
//! |---|---|
//! | the method is public | carries no token |
//! | the policies do not name the method | fails with UNIMPLEMENTED, without touching the network |
//! | there is no token yet | waits for it, within its `grpc-timeout`, or ten seconds without one; then it fails with UNAVAILABLE |
//! | Countersign refuses the credential or the scopes | fails with UNAUTHENTICATED, at once |
//! | Countersign is down | goes out with the token at hand until that expires |
//! | the callee says that the token is expired or revoked, or its key unknown | is made once more with another token, if its request is small (64 KiB) and went out as a whole |
//!
//! A call that gets no token has an `ErrorInfo` (`google.rpc`) in its status: the issuer's reason, such as
//! `AUDIENCE_DENIED`, or `TOKEN_REFUSED` or `TOKEN_UNAVAILABLE` where it gives none, and in the metadata the
//! `audience` and the `scopes` that the call needed.
//!
//! A token is replaced for a callee once in five seconds at most, so a callee that refuses everything
//! cannot drive issuance. Everything stops when the last clone of the session, and the last client
//! made with it, is dropped.
//!
//! [`Session::attach`] wraps any transport. For tonic's own `with_interceptor` there is
//! [`Session::interceptor`], which cannot wait and does not retry. A service that is deployed under
//! another audience than its `.proto` says is called with [`Session::audience`]:
//!
//! ```no_run
//! # use countersign_mesh::session::Session;
//! # use countersign_mesh::rpc as pb;
//! # use countersign_mesh::rpc::key_service_client::KeyServiceClient;
//! # fn start(session: Session, channel: tonic::transport::Channel) -> Result<(), Box<dyn std::error::Error>> {
//! let eu = session.audience("keys-eu".parse()?);
//! let keys = KeyServiceClient::new(eu.attach(channel.clone(), pb::POLICIES));
//! let keys = KeyServiceClient::with_interceptor(channel, session.interceptor(pb::POLICIES));
//! # Ok(())
//! # }
//! ```
//!
//! # The environment
//!
//! [`Session::from_env`] reads these, and [`Session::builder`] takes the same from the program.
//!
//! | Variable | Is | |
//! |---|---|---|
//! | `COUNTERSIGN_CREDENTIALS` | a credentials file, which says where Countersign is, who we are and what proves it | in place of the six below |
//! | `COUNTERSIGN_URL` | where Countersign is | or `COUNTERSIGN_URL_FILE` |
//! | `COUNTERSIGN_CLIENT_ID` | who we are | or `COUNTERSIGN_CLIENT_ID_FILE` |
//! | `COUNTERSIGN_CLIENT_SECRET` | one of our secrets | or `COUNTERSIGN_CLIENT_SECRET_FILE`, which is read again for each token |
//! | `COUNTERSIGN_CLIENT_KEY_FILE` | our private key, in place of a secret | read again for each token; needs `COUNTERSIGN_ISSUER` |
//! | `COUNTERSIGN_CLIENT_CERT_FILE` | our client certificate and its chain, in PEM, instead of a secret | with its key in `COUNTERSIGN_CLIENT_KEY_FILE`; both are read again for each token |
//! | `COUNTERSIGN_CA_FILE` | the authority that signs Countersign's certificate, in PEM | the system's, if it is not set |
//! | `COUNTERSIGN_ISSUER` | whose keys a guard trusts, and whom a private key signs for | whoever the URL leads to, if it is not set |
//! | `COUNTERSIGN_TRUST_FILE` | where keys and what is revoked are kept for a guard | needs `COUNTERSIGN_ISSUER` |
//! | `COUNTERSIGN_WHEN_STALE` | what guards do while those are stale: `serve-stale` or `fail-closed` | `serve-stale`, if it is not set |
//! | `COUNTERSIGN_VERIFIER_NAME` | what this process is called in lists of verifiers | the name of the host, if it is not set |
//!
//! A credentials file is what `countersign client create --out` writes. The command line takes the same, and so
//! does [`SessionBuilder::from_credentials_file`]. What it says counts before the variables that are about the same.
//!
//! An `http` address off this machine is refused, unless [`SessionBuilder::insecure_plaintext`] asks
//! for it.
//!
//! # Guard a server
//!
//! The same session gives a [`Guard`](crate::guard::Guard) Countersign's keys and revocations:
//! ```no_run
//! use countersign_mesh::guard::Guard;
//! # use countersign_mesh::session::Session;
//! # use countersign_mesh::rpc as pb;
//! # fn start(session: Session) {
//! let guard = Guard::new(&session, pb::POLICIES);
//! let server = tonic::transport::Server::builder().layer(guard);
//! # let _ = server;
//! # }
//! ```
//!
//! Both come by a stream, as they happen: Countersign sends everything once, then what changes, and a
//! heartbeat after every five seconds without a change. The session acknowledges each epoch that its
//! guards have, so that a rotation can wait for it. The session opens the stream with a token of its
//! own, for audience `countersign` with scope `trust:watch`, which every client holds that serves an
//! audience.
//!
//! | When | The guard |
//! |---|---|
//! | nothing is known yet | refuses every token with UNAVAILABLE `TRUST_UNAVAILABLE` |
//! | the stream is up | knows of a revocation within a second; does not fetch anything because of an unknown key |
//! | nothing came for 15 seconds, or the stream broke off | goes on with what it knows, while the session opens another. The wait before that is random: up to 0.1 seconds at first, up to twice as long after each failure, never more than 15 seconds |
//! | what it knows is [stale](#staleness) | goes on, or refuses calls, as its owner chose |
//! | the stream has not come up within 3 seconds of the start | begins with keys from the JWK Set, if that can be had, and polls it until the stream is up |
//! | this client serves no audience, or this Countersign has no stream yet | is fed by polling the JWK Set alone: about once a minute, and because of unknown keys once a second at most. The stream is asked for again every few minutes |
//! | a bundle comes from another issuer, or of an earlier epoch | does not believe it; the log says so as an error |
//!
//! A session that has had the stream does not poll, not even while the stream is lost. Keys come with
//! it when it is back, and every poll would make rotations wait for a minute and a half. Until a first
//! stream is up, the known revocations are those of the trust file, or none.
//!
//! With a [trust file](SessionBuilder::trust_file) a service starts while Countersign is down, with the
//! keys and the revocations of its last run. [`trust_in`] is for any other issuer that has a JWK Set.
//!
//! # Staleness
//!
//! What a guard knows is stale once Countersign's store has not confirmed it for as long as the server
//! says (`max_staleness`), or [the builder](SessionBuilder::max_staleness), whichever is less. A server
//! that is cut off from its store confirms nothing. In a session that has no stream, each fetch of the
//! JWK Set confirms what it brings, which is stale after five minutes.
//!
//! By default a guard goes on with stale trust: when Countersign is down, nothing else is. The price is
//! that a revocation which it has not heard of counts for nothing until the token expires. With
//! [`SessionBuilder::when_stale`] and [`FailClosed`](crate::guard::WhenStale::FailClosed) it refuses
//! calls with UNAVAILABLE `TRUST_STALE`, even with tokens that it has verified before, and ends
//! streams, until it has heard again. It then also refuses calls from its start until it has heard for
//! the first time: what is in a trust file is not fresh.
//!
//! Either way it says so: one line in the log each time, [metrics](#metrics), and
//! [`Session::health`], for the service's own health endpoint:
//!
//! ```no_run
//! use countersign_mesh::session::Session;
//! use tonic_health::ServingStatus;
//! use tonic_health::server::HealthReporter;
//!
//! /// Has a load balancer leave this replica out while its guard refuses everything.
//! async fn report(session: Session, health: HealthReporter) {
//!     let mut trust = session.trust();
//!     loop {
//!         let status =
//!             if trust.is_fresh() { ServingStatus::Serving } else { ServingStatus::NotServing };
//!         health.set_service_status("", status).await;
//!         trust.changed().await;
//!     }
//! }
//! ```
//!
//! Do that only where guards fail closed. Other guards go on, and should be sent calls.
//!
//! # Calls that are not gRPC, and other issuers
//!
//! A [`TokenSource`] hands its token to any HTTP client. It comes from the session, or from any OAuth
//! 2.0 token endpoint (RFC 6749 §4.4), such as a partner's, whose tokens are kept fresh in the same
//! way.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use countersign_mesh::session::{ClientSecret, OAuthEndpoint, TokenSource};
//! use tokio::time::Instant;
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let secret = ClientSecret::from_file("/run/secrets/partner");
//! let partner = OAuthEndpoint::new("https://partner.example/oauth/token", "us", secret)?;
//! let source = TokenSource::oauth(partner, "orders:read".parse()?);
//!
//! let token = source.token(Instant::now() + Duration::from_secs(5)).await?;
//! let request = http::Request::get("https://partner.example/orders")
//!     .header(http::header::AUTHORIZATION, token.header())
//!     .body(())?;
//! # let _ = request;
//! # Ok(())
//! # }
//! ```
//!
//! A server that answers 401 has refused the token: [`TokenSource::replace`] gets another one for one
//! more try. `examples/nightly_backup.rs` and `examples/webhook_sender.rs` are whole programs.
//!
//! # Metrics
//!
//! Through the `metrics` facade, each with the labels `audience` (the host, for an OAuth endpoint) and
//! `scopes`:
//!
//! | Metric | Is |
//! |---|---|
//! | `countersign_token_refreshes_total` | counter: tokens that were fetched |
//! | `countersign_token_failures_total` | counter: tries to fetch one that failed |
//! | `countersign_token_waits_total` | counter: calls that had to wait for a token |
//! | `countersign_token_wait_seconds` | histogram: for how long |
//! | `countersign_token_runway_seconds` | gauge, set at each try: how long calls keep working if the issuer stays down |
//!
//! And with the label `source`, the host that it comes from, where there is a guard or
//! [`Session::trust`] was asked for:
//!
//! | Metric | Is |
//! |---|---|
//! | `countersign_trust_age_seconds` | gauge: how long ago keys and revocations were confirmed; infinite before the first time |
//! | `countersign_trust_stale` | gauge: 1 while that is too long ago, or there are none, else 0 |
//! | `countersign_trust_reconnects_total` | counter: streams that were up and were lost |
//!
//! # The wings
//!
//! An arrow points from what uses to what is used, and never back: neither between wings nor between the
//! files of one.
//!
//! ```text
//! the session ─┬─▶ calls ──┬─▶ tokens ──▶ reach
//!              └─▶ trust ──┘
//! ```
//!
//! `reach` has addresses, TLS, HTTP and credentials; `tokens` what keeps tokens fresh; `trust` what keeps
//! keys and revocations fresh; `calls` what puts tokens on calls. The [`Session`] holds one of each.

mod builder;
mod calls;
pub(crate) mod link;
mod live;
pub(crate) mod reach;
mod tokens;
pub(crate) mod trust;

pub use self::builder::SessionBuilder;
pub use self::calls::{AuthInterceptor, Authenticated};
pub use self::live::Session;
pub use self::reach::{
    ClientSecret, Credentials, CredentialsError, CredentialsFileProblem, Jitter, SessionError,
};
pub use self::tokens::{BearerToken, NoToken, OAuthEndpoint, TokenSource};
pub use self::trust::{FedBy, Health, trust_in};
