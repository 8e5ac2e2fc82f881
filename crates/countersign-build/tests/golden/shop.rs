/// What `shop.HTTPGateway` demands of its callers, from the annotations in its `.proto`.
pub mod http_gateway_policy {
    #![allow(dead_code)]
    /// The audience that tokens for this service name.
    pub const AUDIENCE: &str = "https://gateway.example/v1";
    /// Every scope that some method of this service demands.
    pub const SCOPES: &[&str] = &["gateway:reload", "gateway:use"];
    /// What each method demands. A guard refuses those that are not in it.
    pub const POLICY: ::countersign_mesh::guard::ServicePolicy = ::countersign_mesh::guard::ServicePolicy {
        service: "shop.HTTPGateway",
        audience: "https://gateway.example/v1",
        methods: &[
            ::countersign_mesh::guard::MethodPolicy {
                path: "/shop.HTTPGateway/LookUp",
                access: ::countersign_mesh::guard::Access::Scopes(&["gateway:use"]),
            },
            ::countersign_mesh::guard::MethodPolicy {
                path: "/shop.HTTPGateway/Reload",
                access: ::countersign_mesh::guard::Access::Scopes(&["gateway:reload"]),
            },
        ],
    };
}
#[allow(dead_code, reason = "not every program uses all of it")]
impl http_gateway_client::HttpGatewayClient<
    ::countersign_mesh::session::Authenticated<::tonic::transport::Channel>,
> {
    /// A client that sends with each call a token for just what the method demands.
    pub fn authenticated(
        channel: ::tonic::transport::Channel,
        session: &::countersign_mesh::session::Session,
    ) -> Self {
        Self::new(session.attach(channel, &[http_gateway_policy::POLICY]))
    }
}
#[allow(dead_code, reason = "not every program uses all of it")]
impl<T: http_gateway_server::HttpGateway> http_gateway_server::HttpGatewayServer<T> {
    /// This service behind a guard that knows its policy: calls that bring less than their method
    /// demands are refused before they get here.
    pub fn guarded(
        inner: T,
        guard: &::countersign_mesh::guard::Guard,
    ) -> ::countersign_mesh::guard::Guarded<Self> {
        guard.wrap(Self::new(inner))
    }
}
/// What each service of this package demands of its callers: what a guard is to know.
#[allow(dead_code, reason = "not every program uses all of it")]
pub const POLICIES: &[::countersign_mesh::guard::ServicePolicy] = &[
    http_gateway_policy::POLICY,
];
