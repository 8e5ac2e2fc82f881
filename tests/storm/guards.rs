//! The services: each behind a guard that a session of its own feeds. Two serve each audience.

use std::time::Duration;

use countersign::rpc;
use countersign_mesh::claims::{Audience, ClientId};
use countersign_mesh::guard::{Access, Guard, MethodPolicy, ServicePolicy};
use countersign_mesh::session::{Credentials, FedBy, Session};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::figures::Figures;
use crate::operator::Operator;

/// Any service will do: this one says whether it is there.
pub const SERVICE: &[ServicePolicy] = &[ServicePolicy {
    service: "grpc.health.v1.Health",
    audience: "service",
    methods: &[MethodPolicy {
        path: "/grpc.health.v1.Health/Check",
        access: Access::Scopes(&["look"]),
    }],
}];

pub const SCOPE: &str = "look";

/// The bound: how long after its acknowledgement a revocation may be unknown to a connected guard.
const BOUND: Duration = Duration::from_secs(1);

/// How often a token is presented again until it is refused.
const AGAIN: Duration = Duration::from_millis(1);

pub struct Mesh {
    pub guards: Vec<Guarded>,
    audiences: usize,
}

pub struct Guarded {
    pub audience: String,
    pub channel: Channel,
    session: Session,
}

impl Mesh {
    /// Starts them all, and waits until each has its stream.
    pub async fn start(url: &str, operator: &Operator, guards: usize, figures: &Figures) -> Self {
        let audiences = guards / 2;
        let mut secrets = Vec::new();
        for n in 0..audiences {
            let client = rpc::Client {
                client_id: format!("service-{n}"),
                serves: vec![audience(n)],
                ..Default::default()
            };
            secrets.push(operator.register(client).await);
        }
        let mut started = Vec::new();
        for n in 0..guards {
            let service = n % audiences;
            let id = ClientId::new(&format!("service-{service}")).expect("a client id");
            let session = Session::builder(url, Credentials::new(id, secrets[service].as_str()))
                .verifier_name(&format!("replica-{n}"))
                .connect()
                .expect("a loopback address");
            started.push(Guarded::start(session, audience(service)).await);
        }
        let mesh = Self { guards: started, audiences };
        mesh.all_back().await;
        operator.may_call(&mesh, figures).await;
        mesh
    }

    pub fn audiences(&self) -> impl Iterator<Item = String> {
        (0..self.audiences).map(audience)
    }

    pub fn of<'a>(&'a self, audience: &'a str) -> impl Iterator<Item = &'a Guarded> {
        self.guards.iter().filter(move |guard| guard.audience == audience)
    }

    /// Waits until every guard has its stream.
    pub async fn all_back(&self) {
        for guard in &self.guards {
            while !guard.is_connected() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn audience(n: usize) -> String {
    format!("audience-{n}")
}

impl Guarded {
    async fn start(session: Session, audience: String) -> Self {
        let named = Audience::new(&audience).expect("an audience");
        let guard = Guard::builder(&session).services_as(&named, SERVICE).build();
        let (_, health) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let serving = Server::builder()
            .layer(guard)
            .add_service(health)
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(serving);
        let channel = Channel::from_shared(format!("http://{address}")).expect("valid");
        Self { audience, channel: channel.connect_lazy(), session }
    }

    pub fn is_connected(&self) -> bool {
        self.session.health().fed_by == FedBy::Stream
    }

    pub async fn call(&self, token: &str) -> Result<(), Status> {
        let mut request = Request::new(HealthCheckRequest::default());
        let header = format!("Bearer {token}").parse().expect("a token is ASCII");
        request.metadata_mut().insert("authorization", header);
        HealthClient::new(self.channel.clone()).check(request).await.map(drop)
    }

    /// Calls with a token that is valid.
    pub async fn accept(&self, token: &str, figures: &Figures) {
        match self.call(token).await {
            Ok(()) => figures.one(&figures.calls),
            Err(status) => figures.refused(format!("{}: {status:?}", self.audience)),
        }
    }

    /// Presents a token until it is refused, whose revocation was acknowledged at this time. The bound
    /// counts from when the guard had its stream, if it lost it meanwhile.
    pub async fn refuse(&self, token: &str, revoked_at: Instant, figures: &Figures) {
        let (mut since, mut cut_off) = (revoked_at, false);
        loop {
            if !self.is_connected() {
                (since, cut_off) = (Instant::now(), true);
            }
            let began = Instant::now();
            match self.call(token).await {
                Err(status) if reason(&status) == "TOKEN_REVOKED" => {
                    let took = revoked_at.elapsed();
                    if cut_off {
                        figures.cut_off(took)
                    } else {
                        figures.connected(took)
                    }
                    return;
                }
                Err(status) => {
                    return figures.refused(format!("not for being revoked: {status:?}"));
                }
                Ok(()) if began - since > BOUND => {
                    let after = began - since;
                    return figures.accepted(format!("{} after {after:?}", self.audience));
                }
                Ok(()) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}

/// The reason of an error, or nothing.
pub fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
