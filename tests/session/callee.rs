//! A service that is called. It remembers what it saw, and refuses the tokens that the test names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use countersign_mesh::guard::{Access, ERROR_DOMAIN, MethodPolicy, ServicePolicy};
use countersign_mesh::session::Authenticated;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::{Service, ServiceExt};

pub const READ: &str = "/shop.Shop/Read";
pub const LIST: &str = "/shop.Shop/List";
pub const WRITE: &str = "/shop.Shop/Write";
pub const PING: &str = "/shop.Shop/Ping";

pub const POLICIES: &[ServicePolicy] = &[ServicePolicy {
    service: "shop.Shop",
    audience: "shop",
    methods: &[
        MethodPolicy { path: READ, access: Access::Scopes(&["stock:read"]) },
        MethodPolicy { path: LIST, access: Access::Scopes(&["stock:read"]) },
        MethodPolicy { path: WRITE, access: Access::Scopes(&["stock:write"]) },
        MethodPolicy { path: PING, access: Access::Public },
    ],
}];

/// What it saw of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub path: String,
    /// The token, without `Bearer`.
    pub token: Option<String>,
    pub timeout: Option<String>,
    pub body: usize,
}

type Refuse = Arc<dyn Fn(&str) -> Option<(Code, &'static str)> + Send + Sync>;

#[derive(Clone)]
pub struct Callee {
    seen: Arc<Mutex<Vec<Seen>>>,
    refuse: Refuse,
    /// Reads a request to its end before it answers.
    patient: bool,
}

impl Callee {
    pub fn new() -> Self {
        Self::refusing(|_| None)
    }

    /// Refuses calls whose token this function has a code and reason for.
    pub fn refusing(
        refuse: impl Fn(&str) -> Option<(Code, &'static str)> + Send + Sync + 'static,
    ) -> Self {
        Self { seen: Arc::default(), refuse: Arc::new(refuse), patient: true }
    }

    /// Answers before it has read the request.
    pub fn impatient(mut self) -> Self {
        self.patient = false;
        self
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no thread panicked with the lock").clone()
    }

    /// The tokens that calls of a path came with.
    pub fn tokens(&self, path: &str) -> Vec<Option<String>> {
        self.seen().into_iter().filter(|seen| seen.path == path).map(|seen| seen.token).collect()
    }

    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
        let header = |name: &str| {
            let value = headers.get(name)?;
            Some(value.to_str().expect("ASCII").trim_start_matches("Bearer ").to_owned())
        };
        let (token, timeout) = (header("authorization"), header("grpc-timeout"));
        let mut body = 0;
        if self.patient {
            body = request.into_body().collect().await.expect("a good body").to_bytes().len();
        }
        let refusal = (self.refuse)(token.as_deref().unwrap_or_default());
        self.seen.lock().expect("no thread panicked with the lock").push(Seen {
            path,
            token,
            timeout,
            body,
        });
        match refusal {
            None => Status::new(Code::Ok, "").into_http(),
            Some((code, reason)) => {
                let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
                Status::with_error_details(code, "as told", details).into_http()
            }
        }
    }
}

impl Service<Request<Body>> for Callee {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<
        Box<dyn Future<Output = Result<Response<Body>, std::convert::Infallible>> + Send>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let callee = self.clone();
        Box::pin(async move { Ok(callee.answer(request).await) })
    }
}

/// Makes a call with this body and deadline. Returns its gRPC code.
pub async fn call_with(
    transport: &Authenticated<Callee>,
    path: &str,
    timeout: Option<&str>,
    body: Body,
) -> Code {
    let mut request = Request::post(format!("http://shop{path}")).body(body).expect("valid");
    if let Some(timeout) = timeout {
        request.headers_mut().insert("grpc-timeout", timeout.parse().expect("valid"));
    }
    let response = transport.clone().oneshot(request).await.expect("the service never fails");
    Status::from_header_map(response.headers()).expect("a status").code()
}

/// Makes a small call.
pub async fn call(transport: &Authenticated<Callee>, path: &str) -> Code {
    call_with(transport, path, None, body(10)).await
}

/// Makes a small call with a deadline.
pub async fn call_within(transport: &Authenticated<Callee>, path: &str, timeout: &str) -> Code {
    call_with(transport, path, Some(timeout), body(10)).await
}

pub fn body(len: usize) -> Body {
    Body::new(Full::from(vec![7; len]).map_err(|never| match never {}))
}
