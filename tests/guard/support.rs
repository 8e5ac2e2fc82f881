//! A service with methods of all four kinds behind a guard. It is called in process, without a socket,
//! so that time can stand still.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_mesh::claims::Audience;
use countersign_mesh::guard::{
    self, Access, Guard, GuardBuilder, Guarded, MethodPolicy, ServicePolicy,
};
use countersign_mesh::testing::{TestIssuer, TestToken};
use futures_util::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;
use tower::{Layer, Service, service_fn};

pub const UNARY: &str = "/test.Echo/Unary";
pub const CLIENT_STREAM: &str = "/test.Echo/ClientStream";
pub const SERVER_STREAM: &str = "/test.Echo/ServerStream";
pub const BUSY_STREAM: &str = "/test.Echo/BusyStream";
pub const BIDI: &str = "/test.Echo/Bidi";
pub const PUBLIC: &str = "/test.Echo/Public";
pub const UNDECLARED: &str = "/test.Echo/Undeclared";

const SCOPES: Access = Access::Scopes(&["echo:call"]);

pub const POLICIES: &[ServicePolicy] = &[ServicePolicy {
    service: "test.Echo",
    audience: "echo",
    methods: &[
        MethodPolicy { path: UNARY, access: SCOPES },
        MethodPolicy { path: CLIENT_STREAM, access: SCOPES },
        MethodPolicy { path: SERVER_STREAM, access: SCOPES },
        MethodPolicy { path: BUSY_STREAM, access: SCOPES },
        MethodPolicy { path: BIDI, access: SCOPES },
        MethodPolicy { path: PUBLIC, access: Access::Public },
    ],
}];

/// The service. Unary methods answer with the caller's name; streams answer once and then wait.
#[derive(Clone)]
pub struct Echo {
    /// Tells the test what comes out of request streams, and when a response stream is dropped.
    seen: mpsc::UnboundedSender<Seen>,
}

#[derive(Debug)]
pub enum Seen {
    Message,
    Error(Status),
    ResponseDropped,
}

struct TellsWhenDropped(mpsc::UnboundedSender<Seen>);

impl Drop for TellsWhenDropped {
    fn drop(&mut self) {
        let _ = self.0.send(Seen::ResponseDropped);
    }
}

type BoxError = Box<dyn Error + Send + Sync>;
type Messages = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

impl Echo {
    /// Reads the request stream to its end.
    async fn read(self, mut requests: Streaming<String>) -> Result<(), Status> {
        loop {
            match requests.message().await {
                Ok(Some(_)) => drop(self.seen.send(Seen::Message)),
                Ok(None) => return Ok(()),
                Err(status) => {
                    let _ = self.seen.send(Seen::Error(status.clone()));
                    return Err(status);
                }
            }
        }
    }

    fn first_then_silence(&self) -> Messages {
        let guard = TellsWhenDropped(self.seen.clone());
        let silence = stream::pending().map(move |never| {
            let _ = &guard;
            never
        });
        Box::pin(stream::iter([Ok("first".to_owned())]).chain(silence))
    }
}

fn name_of_caller<T>(request: &Request<T>) -> String {
    assert!(!request.metadata().contains_key("authorization") || is_reported(request));
    guard::caller(request.extensions())
        .map_or_else(|| "nobody".to_owned(), |token| token.claims().client_id.to_string())
}

/// A guard in report-only mode lets a refused call through with its token.
fn is_reported<T>(request: &Request<T>) -> bool {
    guard::caller(request.extensions()).is_none()
}

