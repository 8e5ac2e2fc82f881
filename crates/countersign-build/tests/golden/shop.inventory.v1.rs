/// What `shop.inventory.v1.Inventory` demands of its callers, from the annotations in its `.proto`.
pub mod inventory_policy {
    #![allow(dead_code)]
    /// The audience that tokens for this service name.
    pub const AUDIENCE: &str = "inventory";
    /// Every scope that some method of this service demands.
    pub const SCOPES: &[&str] = &[
        "stock:count",
        "stock:read",
        "stock:watch",
        "stock:write",
    ];
    /// What each method demands. A guard refuses those that are not in it.
    pub const POLICY: ::countersign_mesh::guard::ServicePolicy = ::countersign_mesh::guard::ServicePolicy {
        service: "shop.inventory.v1.Inventory",
        audience: "inventory",
        methods: &[
            ::countersign_mesh::guard::MethodPolicy {
                path: "/shop.inventory.v1.Inventory/CheckStock",
                access: ::countersign_mesh::guard::Access::Scopes(&["stock:read"]),
            },
            ::countersign_mesh::guard::MethodPolicy {
                path: "/shop.inventory.v1.Inventory/Restock",
                access: ::countersign_mesh::guard::Access::Scopes(
                    &["stock:read", "stock:write"],
                ),
            },
            ::countersign_mesh::guard::MethodPolicy {
                path: "/shop.inventory.v1.Inventory/WatchStock",
                access: ::countersign_mesh::guard::Access::Scopes(&["stock:watch"]),
            },
            ::countersign_mesh::guard::MethodPolicy {
                path: "/shop.inventory.v1.Inventory/CountAlong",
                access: ::countersign_mesh::guard::Access::Scopes(
                    &["stock:count", "stock:read"],
                ),
            },
            ::countersign_mesh::guard::MethodPolicy {
                path: "/shop.inventory.v1.Inventory/Ping",
                access: ::countersign_mesh::guard::Access::Public,
            },
        ],
    };
}
#[allow(dead_code, reason = "not every program uses all of it")]
impl inventory_client::InventoryClient<
    ::countersign_mesh::session::Authenticated<::tonic::transport::Channel>,
> {
    /// A client that sends with each call a token for just what the method demands.
    pub fn authenticated(
        channel: ::tonic::transport::Channel,
        session: &::countersign_mesh::session::Session,
    ) -> Self {
        Self::new(session.attach(channel, &[inventory_policy::POLICY]))
    }
}
#[allow(dead_code, reason = "not every program uses all of it")]
impl<T: inventory_server::Inventory> inventory_server::InventoryServer<T> {
    /// This service behind a guard that knows its policy: calls that bring less than their method
    /// demands are refused before they get here.
    pub fn guarded(
        inner: T,
        guard: &::countersign_mesh::guard::Guard,
    ) -> ::countersign_mesh::guard::Guarded<Self> {
        guard.wrap(Self::new(inner))
    }
}
/// What `shop.inventory.v1.Inventory2` demands of its callers, from the annotations in its `.proto`.
pub mod inventory2_policy {
    #![allow(dead_code)]
    /// The audience that tokens for this service name.
    pub const AUDIENCE: &str = "inventory-2";
    /// Every scope that some method of this service demands.
    pub const SCOPES: &[&str] = &["stock:move"];
    /// What each method demands. A guard refuses those that are not in it.
    pub const POLICY: ::countersign_mesh::guard::ServicePolicy = ::countersign_mesh::guard::ServicePolicy {
        service: "shop.inventory.v1.Inventory2",
        audience: "inventory-2",
        methods: &[
            ::countersign_mesh::guard::MethodPolicy {
                path: "/shop.inventory.v1.Inventory2/Move",
                access: ::countersign_mesh::guard::Access::Scopes(&["stock:move"]),
            },
            ::countersign_mesh::guard::MethodPolicy {
                path: "/shop.inventory.v1.Inventory2/Self",
                access: ::countersign_mesh::guard::Access::Public,
            },
        ],
    };
}
#[allow(dead_code, reason = "not every program uses all of it")]
impl inventory2_client::Inventory2Client<
    ::countersign_mesh::session::Authenticated<::tonic::transport::Channel>,
> {
    /// A client that sends with each call a token for just what the method demands.
    pub fn authenticated(
        channel: ::tonic::transport::Channel,
        session: &::countersign_mesh::session::Session,
    ) -> Self {
        Self::new(session.attach(channel, &[inventory2_policy::POLICY]))
    }
}
#[allow(dead_code, reason = "not every program uses all of it")]
impl<T: inventory2_server::Inventory2> inventory2_server::Inventory2Server<T> {
    /// This service behind a guard that knows its policy: calls that bring less than their method
    /// demands are refused before they get here.
    pub fn guarded(
        inner: T,
        guard: &::countersign_mesh::guard::Guard,
    ) -> ::countersign_mesh::guard::Guarded<Self> {
        guard.wrap(Self::new(inner))
    }
}
/// What `shop.inventory.v1.Type` demands of its callers, from the annotations in its `.proto`.
pub mod type_policy {
    #![allow(dead_code)]
    /// The audience that tokens for this service name.
    pub const AUDIENCE: &str = "";
    /// Every scope that some method of this service demands.
    pub const SCOPES: &[&str] = &[];
    /// What each method demands. A guard refuses those that are not in it.
    pub const POLICY: ::countersign_mesh::guard::ServicePolicy = ::countersign_mesh::guard::ServicePolicy {
        service: "shop.inventory.v1.Type",
        audience: "",
        methods: &[
            ::countersign_mesh::guard::MethodPolicy {
                path: "/shop.inventory.v1.Type/Match",
                access: ::countersign_mesh::guard::Access::Public,
            },
        ],
    };
}
#[allow(dead_code, reason = "not every program uses all of it")]
impl type_client::TypeClient<
    ::countersign_mesh::session::Authenticated<::tonic::transport::Channel>,
> {
    /// A client that sends with each call a token for just what the method demands.
    pub fn authenticated(
        channel: ::tonic::transport::Channel,
        session: &::countersign_mesh::session::Session,
    ) -> Self {
        Self::new(session.attach(channel, &[type_policy::POLICY]))
    }
}
#[allow(dead_code, reason = "not every program uses all of it")]
impl<T: type_server::Type> type_server::TypeServer<T> {
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
    inventory_policy::POLICY,
    inventory2_policy::POLICY,
    type_policy::POLICY,
];
