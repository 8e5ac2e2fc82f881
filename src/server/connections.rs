//! Connections, from being accepted to their orderly end: TLS or not, then HTTP/1.1 or HTTP/2.
//!
//! tonic's own server does this too. It has no bound on the number of connections, never ends an idle one, and
//! advertises `h2` alone over TLS.
//!
//! What a slow or greedy peer finds: a TLS handshake takes ten seconds at most, and so does the first request
//! after it. A connection that had one waits for the next for thirty seconds (HTTP/1.1), or for five to ten
//! minutes (HTTP/2). Headers are 16 KiB at most, streams 256 a connection. Who resets streams by the dozen is
//! cut off (h2 counts), and so is who sends PINGs, SETTINGS and the like by the thousand
//! ([`Inbound`] counts). A connection over the limit is closed at once. In the
//! backlog it would wait; closed, its client can go elsewhere. Each handshake is a task of its own, so that a peer
//! which begins many and ends none holds up nobody else.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use countersign_mesh::claims::Clock;
use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tower::Service;

use crate::server::inbound::{Inbound, Seen};
use crate::server::limits::Shares;
use crate::server::peer::{Activity, Peer, PeerService};
use crate::server::tls::{Presented, Tls};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection of HTTP/1.1 that is kept alive waits for the next request, its head included.
const HTTP1_HEAD: Duration = Duration::from_secs(30);

/// The longest head of an HTTP/1.1 request.
const HTTP1_MAX_HEAD: usize = 64 * 1024;

/// The largest headers of an HTTP/2 request, as h2 counts them.
const HTTP2_MAX_HEADERS: u32 = 16 * 1024;

/// How much of a body an HTTP/2 peer may send before someone reads it: on one stream, and on all streams of a
/// connection together. No request is larger than half a mebibyte.
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
const HTTP2_CONNECTION_WINDOW: u32 = 256 * 1024;

/// How many requests may be under way on one HTTP/2 connection.
const HTTP2_MAX_STREAMS: u32 = 256;

/// How long a connection may take to its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// How long a peer that is let go may take to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long a connection may be without a request. This is also how often it is looked at, so that a connection may
/// be idle for up to twice as long.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// How long accepting rests when the process has no file descriptor left.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// What connections are made of.
pub(super) struct Connections {
    tls: Option<Arc<Tls>>,
    clock: Clock,
    /// One for each connection there may be.
    room: Arc<Semaphore>,
    shares: Shares,
}

impl Connections {
    pub(super) fn new(tls: Option<Arc<Tls>>, clock: Clock, most: usize) -> Self {
        Self { tls, clock, room: Arc::new(Semaphore::new(most)), shares: Shares::of(most) }
    }

    /// Serves until `stop` resolves, then drops `incoming`, tells peers to begin nothing new, and
    /// ends with the last connection. Dropped, it cuts all of them off.
    pub(super) async fn serve<IO, S>(
        self,
        incoming: impl Stream<Item = io::Result<IO>>,
        service: S,
        stop: impl Future<Output = ()>,
    ) where
        IO: AsyncRead
            + AsyncWrite
            + Connected<ConnectInfo = TcpConnectInfo>
            + Unpin
            + Send
            + 'static,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
    {
        let Self { tls, clock, room, shares } = self;
        let mut incoming = Box::pin(incoming);
        let (stopping, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        let http = http();
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = incoming.next() => accepted,
            };
            let stream = match accepted {
                None => break,
                Some(Ok(stream)) => stream,
                Some(Err(error)) => {
                    rest(&error).await;
                    continue;
                }
            };
            let share = shares.take(stream.connect_info().remote_addr.map(|peer| peer.ip()));
            let (Some(share), Ok(place)) = (share, Arc::clone(&room).try_acquire_owned()) else {
                tracing::debug!("a connection over the limit was closed");
                continue;
            };
            let connection = Connection {
                http: http.clone(),
                service: service.clone(),
                clock: clock.clone(),
                stopped: stopped.clone(),
            };
            let tls = tls.clone();
            connections.spawn(async move {
                connection.begin(stream, tls.as_deref()).await;
                drop((place, share));
            });
        }
        drop(incoming);
        drop(stopping);
        while connections.join_next().await.is_some() {}
    }
}