impl<B> Service<http::Request<B>> for Echo
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
            Ok(match request.uri().path().to_owned().as_str() {
                CLIENT_STREAM => {
                    let handler = service_fn(move |request: Request<Streaming<String>>| {
                        let echo = echo.clone();
                        async move {
                            let name = name_of_caller(&request);
                            echo.read(request.into_inner()).await?;
                            Ok(Response::new(name))
                        }
                    });
                    grpc.client_streaming(handler, request).await
                }
                SERVER_STREAM => {
                    let handler = service_fn(move |_: Request<String>| {
                        let messages = echo.first_then_silence();
                        async move { Ok(Response::new(messages)) }
                    });
                    grpc.server_streaming(handler, request).await
                }
                BUSY_STREAM => {
                    let handler = service_fn(move |_: Request<String>| async move {
                        let large = "x".repeat(40_000);
                        Ok(Response::new(stream::repeat_with(move || Ok(large.clone()))))
                    });
                    grpc.server_streaming(handler, request).await
                }
                BIDI => {
                    let handler = service_fn(move |request: Request<Streaming<String>>| {
                        let messages = echo.first_then_silence();
                        tokio::spawn(echo.clone().read(request.into_inner()));
                        async move { Ok(Response::new(messages)) }
                    });
                    grpc.streaming(handler, request).await
                }
                _ => {
                    let handler = service_fn(|request: Request<String>| {
                        let name = name_of_caller(&request);
                        async move { Ok(Response::new(name)) }
                    });
                    grpc.unary(handler, request).await
                }
            })
        })
    }
}

/// An issuer, and a guarded service that trusts it.
pub struct Rig {
    pub issuer: TestIssuer,
    pub seen: mpsc::UnboundedReceiver<Seen>,
    client: tonic::client::Grpc<Guarded<Echo>>,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|guard| guard)
    }

    pub fn with(configure: impl FnOnce(GuardBuilder) -> GuardBuilder) -> Self {
        let issuer = TestIssuer::new();
        let guard = configure(issuer.guard(POLICIES)).build();
        Self::behind(issuer, guard)
    }

    pub fn behind(issuer: TestIssuer, guard: Guard) -> Self {
        let (sender, seen) = mpsc::unbounded_channel();
        let client = tonic::client::Grpc::new(guard.layer(Echo { seen: sender }));
        Self { issuer, seen, client }
    }

    /// A token that is good for every method.
    pub fn token(&self) -> TestToken {
        self.issuer.token("order").audience("echo").scopes("echo:call").mint()
    }

    pub async fn unary(
        &mut self,
        path: &'static str,
        request: Request<()>,
    ) -> Result<String, Status> {
        self.client.ready().await.expect("it is always ready");
        let request = request.map(|()| "hello".to_owned());
        let path = PathAndQuery::from_static(path);
        self.client.unary(request, path, codec()).await.map(Response::into_inner)
    }

    pub async fn server_stream(
        &mut self,
        path: &'static str,
        request: Request<()>,
    ) -> Result<Streaming<String>, Status> {
        let request = request.map(|()| "hello".to_owned());
        let path = PathAndQuery::from_static(path);
        self.client.server_streaming(request, path, codec()).await.map(Response::into_inner)
    }

    pub async fn client_stream(&mut self, request: Request<()>) -> Result<String, Status> {
        let request = request.map(|()| one_then_silence());
        let path = PathAndQuery::from_static(CLIENT_STREAM);
        in_time(self.client.client_streaming(request, path, codec()))
            .await
            .map(Response::into_inner)
    }

    pub async fn bidi(&mut self, request: Request<()>) -> Result<Streaming<String>, Status> {
        let request = request.map(|()| one_then_silence());
        let path = PathAndQuery::from_static(BIDI);
        self.client.streaming(request, path, codec()).await.map(Response::into_inner)
    }

    /// The next error that a handler sees in its request stream.
    pub async fn handler_error(&mut self) -> Status {
        loop {
            match in_time(self.seen.recv()).await.expect("the handler runs") {
                Seen::Error(status) => return status,
                Seen::Message | Seen::ResponseDropped => {}
            }
        }
    }
}

/// The output of a future. With tokio's clock paused, a future that never completes fails the test at
/// once.
pub async fn in_time<F: Future>(future: F) -> F::Output {
    const LONG: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    tokio::time::timeout(LONG, future).await.expect("the future completes")
}

/// The next message of a stream.
pub async fn next(stream: &mut Streaming<String>) -> Result<Option<String>, Status> {
    in_time(stream.message()).await
}

fn codec() -> ProstCodec<String, String> {
    ProstCodec::default()
}

fn one_then_silence() -> impl Stream<Item = String> + Send + 'static {
    stream::iter(["one".to_owned()]).chain(stream::pending())
}

/// The reason in a status, as callers read it.
#[track_caller]
pub fn reason(status: &Status) -> String {
    let info =
        status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, guard::ERROR_DOMAIN);
    info.reason
}

pub fn audience(name: &str) -> Audience {
    Audience::new(name).expect("an audience")
}
