//! An issuer for the tests of guarded services: any token, at once, without a server and without a
//! real clock.
//!
//! ```
//! use std::time::Duration;
//!
//! use countersign_mesh::guard::{Access, MethodPolicy, Refusal, ServicePolicy};
//! use countersign_mesh::testing::TestIssuer;
//!
//! // Generated from `inventory.proto`; your crate has its own.
//! const POLICIES: &[ServicePolicy] = &[ServicePolicy {
//!     service: "inventory.Inventory",
//!     audience: "inventory",
//!     methods: &[MethodPolicy { path: CHECK_STOCK, access: Access::Scopes(&["stock:read"]) }],
//! }];
//! const CHECK_STOCK: &str = "/inventory.Inventory/CheckStock";
//!
//! let issuer = TestIssuer::new();
//! // A guard that trusts this issuer and reads its clock. It goes where yours would:
//! // `Server::builder().layer(guard)`.
//! let guard = issuer.guard(POLICIES).build();
//!
//! // A token like those that `order` gets. `token.on(message)` is a tonic request that carries it.
//! let order = || issuer.token("order").audience("inventory").scopes("stock:read");
//! let token = order().mint();
//! let request = token.on("how many?");
//! assert!(request.metadata().contains_key("authorization"));
//! assert_eq!(guard.explain(token.expose(), CHECK_STOCK).refusal(), None);
//!
//! // Whatever may be wrong with one, or go wrong with it later:
//! let refusal = |token: &countersign_mesh::testing::TestToken| {
//!     guard.explain(token.expose(), CHECK_STOCK).refusal().cloned()
//! };
//! assert_eq!(refusal(&order().expired().mint()), Some(Refusal::TokenExpired));
//! assert_eq!(refusal(&order().signed_by_stranger().mint()), Some(Refusal::KeyUnknown));
//! assert_eq!(refusal(&order().forged().mint()), Some(Refusal::TokenInvalid));
//! issuer.revoke_token(&token);
//! assert_eq!(refusal(&token), Some(Refusal::TokenRevoked));
//!
//! // Time passes when the test says so.
//! let token = order().life(Duration::from_secs(60)).mint();
//! issuer.advance(Duration::from_secs(90));
//! assert_eq!(refusal(&token), Some(Refusal::TokenExpired));
//! ```
//!
//! [`TestIssuer::set_freshness`] shows what a service does when it has not heard of Countersign for too
//! long.
//!
//! A timer of tokio's ends streams. A test that waits for that pauses tokio's clock
//! (`#[tokio::test(start_paused = true)]`) and advances it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tonic::Request;

use crate::claims::{
    Audience, Claims, ClientId, Clock, DEFAULT_LEEWAY, Issuer, Kid, MAX_TOKEN_LIFE, ScopeSet,
    Timestamp, TokenId,
};
use crate::guard::{Freshness, Guard, GuardBuilder, ServicePolicy, Trust, WhenStale};
use crate::keys::{PublicKey, SigningKey};
use crate::token::{Minter, Token};
use crate::trust::{ClientRevocation, Revocations, TokenRevocation, TrustBundle};

/// Who issues the tokens of a [`TestIssuer`].
pub const ISSUER: &str = "https://issuer.test";

/// What the clock of a [`TestIssuer`] shows at first.
pub const START: Timestamp = Timestamp::from_unix(1_800_000_000);

/// How long the tokens of a [`TestIssuer`] live unless told otherwise.
pub const LIFE: Duration = Duration::from_secs(15 * 60);

/// An issuer in the test's own process. A test gets the same tokens in each run, byte for byte. The
/// keys are known to everyone.
pub struct TestIssuer {
    bundle: watch::Sender<Option<Arc<TrustBundle>>>,
    freshness: watch::Sender<Freshness>,
    clock: Clock,
    keys: Mutex<Keys>,
    tokens: AtomicU64,
}

const HAS_BUNDLE: &str = "it has a bundle from the start";

/// The keys of a [`TestIssuer`]. The newest one signs.
struct Keys {
    minter: Minter,
    newest: PublicKey,
    generation: u8,
    published: Vec<PublicKey>,
    revoked: Vec<Kid>,
}

/// The generation of a key that no [`TestIssuer`] gets to, unless it rotates 254 times.
const STRANGER: u8 = u8::MAX;

fn test_key(generation: u8) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&[generation; 32]))
}

impl Keys {
    fn new() -> Self {
        let key = test_key(1);
        let newest = key.public().clone();
        let published = vec![newest.clone()];
        Self { minter: Minter::new(key), newest, generation: 1, published, revoked: Vec::new() }
    }

    fn rotate(&mut self) {
        self.generation += 1;
        let key = test_key(self.generation);
        self.newest = key.public().clone();
        self.published.push(self.newest.clone());
        self.minter = Minter::new(key);
    }

