//! The operator: rotates the keys, revokes tokens, and looks whether that is seen.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use countersign::rpc;
use countersign::rpc::client_service_client::ClientServiceClient;
use countersign::rpc::create_client_credential_request::Kind;
use countersign::rpc::issue_token_request::Credential;
use countersign::rpc::key_service_client::KeyServiceClient;
use countersign::rpc::revoke_token_request::Target;
use countersign::rpc::token_service_client::TokenServiceClient;
use countersign_mesh::claims::{COUNTERSIGN, ClientId, ScopeSet};
use countersign_mesh::session::{Credentials, Session};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_types::StatusExt;

use crate::callers::{Caller, client};
use crate::figures::{Figures, random};
use crate::guards::{Guarded, Mesh, reason};

/// Whose tokens are revoked one by one.
const VICTIM: &str = "victim";

/// How soon a client's tokens are all revoked again, at the soonest: sessions replace a refused token
/// once in five seconds.
const CUT_AGAIN: Duration = Duration::from_secs(15);

/// One revocation in so many is of all of a client's tokens.
const CUT_EACH: usize = 10;

/// One rotation in so many does not look first whether the verifiers hold the next key: the gate does.
const HASTY_EACH: usize = 20;

/// How soon a server that is down is asked again.
const DOWN: Duration = Duration::from_millis(20);

