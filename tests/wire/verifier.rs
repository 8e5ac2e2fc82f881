//! A verifier on the trust stream, message by message.

use std::time::Duration;

use countersign::rpc;
use countersign::rpc::trust_service_client::TrustServiceClient;
use countersign::rpc::watch_trust_bundle_request::Event as Said;
use countersign::rpc::watch_trust_bundle_response::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::support::{TestServer, bearing};

/// How long a test waits for a message that must come at once.
const AT_ONCE: Duration = Duration::from_secs(20);

pub struct Verifier {
    says: mpsc::Sender<rpc::WatchTrustBundleRequest>,
    hears: Streaming<rpc::WatchTrustBundleResponse>,
}

/// A complete snapshot or delta.
#[derive(Debug, Clone, Default)]
pub struct Update {
    pub epoch: u64,
    pub proof: Vec<u8>,
    /// `None` for a snapshot.
    pub from: Option<u64>,
    pub kids: Vec<String>,
    pub revoked_kids: Vec<String>,
    pub tokens: Vec<String>,
    pub clients: Vec<String>,
    pub parts: usize,
    pub largest_part: usize,
}

pub fn hello(name: &str) -> rpc::WatchTrustBundleRequest {
    going_on(name, 0, Vec::new())
}

/// The hello of a verifier that already holds an epoch.
pub fn going_on(name: &str, have_epoch: u64, proof: Vec<u8>) -> rpc::WatchTrustBundleRequest {
    let hello =
        rpc::TrustHello { verifier_name: name.to_owned(), have_epoch, have_epoch_proof: proof };
    rpc::WatchTrustBundleRequest { event: Some(Said::Hello(hello)) }
}

pub fn ack(epoch: u64) -> rpc::WatchTrustBundleRequest {
    rpc::WatchTrustBundleRequest { event: Some(Said::Ack(rpc::TrustAck { epoch })) }
}

impl TestServer {
    /// Registers a service that serves the audience of its own name. Returns a token of it.
    pub async fn service(&self, name: &str) -> String {
        let secret = self.register(name, &[], &[name]).await;
        self.token(name, &secret, "countersign").await.token
    }

    /// A verifier of a new service that has received and acknowledged everything.
    pub async fn verifier(&self, service: &str) -> Verifier {
        let token = self.service(service).await;
        let mut verifier = Verifier::open(self, &token, hello("one"))
            .await
            .expect("the server accepts the stream");
        verifier.install().await;
        self.all_hold_next().await;
        verifier
    }

    /// Waits until the server has noticed that no verifier is connected any more.
    pub async fn all_gone(&self) {
        for _ in 0..1000 {
            if self.authority().verifiers().connected() == 0 {
                return;
            }
            // A call makes the server process what has arrived on its sockets.
            self.operator_token().await;
        }
        panic!("the server does not notice");
    }

    /// Waits until the server has heard that every verifier holds the next key.
    pub async fn all_hold_next(&self) {
        let keys = || async {
            let request = rpc::ListKeysRequest::default();
            let answer = self.keys().list_keys(self.as_operator(request).await).await;
            answer.expect("the operator may").into_inner()
        };
        for _ in 0..1000 {
            let listed = keys().await;
            if listed.keys[0].verifiers_holding == listed.verifiers_connected {
                return;
            }
        }
        panic!("the server does not hear");
    }
}

impl Verifier {
    pub async fn open(
        server: &TestServer,
        token: &str,
        first: rpc::WatchTrustBundleRequest,
    ) -> Result<Self, Status> {
        let (says, said) = mpsc::channel(64);
        says.send(first).await.expect("the channel has room");
        let request = bearing(token, ReceiverStream::new(said));
        let mut client = TrustServiceClient::new(server.channel.clone());
        let hears = client.watch_trust_bundle(request).await?.into_inner();
        Ok(Self { says, hears })
    }

    pub async fn say(&self, message: rpc::WatchTrustBundleRequest) {
        // The stream may have ended meanwhile. The test sees that when it reads.
        let _ = self.says.send(message).await;
    }

    pub async fn hear(&mut self) -> Result<Option<rpc::WatchTrustBundleResponse>, Status> {
        tokio::time::timeout(AT_ONCE, self.hears.message())
            .await
            .expect("the message comes at once")
    }

    /// Receives the next snapshot or delta with all of its parts.
    pub async fn update(&mut self) -> Update {
        let mut update = Update::default();
        loop {
            let message =
                self.hear().await.expect("the stream goes on").expect("the stream goes on");
            let size = prost::Message::encoded_len(&message);
            let (content, last, from) = match message.event.expect("the message has an event") {
                Event::Heartbeat(_) => continue,
                Event::Snapshot(snapshot) => (snapshot.content, snapshot.last, None),
                Event::Delta(delta) => (delta.content, delta.last, Some(delta.from_epoch)),
            };
            let content = content.expect("the event has content");
            if update.parts == 0 {
                let set: serde_json::Value =
                    serde_json::from_str(&content.jwks).expect("a JWK Set");
                let keys = set["keys"].as_array().expect("keys").iter();
                update.kids =
                    keys.map(|key| key["kid"].as_str().expect("a name").to_owned()).collect();
                update.revoked_kids = content.revoked_kids;
                (update.epoch, update.from) = (message.epoch, from);
                update.proof = message.epoch_proof;
            } else {
                assert_eq!(
                    (message.epoch, from, content.jwks.as_str()),
                    (update.epoch, update.from, "")
                );
            }
            update.tokens.extend(content.tokens.into_iter().map(|token| token.token_id));
            update.clients.extend(content.clients.into_iter().map(|client| client.client_id));
            update.parts += 1;
            update.largest_part = update.largest_part.max(size);
            if last {
                return update;
            }
        }
    }

    /// Receives the next snapshot or delta and acknowledges it.
    pub async fn install(&mut self) -> Update {
        let update = self.update().await;
        self.say(ack(update.epoch)).await;
        update
    }

    /// Waits for the end of the stream and returns its status. Messages before the end are ignored.
    pub async fn end(&mut self) -> Status {
        loop {
            match self.hear().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a reason"),
                Err(status) => return status,
            }
        }
    }
}