    fn revoke(&mut self) {
        let kid = self.newest.kid().clone();
        self.published.retain(|key| *key.kid() != kid);
        self.revoked.push(kid);
        self.rotate();
    }
}

impl Default for TestIssuer {
    fn default() -> Self {
        Self::new()
    }
}

impl TestIssuer {
    /// An issuer at [`START`] with one key, that has revoked nothing.
    pub fn new() -> Self {
        let keys = Keys::new();
        let bundle = TrustBundle {
            issuer: Issuer::new(ISSUER).expect("the constant is a URL"),
            epoch: 1,
            keys: keys.published.iter().cloned().collect(),
            revocations: Revocations::default(),
        };
        let (bundle, _) = watch::channel(Some(Arc::new(bundle)));
        let clock = Clock::fixed(START);
        let freshness = watch::Sender::new(Freshness::Fresh);
        Self { bundle, freshness, clock, keys: Mutex::new(keys), tokens: AtomicU64::new(0) }
    }

    /// Its clock. It stands still until it is set, or moved by [`TestIssuer::advance`].
    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        self.clock.set(self.clock.now() + duration);
    }

    /// Trust in this issuer. It sees at once what the issuer revokes.
    pub fn trust(&self) -> Trust {
        Trust::live(self.bundle.subscribe(), Arc::default())
            .with_freshness(self.freshness.subscribe(), WhenStale::default())
    }

    /// Makes trust in this issuer stale, as when Countersign has not been heard for too long, or fresh
    /// again. It is fresh at first.
    ///
    /// ```
    /// # use countersign_mesh::guard::{Access, MethodPolicy, ServicePolicy};
    /// # use countersign_mesh::guard::{Freshness, Refusal, WhenStale};
    /// # use countersign_mesh::testing::TestIssuer;
    /// # const POLICIES: &[ServicePolicy] = &[ServicePolicy {
    /// #     service: "inventory.Inventory",
    /// #     audience: "inventory",
    /// #     methods: &[MethodPolicy { path: "/inventory.Inventory/Restock", access: Access::Scopes(&[]) }],
    /// # }];
    /// let issuer = TestIssuer::new();
    /// let guard = issuer.guard(POLICIES).when_stale(WhenStale::FailClosed).build();
    /// let token = issuer.token("order").audience("inventory").mint();
    /// let refusal = || guard.explain(token.expose(), "/inventory.Inventory/Restock").refusal().cloned();
    /// issuer.set_freshness(Freshness::Stale);
    /// assert_eq!(refusal(), Some(Refusal::TrustStale));
    /// issuer.set_freshness(Freshness::Fresh);
    /// assert_eq!(refusal(), None);
    /// ```
    pub fn set_freshness(&self, freshness: Freshness) {
        self.freshness.send_replace(freshness);
    }

    /// Its trust bundle as it is now.
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle::clone(&self.latest())
    }

    /// A builder of a guard that knows these services, trusts this issuer and reads its clock.
    pub fn guard(&self, services: &[ServicePolicy]) -> GuardBuilder {
        Guard::builder(self.trust()).services(services).clock(self.clock())
    }

    /// Begins a token for a client. Unless told otherwise it is for audience `test`, has no scope, and
    /// lives for [`LIFE`] from now.
    ///
    /// # Panics
    /// When this is no client id.
    pub fn token(&self, client: &str) -> TokenRequest<'_> {
        let now = self.clock.now();
        let claims = Claims {
            issuer: self.latest().issuer.clone(),
            client_id: ClientId::new(client).expect("a client id"),
            audience: Audience::new("test").expect("the constant is an audience"),
            scopes: ScopeSet::default(),
            issued_at: now,
            expires_at: now + LIFE,
            token_id: TokenId::new(&format!(
                "token-{}",
                self.tokens.fetch_add(1, Ordering::Relaxed)
            ))
            .expect("printable ASCII"),
        };
        TokenRequest { issuer: self, claims, signature: Signature::Good }
    }

    /// Revokes one token.
    pub fn revoke_token(&self, token: &TestToken) {
        let until = token.claims.expires_at + DEFAULT_LEEWAY;
        let audience = Some(token.claims.audience.clone());
        self.change(|bundle| {
            let revocation = TokenRevocation { until, audience, epoch: bundle.epoch };
            bundle.revocations.revoke_token(token.claims.token_id.clone(), revocation);
        });
    }

    /// Revokes all that a client has been issued so far, this second included. Tokens that it gets once
    /// the clock has moved are good.
    ///
    /// # Panics
    /// When this is no client id.
    pub fn revoke_client(&self, client: &str) {
        let before = self.clock.now() + Duration::from_secs(1);
        let until = before + MAX_TOKEN_LIFE;
        let client = ClientId::new(client).expect("a client id");
        self.change(|bundle| {
            let cut = ClientRevocation { before, until, audiences: None, epoch: bundle.epoch };
            bundle.revocations.revoke_client(client, cut);
        });
    }

    /// Signs with a new key from now on. What the old one has signed is still good.
    pub fn rotate_key(&self) {
        self.change_keys(Keys::rotate);
    }

    /// Revokes the key, and with it all that it has signed; another one signs from now on.
    pub fn revoke_key(&self) {
        self.change_keys(Keys::revoke);
    }

    fn change_keys(&self, change: impl FnOnce(&mut Keys)) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut keys);
        self.change(|bundle| {
            bundle.keys = keys.published.iter().cloned().collect();
            bundle.revocations.set_keys(keys.revoked.iter());
        });
    }

    fn change(&self, change: impl FnOnce(&mut TrustBundle)) {
        self.bundle.send_modify(|latest| {
            let mut bundle = TrustBundle::clone(latest.as_ref().expect(HAS_BUNDLE));
            bundle.epoch += 1;
            change(&mut bundle);
            *latest = Some(Arc::new(bundle));
        });
    }

    fn latest(&self) -> Arc<TrustBundle> {
        self.bundle.borrow().clone().expect(HAS_BUNDLE)
    }
}

