//! From a listener to a running server, and to its orderly end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use countersign_mesh::claims::Clock;
use countersign_mesh::guard::{Guard, Trust};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::Layer;

use crate::authority::{ActError, Authority, Refusal};
use crate::rpc;
use crate::rpc::audit_service_server::AuditServiceServer;
use crate::rpc::client_service_server::ClientServiceServer;
use crate::rpc::key_service_server::KeyServiceServer;
use crate::rpc::token_service_server::TokenServiceServer;
use crate::rpc::trust_service_server::TrustServiceServer;
use crate::server::connections::Connections;
use crate::server::desk::Desk;
use crate::server::grpc::{Audit, Clients, Keys, Tokens, TrustStreams};
use crate::server::http;
use crate::server::limits::{LimitSettings, Limits, Overload};
use crate::server::oauth::{self, Endpoints};
use crate::server::request_log::{NoteRefused, RequestLog};
use crate::server::tls::Tls;

/// Services that anyone may call without a token: health and reflection.
const PUBLIC_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// The largest request. A token and all that may go with it fits many times.
const MAX_MESSAGE: usize = 64 * 1024;

/// The largest request of `ClientService`: a client with all the grants that it can have fits.
const MAX_CLIENT_MESSAGE: usize = 512 * 1024;

/// How often the authority does its maintenance.
const MAINTENANCE: Duration = Duration::from_secs(60);

/// How often the schedule of rotations is looked at.
const SCHEDULE: Duration = Duration::from_secs(10);

/// How often the TLS files are looked at.
const TLS_FILES: Duration = Duration::from_secs(30);

/// How a server serves, beyond what it serves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// TLS, on every connection. Without it the server speaks plaintext.
    pub tls: Option<Arc<Tls>>,
    /// How much one peer, one client and all together may ask for.
    pub limits: LimitSettings,
}