/// How HTTP is spoken.
fn http() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP1_HEAD)
        .max_buf_size(HTTP1_MAX_HEAD);
    http.http2()
        .timer(TokioTimer::new())
        // Notices a peer that vanished without closing, and frees its connection.
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(10))
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .max_concurrent_streams(HTTP2_MAX_STREAMS)
        .max_header_list_size(HTTP2_MAX_HEADERS);
    http
}

/// Waits a little before accepting again, unless the failed connection was its peer's doing: a peer that left before
/// it was accepted says nothing about the next.
async fn rest(error: &io::Error) {
    tracing::debug!(%error, "a connection could not be accepted");
    let theirs = [
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionRefused,
    ];
    if !theirs.contains(&error.kind()) {
        tokio::time::sleep(OUT_OF_FILES).await;
    }
}

/// A connection from its first byte on.
struct Connection<S> {
    http: Builder<TokioExecutor>,
    service: S,
    clock: Clock,
    /// Closed when the server stops.
    stopped: watch::Receiver<()>,
}

impl<S> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    async fn begin<IO>(self, stream: IO, tls: Option<&Tls>)
    where
        IO: AsyncRead
            + AsyncWrite
            + Connected<ConnectInfo = TcpConnectInfo>
            + Unpin
            + Send
            + 'static,
    {
        let address = stream.connect_info();
        let Some(tls) = tls else {
            return self.speak_http(stream, Peer { address, certificate: None }, None).await;
        };
        let mut stopped = self.stopped.clone();
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE, tls.acceptor().accept(stream)) => shaken,
            _ = stopped.changed() => return,
        };
        match shaken {
            Ok(Ok(stream)) => {
                let presented = Presented::by(&stream);
                let good_for = presented.as_ref().map(|presented| presented.good_for(&self.clock));
                let certificate = presented.map(|presented| presented.names);
                self.speak_http(stream, Peer { address, certificate }, good_for).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(peer = ?address.remote_addr, %error, "a TLS handshake failed");
            }
            Err(_) => {
                tracing::debug!(peer = ?address.remote_addr, "a TLS handshake took too long");
            }
        }
    }

    /// Speaks HTTP until the connection ends: by itself, when it idles, when the server stops, or when the peer's
    /// certificate expires.
    async fn speak_http<IO>(self, stream: IO, peer: Peer, good_for: Option<Duration>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { http, service, clock: _, mut stopped } = self;
        let activity = Arc::new(Activity::default());
        let seen = Arc::new(Seen::default());
        let service = PeerService::new(service, peer, Arc::clone(&activity), Arc::clone(&seen));
        let stream = TokioIo::new(Inbound::new(stream, Arc::clone(&seen)));
        let mut connection = pin!(http.serve_connection(stream, service));
        let mut idle = pin!(idle(&activity));
        let mut outdated = pin!(outdated(good_for));
        let mut flood = pin!(seen.flood());
        let mut going_on = true;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke off");
                    }
                    return;
                }
                _ = stopped.changed(), if going_on => {}
                () = &mut idle, if going_on => {}
                () = &mut outdated, if going_on => {}
                () = &mut flood => {
                    tracing::debug!("a peer that sent too many control frames is let go");
                    connection.as_mut().graceful_shutdown();
                    return farewell(connection).await;
                }
            }
            going_on = false;
            connection.as_mut().graceful_shutdown();
            if activity.begun() == 0 {
                // Half a head would have hyper wait for the other half.
                return farewell(connection).await;
            }
        }
    }
}

/// Lets a connection write what it still has to say, and cuts it off.
async fn farewell(connection: impl Future) {
    let _ = timeout(FAREWELL, connection).await;
}

/// Resolves when the peer's certificate expires. It was good in the handshake.
async fn outdated(good_for: Option<Duration>) {
    match good_for {
        Some(good_for) => tokio::time::sleep(good_for).await,
        None => std::future::pending().await,
    }
}

/// Resolves when a connection has had no request for too long.
async fn idle(activity: &Activity) {
    tokio::time::sleep(FIRST_REQUEST).await;
    let mut before = 0;
    loop {
        let begun = activity.begun();
        if begun == before && activity.under_way() == 0 {
            return;
        }
        before = begun;
        tokio::time::sleep(IDLE).await;
    }
}