impl fmt::Debug for TestIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestIssuer").field("bundle", &self.latest()).finish_non_exhaustive()
    }
}

/// A token to be minted: say what it says, and what is wrong with it.
#[must_use = "nothing is minted yet"]
pub struct TokenRequest<'a> {
    issuer: &'a TestIssuer,
    claims: Claims,
    signature: Signature,
}

enum Signature {
    Good,
    OfStranger,
    Forged,
}

impl TokenRequest<'_> {
    /// For this audience.
    ///
    /// # Panics
    /// When it is no audience.
    pub fn audience(mut self, audience: &str) -> Self {
        self.claims.audience = Audience::new(audience).expect("an audience");
        self
    }

    /// With these scopes, separated by spaces.
    ///
    /// # Panics
    /// When one of them is no scope.
    pub fn scopes(mut self, scopes: &str) -> Self {
        self.claims.scopes = ScopeSet::parse(scopes).expect("scopes with single spaces between");
        self
    }

    /// Expires this long after it is issued. No guard accepts more than [`MAX_TOKEN_LIFE`].
    pub fn life(mut self, life: Duration) -> Self {
        self.claims.expires_at = self.claims.issued_at + life;
        self
    }

    /// Expired a minute longer ago than the leeway forgives.
    pub fn expired(mut self) -> Self {
        let ago = DEFAULT_LEEWAY + Duration::from_secs(60);
        self.claims.expires_at = self.issuer.clock.now().before(ago);
        self.claims.issued_at = self.claims.expires_at.before(LIFE);
        self
    }

    /// Becomes valid only in an hour.
    pub fn not_yet_valid(mut self) -> Self {
        self.claims.issued_at = self.issuer.clock.now() + Duration::from_secs(60 * 60);
        self.claims.expires_at = self.claims.issued_at + LIFE;
        self
    }

    /// Says that it is from this issuer.
    ///
    /// # Panics
    /// When that is no URL.
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.claims.issuer = Issuer::new(issuer).expect("an issuer's URL");
        self
    }

    /// Signed with a key that nobody has heard of.
    pub fn signed_by_stranger(mut self) -> Self {
        self.signature = Signature::OfStranger;
        self
    }

    /// Changed after it was signed.
    pub fn forged(mut self) -> Self {
        self.signature = Signature::Forged;
        self
    }

    /// The token.
    pub fn mint(self) -> TestToken {
        let Self { issuer, claims, signature } = self;
        let keys = issuer.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let token = match signature {
            Signature::Good => keys.minter.mint(&claims),
            Signature::OfStranger => Minter::new(test_key(STRANGER)).mint(&claims),
            Signature::Forged => {
                // A well-formed signature of the right key, over other claims.
                let other = Claims { token_id: TokenId::from_random([0; 12]), ..claims.clone() };
                let (honest, other) = (keys.minter.mint(&claims), keys.minter.mint(&other));
                let signature = other.expose().rsplit('.').next().unwrap_or_default();
                let input = honest.expose().rsplit_once('.').map_or("", |(input, _)| input);
                Token::issued(format!("{input}.{signature}"))
            }
        };
        TestToken { token, claims }
    }
}

/// A token from a [`TestIssuer`].
#[derive(Debug)]
pub struct TestToken {
    token: Token,
    claims: Claims,
}

impl TestToken {
    /// The text.
    pub fn expose(&self) -> &str {
        self.token.expose()
    }

    /// The value of an `authorization` header that carries it.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.expose())
    }

    /// What it says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// A tonic request that carries it.
    pub fn on<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let bearer = self.bearer().parse().expect("a token is printable ASCII");
        request.metadata_mut().insert("authorization", bearer);
        request
    }
}