/// Why serving ended before it was told to.
#[derive(Debug)]
pub enum ServeError {
    /// The services could not be put together.
    Setup(String),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(why) => write!(f, "cannot set the services up: {why}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// [`serve_with`] the default options: in plaintext.
///
/// # Errors
/// When it cannot begin, or ends before it is told to.
pub async fn serve(
    listener: TcpListener,
    authority: Arc<Authority>,
    clock: Clock,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Result<(), ServeError> {
    serve_with(vec![listener], authority, clock, Options::default(), stop, grace).await
}

/// Serves on all listeners until `stop` resolves, then accepts nothing new and lets calls end, for `grace` at most.
///
/// # Errors
/// When it cannot begin, or ends before it is told to.
pub async fn serve_with(
    listeners: Vec<TcpListener>,
    authority: Arc<Authority>,
    clock: Clock,
    options: Options,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Result<(), ServeError> {
    // Without TCP_NODELAY, small answers wait for acknowledgements (Nagle's algorithm).
    let incoming =
        listeners.into_iter().map(|listener| TcpIncoming::from(listener).with_nodelay(Some(true)));
    let incoming = futures_util::stream::select_all(incoming);
    serve_on(incoming, authority, clock, options, stop, grace).await
}

/// [`serve_with`] connections that come in some other way than from a listener of the system, such as
/// those of a simulated network. The end of `incoming` stops the server, too.
///
/// # Errors
/// When it cannot begin, or ends before it is told to.
pub async fn serve_on<IO>(
    incoming: impl Stream<Item = io::Result<IO>> + Send + 'static,
    authority: Arc<Authority>,
    clock: Clock,
    options: Options,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Connected<ConnectInfo = TcpConnectInfo> + Unpin + Send + 'static,
{
    let guard = guard(&authority, &clock);
    let limits = Arc::new(Limits::new(&options.limits));
    let desk = Desk { authority: Arc::clone(&authority), clock: clock.clone(), limits };
    let mut health = Health::serving().await;
    let (stopping, stopped) = watch::channel(());
    let grpc = routes(&desk, stopped.clone(), health.service())?.into_axum_router().layer(guard);
    let takes_certificates =
        options.tls.as_ref().is_some_and(|tls| tls.takes_client_certificates());
    let plain = oauth::routes(Endpoints::new(desk, takes_certificates, stopped.clone()));
    let refusals = Arc::clone(&authority);
    let note_refused: NoteRefused = Arc::new(move |client, path, reason, peer| {
        refusals.note_refused_call(client, path, reason, peer)
    });
    let routes = http::beside(grpc, plain, &authority.issuer());
    let service =
        RequestLog::new(note_refused).layer(Overload::new(options.limits.requests).layer(routes));
    let connections =
        Connections::new(options.tls.clone(), clock.clone(), options.limits.connections);
    let mut server =
        tokio::spawn(connections.serve(incoming, service, until_dropped(stopped.clone())));
    if let Some(tls) = options.tls {
        tokio::spawn(keep_fresh(tls, clock.clone(), stopped.clone()));
    }
    let schedule = rotate(Arc::clone(&authority), clock.clone(), stopped.clone());
    let maintenance = maintain(Arc::clone(&authority), clock.clone(), stopped);
    let maintenance = tokio::spawn(async { tokio::join!(maintenance, schedule) });

    let ended = tokio::select! {
        ended = &mut server => Some(ended),
        () = stop => None,
    };
    drop(stopping);
    let deadline = Instant::now() + grace;
    let ended = match ended {
        Some(ended) => Some(ended),
        None => {
            health.stop().await;
            drain(&mut server, grace).await
        }
    };
    // Maintenance is waited for and not cut off: it may hold refusals that it has taken to write, and would lose them.
    let _ = tokio::time::timeout_at(deadline, maintenance).await;
    // Write down what is only in memory. The end was in order only if no call was cut off that could still
    // authenticate someone; only then is every last use known (`close`).
    let written = match ended {
        Some(Ok(())) => authority.close(clock.now()).await,
        Some(Err(_)) | None => authority.maintain(clock.now()).await,
    };
    if let Err(error) = written {
        tracing::warn!(%error, "uses of secrets and refusals since the last minute are lost");
    }
    match ended {
        Some(Err(error)) => Err(ServeError::Setup(error.to_string())),
        Some(Ok(())) | None => Ok(()),
    }
}

/// What `grpc.health.v1` says of us, as a whole and of each service.
struct Health(HealthReporter);

impl Health {
    const NAMES: [&str; 6] = [
        "",
        <TokenServiceServer<Tokens> as NamedService>::NAME,
        <TrustServiceServer<TrustStreams> as NamedService>::NAME,
        <KeyServiceServer<Keys> as NamedService>::NAME,
        <ClientServiceServer<Clients> as NamedService>::NAME,
        <AuditServiceServer<Audit> as NamedService>::NAME,
    ];

    async fn serving() -> Self {
        let reporter = HealthReporter::new();
        for name in Self::NAMES {
            reporter.set_service_status(name, ServingStatus::Serving).await;
        }
        Self(reporter)
    }

    fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.0.clone()))
            .max_decoding_message_size(MAX_MESSAGE)
    }

    /// Tells everyone who watches, and ends their streams: these would outlast every other call.
    async fn stop(&mut self) {
        for name in Self::NAMES {
            self.0.set_service_status(name, ServingStatus::NotServing).await;
            self.0.clear_service_status(name).await;
        }
    }
}

/// Countersign's own services are protected like anyone's, by their own annotations.
fn guard(authority: &Authority, clock: &Clock) -> Guard {
    let trust = Trust::live(authority.trust(), Arc::default());
    // No refusal log of the guard's own: the request log has the refusals.
    let guard = Guard::builder(trust)
        .services(rpc::POLICIES)
        // The trust service ends its streams itself, and not when their tokens expire.
        .streams_outlive_tokens(<TrustServiceServer<TrustStreams> as NamedService>::NAME)
        .clock(clock.clone())
        .without_refusal_log();
    PUBLIC_SERVICES.iter().fold(guard, |guard, name| guard.public_service(name)).build()
}

/// Lets connections end for a while, then cuts them off.
async fn drain(server: &mut JoinHandle<()>, grace: Duration) -> Option<Result<(), JoinError>> {
    match tokio::time::timeout(grace, &mut *server).await {
        Ok(ended) => Some(ended),
        Err(_) => {
            tracing::warn!(
                grace = grace.as_secs(),
                "calls were still under way after the grace period"
            );
            server.abort();
            None
        }
    }
}

async fn until_dropped(mut sender: watch::Receiver<()>) {
    while sender.changed().await.is_ok() {}
}

async fn keep_fresh(tls: Arc<Tls>, clock: Clock, stopped: watch::Receiver<()>) {
    let mut stopped = pin!(until_dropped(stopped));
    loop {
        tokio::select! {
            () = &mut stopped => return,
            () = tokio::time::sleep(TLS_FILES) => tls.refresh(clock.now()),
        }
    }
}

async fn maintain(authority: Arc<Authority>, clock: Clock, stopped: watch::Receiver<()>) {
    let mut stopped = pin!(until_dropped(stopped));
    let mut due = tokio::time::interval(MAINTENANCE);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is immediate.
    due.tick().await;
    loop {
        tokio::select! {
            () = &mut stopped => return,
            _ = due.tick() => {}
        }
        if let Err(error) = authority.maintain(clock.now()).await {
            tracing::error!(%error, "the store cannot be written; issuing goes on within the signing lease");
        }
    }
}

/// Rotates the keys by schedule, if there is one. A rotation that the gate refuses is tried again, with a warning
/// once a minute.
async fn rotate(authority: Arc<Authority>, clock: Clock, stopped: watch::Receiver<()>) {
    let mut stopped = pin!(until_dropped(stopped));
    let mut due = tokio::time::interval(SCHEDULE);
    let mut warned: Option<Instant> = None;
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut stopped => return,
            _ = due.tick() => {}
        }
        match authority.rotate_if_due(clock.now()).await {
            Ok(None) => {}
            Ok(Some(change)) => {
                tracing::info!(active = %change.active.kid, "the keys were rotated by schedule");
            }
            Err(ActError::Refused(Refusal::VerifiersBehind(behind))) => {
                if warned.is_none_or(|warned| warned.elapsed() >= MAINTENANCE) {
                    warned = Some(Instant::now());
                    let (behind, wait) = (behind.brief(), behind.retry_in.as_secs());
                    tracing::warn!(behind, wait, "a rotation is due and has to wait");
                }
            }
            Err(error) => tracing::error!(?error, "a rotation is due and cannot be done"),
        }
    }
}