/// The verifiers acknowledge the next key before this, or a rotation says who does not.
const ACKNOWLEDGED: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub struct Operator {
    session: Session,
    channel: Channel,
    figures: Arc<Figures>,
    victim: Arc<OnceLock<String>>,
    /// Tokens that were revoked, each with its audience.
    revoked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Operator {
    pub fn new(url: &str, secret: &str, figures: &Arc<Figures>) -> Self {
        let id = ClientId::new("operator").expect("a client id");
        let session = Session::builder(url, Credentials::new(id, secret)).connect();
        let session = session.expect("a loopback address");
        let channel = session.channel(url).expect("a loopback address");
        let figures = Arc::clone(figures);
        Self { session, channel, figures, victim: Arc::default(), revoked: Arc::default() }
    }

    /// Registers a client. Its secret.
    pub async fn register(&self, client: rpc::Client) -> String {
        let mut clients =
            ClientServiceClient::new(self.session.attach(self.channel.clone(), rpc::POLICIES));
        let client_id = client.client_id.clone();
        let request = rpc::CreateClientRequest { client: Some(client), ..Default::default() };
        clients.create_client(request).await.expect("registered");
        let kind = Some(Kind::Secret(rpc::ClientSecret {}));
        let request = rpc::CreateClientCredentialRequest { client_id, kind, ..Default::default() };
        let secret = clients.create_client_credential(request).await.expect("there is room");
        secret.into_inner().client_secret
    }

    /// Has a client whose tokens may be revoked, and holds that they are good until then.
    pub async fn may_call(&self, mesh: &Mesh, figures: &Figures) {
        let secret = self.register(client(VICTIM, mesh, None)).await;
        self.victim.set(secret).expect("there is one mesh");
        for guard in &mesh.guards {
            guard.accept(&self.victims_token(&guard.audience).await, figures).await;
        }
    }

    /// Rotates as soon as the gate lets it, and holds that the key which signs then is known.
    pub async fn rotate(&self, mesh: &Mesh, n: usize) {
        let mut keys =
            KeyServiceClient::new(self.session.attach(self.channel.clone(), rpc::POLICIES));
        // The same in each try: one that was cut off may have been done.
        let request_id = format!("rotation-{n}");
        loop {
            if !n.is_multiple_of(HASTY_EACH) {
                self.until_acknowledged(&mut keys).await;
            }
            let request =
                rpc::RotateKeysRequest { request_id: request_id.clone(), ..Default::default() };
            match keys.rotate_keys(request).await {
                Ok(_) => break self.figures.one(&self.figures.rotations),
                Err(status) if reason(&status) == "VERIFIERS_BEHIND" => {
                    self.figures.one(&self.figures.blocked);
                    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
                    tokio::time::sleep(retry.expect("it says when to come again")).await;
                }
                Err(status) => until_up(&status).await,
            }
        }
        self.rotated(mesh, &some_audience(mesh)).await;
    }

    /// Tries to rotate all the time, whatever it is told, until it is over: only the gate keeps a key
    /// from signing that a guard which is on its way back does not know.
    pub async fn push_on(&self, mesh: &Mesh, over: Arc<AtomicBool>) {
        let mut keys =
            KeyServiceClient::new(self.session.attach(self.channel.clone(), rpc::POLICIES));
        while !over.load(Ordering::SeqCst) {
            match keys.rotate_keys(rpc::RotateKeysRequest::default()).await {
                Ok(_) => {
                    self.figures.one(&self.figures.rotations);
                    for audience in mesh.audiences() {
                        self.rotated(mesh, &audience).await;
                    }
                }
                Err(status) if reason(&status) == "VERIFIERS_BEHIND" => {
                    self.figures.one(&self.figures.blocked);
                    tokio::time::sleep(DOWN).await;
                }
                Err(status) => until_up(&status).await,
            }
        }
    }

    /// Holds that a token of the key that signs now is good.
    async fn rotated(&self, mesh: &Mesh, audience: &str) {
        let token = self.victims_token(audience).await;
        for guard in mesh.of(audience) {
            guard.accept(&token, &self.figures).await;
        }
    }

    /// Waits until all who are connected hold the next key, for as long as that may take.
    async fn until_acknowledged(&self, keys: &mut Keys) {
        let until = Instant::now() + ACKNOWLEDGED;
        while Instant::now() < until {
            let listed = keys.list_keys(rpc::ListKeysRequest::default()).await;
            let all_hold = |listed: &rpc::ListKeysResponse| {
                listed.keys[0].verifiers_holding == listed.verifiers_connected
            };
            if listed.is_ok_and(|listed| all_hold(listed.get_ref())) {
                return;
            }
            tokio::time::sleep(DOWN).await;
        }
    }

    /// Revokes one token after the other, now and then all of a caller's, until it is over and there were
    /// enough. Holds each time that it was good before, and is refused from then on.
    pub async fn revoke_on(
        &self,
        mesh: &Mesh,
        callers: Vec<Arc<Caller>>,
        over: Arc<AtomicBool>,
        least: usize,
        every: Duration,
    ) {
        let figures = &self.figures;
        for n in 1.. {
            if over.load(Ordering::SeqCst) && figures.count(&figures.revocations) >= least as u64 {
                return;
            }
            let may_cut = |caller: &&Arc<Caller>| {
                let at = caller.cut.lock().expect("no panic").at;
                at.is_none_or(|at| at.elapsed() >= CUT_AGAIN)
            };
            match callers.iter().find(may_cut).filter(|_| n % CUT_EACH == 0) {
                Some(caller) => self.cut(mesh, caller).await,
                None => self.revoke_one(mesh).await,
            }
            figures.one(&figures.revocations);
            tokio::time::sleep(every).await;
        }
    }

    async fn revoke_one(&self, mesh: &Mesh) {
        let audience = some_audience(mesh);
        let token = self.victims_token(&audience).await;
        for guard in mesh.of(&audience) {
            guard.accept(&token, &self.figures).await;
        }
        persist(|| self.revoke(&token)).await;
        self.all_refuse(mesh, &audience, token).await;
    }

    /// Its policy demands `tokens:revoke-own` alone, as anyone may revoke a token of their own, and a
    /// session's client would bring no more.
    async fn revoke(&self, token: &str) -> Result<(), Status> {
        let scope = ScopeSet::parse("tokens:revoke tokens:revoke-own").expect("scopes");
        let audience = COUNTERSIGN.parse().expect("an audience");
        let ours = self.session.token_source(audience, scope);
        let ours = ours.token(Instant::now() + DOWN).await.map_err(Status::from)?;
        let target = Some(Target::Token(token.to_owned()));
        let mut request = Request::new(rpc::RevokeTokenRequest { target });
        let header = ours.header().to_str().expect("a token is ASCII");
        request.metadata_mut().insert("authorization", header.parse().expect("a token is ASCII"));
        TokenServiceClient::new(self.channel.clone()).revoke_token(request).await.map(drop)
    }

    /// Revokes all tokens of a caller so far. The next one is good at once.
    async fn cut(&self, mesh: &Mesh, caller: &Caller) {
        let audience = some_audience(mesh);
        let token = self.token(&caller.id, &caller.secret, &audience).await;
        for guard in mesh.of(&audience) {
            guard.accept(&token, &self.figures).await;
        }
        let clients =
            ClientServiceClient::new(self.session.attach(self.channel.clone(), rpc::POLICIES));
        caller.cut.lock().expect("no panic").asked = true;
        let cut = persist(|| {
            let mut clients = clients.clone();
            let client_id = caller.id.clone();
            let request = rpc::RevokeClientTokensRequest { client_id, ..Default::default() };
            async move { clients.revoke_client_tokens(request).await }
        })
        .await;
        {
            let mut known = caller.cut.lock().expect("no panic");
            let before = cut.into_inner().revoked_before.expect("it says before when").seconds;
            *known = crate::callers::Cut { asked: false, before, at: Some(Instant::now()) };
        }
        self.all_refuse(mesh, &audience, token).await;
        let token = self.token(&caller.id, &caller.secret, &audience).await;
        for guard in mesh.of(&audience) {
            guard.accept(&token, &self.figures).await;
        }
    }

    /// Holds that a token whose revocation was acknowledged just now is refused within the bound.
    async fn all_refuse(&self, mesh: &Mesh, audience: &str, token: String) {
        let revoked_at = Instant::now();
        let refused =
            mesh.of(audience).map(|guard| guard.refuse(&token, revoked_at, &self.figures));
        futures_util::future::join_all(refused).await;
        self.revoked.lock().expect("no panic").push((audience.to_owned(), token));
    }

    /// Presents the latest revoked tokens again. None may be good again because of anything.
    pub async fn present_all(&self, mesh: &Mesh) {
        let mut revoked = self.revoked.lock().expect("no panic").clone();
        for (audience, token) in revoked.drain(revoked.len().saturating_sub(1_000)..) {
            for guard in mesh.of(&audience) {
                self.present(guard, &token).await;
            }
        }
    }

    async fn present(&self, guard: &Guarded, token: &str) {
        self.figures.one(&self.figures.presented);
        if guard.call(token).await.is_ok() {
            self.figures.accepted(format!("{} again", guard.audience));
        }
    }

    async fn victims_token(&self, audience: &str) -> String {
        let secret = self.victim.get().expect("it is registered");
        self.token(VICTIM, secret, audience).await
    }

    /// A token of a client, once the server is up.
    async fn token(&self, client_id: &str, secret: &str, audience: &str) -> String {
        let issued = persist(|| {
            let mut tokens = TokenServiceClient::new(self.channel.clone());
            let request = rpc::IssueTokenRequest {
                client_id: client_id.to_owned(),
                credential: Some(Credential::ClientSecret(secret.to_owned())),
                audience: audience.to_owned(),
                ..Default::default()
            };
            async move { tokens.issue_token(request).await }
        });
        issued.await.into_inner().access_token
    }
}

type Keys = KeyServiceClient<countersign_mesh::session::Authenticated<Channel>>;

/// Asks until it is done: the server may be down.
async fn persist<T, F>(ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, Status>>,
{
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(status) => until_up(&status).await,
        }
    }
}

/// What the server refuses it refuses again; only one that is not there is asked again.
async fn until_up(status: &Status) {
    assert!(reason(status).is_empty(), "{status:?}");
    tokio::time::sleep(DOWN).await;
}

fn some_audience(mesh: &Mesh) -> String {
    let count = mesh.audiences().count();
    let at = usize::try_from(random(count as u64)).expect("it is small");
    mesh.audiences().nth(at).expect("there are so many")
}