fn routes(
    desk: &Desk,
    stopped: watch::Receiver<()>,
    health: HealthServer<HealthService>,
) -> Result<Routes, ServeError> {
    let reflected = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(rpc::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let setup = |error: tonic_reflection::server::Error| ServeError::Setup(error.to_string());
    // v1alpha is for tools that know no later version.
    let reflection = reflected().build_v1().map_err(setup)?;
    let reflection_alpha = reflected().build_v1alpha().map_err(setup)?;

    Ok(Routes::new(
        TokenServiceServer::new(Tokens(desk.clone())).max_decoding_message_size(MAX_MESSAGE),
    )
    .add_service(
        TrustServiceServer::new(TrustStreams { desk: desk.clone(), stopped })
            .max_decoding_message_size(MAX_MESSAGE),
    )
    .add_service(KeyServiceServer::new(Keys(desk.clone())).max_decoding_message_size(MAX_MESSAGE))
    .add_service(
        ClientServiceServer::new(Clients(desk.clone()))
            .max_decoding_message_size(MAX_CLIENT_MESSAGE),
    )
    .add_service(
        AuditServiceServer::new(Audit(desk.clone())).max_decoding_message_size(MAX_MESSAGE),
    )
    .add_service(health)
    .add_service(reflection.max_decoding_message_size(MAX_MESSAGE))
    .add_service(reflection_alpha.max_decoding_message_size(MAX_MESSAGE)))
}
