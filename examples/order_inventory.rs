//! A user's order reaches Order; Order calls Inventory and Payment, Payment calls Notification, each
//! as itself and each with a token for just that. In the middle the signing keys are rotated.
//!
//! Countersign and the four services are real servers on loopback, started by this one command:
//!
//! ```text
//! cargo run --example order_inventory
//! ```
//!
//! What the services demand of each other stands in `proto/shop/v1/shop.proto`, and nowhere in here.
//!
//! It takes no `--issuer`: it brings its own. `notification_service.rs` is one of these services as a
//! program of its own, behind whichever issuer it is told.

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use countersign::authority::host::{self, NewClient};
use countersign::authority::{Authority, Settings};
use countersign::client::{GrantRule, Grants, Serves};
use countersign::server::{self, ServeError};
use countersign::store::{self, Kek};
use countersign_mesh::claims::{Audience, Clock, Issuer, ScopeSet};
use countersign_mesh::guard::{self, Guard};
use countersign_mesh::rpc;
use countersign_mesh::rpc::key_service_client::KeyServiceClient;
use countersign_mesh::session::{Credentials, Session};
use pb::inventory_service_client::InventoryServiceClient;
use pb::inventory_service_server::{InventoryService, InventoryServiceServer};
use pb::notification_service_client::NotificationServiceClient;
use pb::notification_service_server::{NotificationService, NotificationServiceServer};
use pb::order_service_client::OrderServiceClient;
use pb::order_service_server::{OrderService, OrderServiceServer};
use pb::payment_service_client::PaymentServiceClient;
use pb::payment_service_server::{PaymentService, PaymentServiceServer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status};

mod pb {
    include!(concat!(env!("OUT_DIR"), "/examples/shop.v1.rs"));
}

type Failure = Box<dyn Error + Send + Sync>;
/// How long anything here may take.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

type Answer<T> = Result<Response<T>, Status>;

/// A transport whose calls carry the tokens that their methods demand.
type Authenticated = countersign_mesh::session::Authenticated<Channel>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    run(&mut std::io::stdout()).await
}

async fn run(out: &mut dyn Write) -> Result<(), Failure> {
    let countersign = Countersign::start().await?;
    let session = |name: &str| countersign.session(name);

    let (listener, notification) = listen().await?;
    let notification_session = session("notification")?;
    tokio::spawn(
        Server::builder()
            .layer(Guard::new(&notification_session, pb::POLICIES))
            .add_service(NotificationServiceServer::new(Notification::default()))
            .serve_with_incoming(listener),
    );

    let (listener, payment) = listen().await?;
    let payment_session = session("payment")?;
    let desk = Payment {
        notification: NotificationServiceClient::authenticated(
            channel(notification)?,
            &payment_session,
        ),
    };
    tokio::spawn(
        Server::builder()
            .layer(Guard::new(&payment_session, pb::POLICIES))
            .add_service(PaymentServiceServer::new(desk))
            .serve_with_incoming(listener),
    );

    // Here the guard wraps one service, not the whole server: for servers that also have unguarded
    // services.
    let (listener, inventory) = listen().await?;
    let inventory_session = session("inventory")?;
    let guard = Guard::new(&inventory_session, pb::POLICIES);
    let shelf = InventoryServiceServer::guarded(Inventory { tea: AtomicU32::new(100) }, &guard);
    tokio::spawn(Server::builder().add_service(shelf).serve_with_incoming(listener));

    let (listener, order) = listen().await?;
    let order_session = session("order")?;
    let orders = Order {
        inventory: InventoryServiceClient::authenticated(channel(inventory)?, &order_session),
        payment: PaymentServiceClient::authenticated(channel(payment)?, &order_session),
    };
    tokio::spawn(
        Server::builder()
            .layer(Guard::new(&order_session, pb::POLICIES))
            .add_service(OrderServiceServer::new(orders))
            .serve_with_incoming(listener),
    );

    for session in [&notification_session, &payment_session, &inventory_session, &order_session] {
        session.ready(LONGEST_WAIT).await.map_err(Status::from)?;
    }

    let front_session = session("front")?;
    let mut front = OrderServiceClient::authenticated(channel(order)?, &front_session);

    writeln!(out, "An order comes in:")?;
    place_order(out, &mut front).await?;

    writeln!(out, "The keys are rotated:")?;
    let operator = session("operator")?;
    let mut keys =
        KeyServiceClient::new(operator.attach(channel(countersign.address)?, rpc::POLICIES));
    let rotated = keys.rotate_keys(rpc::RotateKeysRequest::default()).await?.into_inner();
    let kid = |key: Option<rpc::Key>| key.map(|key| key.kid).unwrap_or_default();
    writeln!(out, "  {} signs now, {} is retired", kid(rotated.active), kid(rotated.retired))?;

    writeln!(out, "Another order comes in, with the tokens from before:")?;
    place_order(out, &mut front).await?;

    writeln!(out, "A service that starts now gets tokens of the new key, and is believed:")?;
    let late = session("front")?;
    place_order(out, &mut OrderServiceClient::authenticated(channel(order)?, &late)).await?;

    writeln!(out, "Those who may not, cannot:")?;
    let mut bare = OrderServiceClient::new(channel(order)?);
    tell(out, "the front end without a token", bare.place_order(tea()).await)?;
    let mut front_to_payment =
        PaymentServiceClient::authenticated(channel(payment)?, &front_session);
    tell(
        out,
        "the front end calling Payment",
        front_to_payment.charge(pb::ChargeRequest { cents: 1 }).await,
    )?;
    writeln!(out, "And what is public is open to all:")?;
    let mut anyone = InventoryServiceClient::new(channel(inventory)?);
    let items = anyone.list_items(pb::ListItemsRequest {}).await?.into_inner().items;
    writeln!(out, "  anyone listing items: {}", items.join(", "))?;
    countersign.stop().await
}

struct Order {
    inventory: InventoryServiceClient<Authenticated>,
    payment: PaymentServiceClient<Authenticated>,
}

#[tonic::async_trait]
impl OrderService for Order {
    async fn place_order(
        &self,
        request: Request<pb::PlaceOrderRequest>,
    ) -> Answer<pb::PlaceOrderResponse> {
        let mut steps = vec![format!("Order was called by {}", caller(&request))];
        let pb::PlaceOrderRequest { item, count } = request.into_inner();
        let reserved =
            self.inventory.clone().reserve(pb::ReserveRequest { item, count }).await?.into_inner();
        steps.push(format!("Inventory was called by {}, {} left", reserved.caller, reserved.left));
        let charged = self.payment.clone().charge(pb::ChargeRequest { cents: count * 250 }).await?;
        steps.extend(charged.into_inner().steps);
        Ok(Response::new(pb::PlaceOrderResponse { steps }))
    }
}

struct Inventory {
    tea: AtomicU32,
}

#[tonic::async_trait]
impl InventoryService for Inventory {
    async fn reserve(&self, request: Request<pb::ReserveRequest>) -> Answer<pb::ReserveResponse> {
        let caller = caller(&request);
        let count = request.into_inner().count;
        let take = |left: u32| left.checked_sub(count);
        match self.tea.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(before) => Ok(Response::new(pb::ReserveResponse { left: before - count, caller })),
            Err(left) => Err(Status::failed_precondition(format!("only {left} left"))),
        }
    }

    async fn list_items(&self, _: Request<pb::ListItemsRequest>) -> Answer<pb::ListItemsResponse> {
        Ok(Response::new(pb::ListItemsResponse { items: vec!["tea".to_owned()] }))
    }
}

struct Payment {
    notification: NotificationServiceClient<Authenticated>,
}

#[tonic::async_trait]
impl PaymentService for Payment {
    async fn charge(&self, request: Request<pb::ChargeRequest>) -> Answer<pb::ChargeResponse> {
        let charged = format!("Payment was called by {}", caller(&request));
        let text = format!("{} cents were charged", request.into_inner().cents);
        let notified =
            self.notification.clone().notify(pb::NotifyRequest { text }).await?.into_inner();
        let notified = format!("Notification was called by {}", notified.caller);
        Ok(Response::new(pb::ChargeResponse { steps: vec![charged, notified] }))
    }
}

#[derive(Default)]
struct Notification {
    sent: AtomicU32,
}

#[tonic::async_trait]
impl NotificationService for Notification {
    async fn notify(&self, request: Request<pb::NotifyRequest>) -> Answer<pb::NotifyResponse> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(pb::NotifyResponse { caller: caller(&request) }))
    }

    async fn check(&self, _: Request<pb::CheckRequest>) -> Answer<pb::CheckResponse> {
        Ok(Response::new(pb::CheckResponse { sent: self.sent.load(Ordering::Relaxed) }))
    }
}

/// The client that calls, as the token says that the guard has verified.
fn caller<T>(request: &Request<T>) -> String {
    let token = guard::caller(request.extensions());
    token.map_or_else(|| "anyone".to_owned(), |token| token.claims().client_id.to_string())
}

fn tea() -> pb::PlaceOrderRequest {
    pb::PlaceOrderRequest { item: "tea".to_owned(), count: 2 }
}

async fn place_order(
    out: &mut dyn Write,
    front: &mut OrderServiceClient<Authenticated>,
) -> Result<(), Failure> {
    for step in front.place_order(tea()).await?.into_inner().steps {
        writeln!(out, "  {step}")?;
    }
    Ok(())
}

fn tell<T>(out: &mut dyn Write, who: &str, answer: Answer<T>) -> std::io::Result<()> {
    match answer {
        Ok(_) => writeln!(out, "  {who}: let through"),
        Err(status) => writeln!(out, "  {who}: {:?}, {}", status.code(), status.message()),
    }
}

/// A free port on loopback.
async fn listen() -> Result<(TcpIncoming, SocketAddr), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((TcpIncoming::from(listener), address))
}

fn channel(address: SocketAddr) -> Result<Channel, Failure> {
    Ok(Channel::from_shared(format!("http://{address}"))?.connect_lazy())
}

/// The token service, with a store that is removed with it. An operator would have started it
/// elsewhere, with `countersign init` and `countersign serve`, and made the clients with `countersign
/// client create`.
struct Countersign {
    address: SocketAddr,
    clients: Vec<NewClient>,
    stop: oneshot::Sender<()>,
    stopped: JoinHandle<Result<(), ServeError>>,
    _state: TempDir,
}

impl Countersign {
    async fn start() -> Result<Self, Failure> {
        let clock = Clock::system();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let client = |name: &str, grants: &[(&str, &str)]| -> Result<NewClient, Failure> {
            let rule = |(audience, scopes): &(&str, &str)| -> Result<GrantRule, Failure> {
                Ok(GrantRule {
                    audience: Audience::new(audience)?,
                    scopes: ScopeSet::parse(scopes)?,
                })
            };
            let grants = Grants::try_from(grants.iter().map(rule).collect::<Result<Vec<_>, _>>()?)?;
            let serves = Serves::try_from(vec![Audience::new(name)?])?;
            Ok(NewClient::new(name.parse()?, "", grants, serves, clock.now())?)
        };
        let clients = vec![
            NewClient::operator("operator".parse()?, "", clock.now())?,
            client("front", &[("order", "orders:place")])?,
            client(
                "order",
                &[("inventory", "stock:read stock:write"), ("payment", "payments:charge")],
            )?,
            client("inventory", &[])?,
            client("payment", &[("notification", "messages:send")])?,
            client("notification", &[])?,
        ];

        let state = TempDir::new()?;
        let database = state.path().join("countersign.db");
        let issuer = Issuer::new(&format!("http://{address}"))?;
        let kek = Kek::generate()?;
        host::init(&store::reserve(&database)?, &kek, &issuer, &clients, clock.now())?;
        let settings = Settings {
            default_ttl: Duration::from_secs(15 * 60),
            audit_retention: Duration::from_secs(24 * 60 * 60),
            ..Settings::default()
        };
        let authority = Arc::new(Authority::open(&database, kek, settings, &clock)?);
        let (stop, told) = oneshot::channel();
        let told = async { drop(told.await) };
        let stopped = tokio::spawn(server::serve(listener, authority, clock, told, LONGEST_WAIT));
        Ok(Self { address, clients, stop, stopped, _state: state })
    }

    /// What `Session::from_env()` does for a service that has its credentials in the environment.
    fn session(&self, name: &str) -> Result<Session, Failure> {
        let client = self
            .clients
            .iter()
            .find(|client| client.id().as_str() == name)
            .ok_or("no such client")?;
        let credentials = Credentials::new(client.id().clone(), client.secret.expose());
        Ok(Session::builder(&format!("http://{}", self.address), credentials).connect()?)
    }

    async fn stop(self) -> Result<(), Failure> {
        drop(self.stop);
        Ok(self.stopped.await??)
    }
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn orders_go_through_before_and_after_a_rotation_and_others_do_not() {
        let mut out = Vec::new();
        super::run(&mut out).await.expect("it runs to its end");
        let told = String::from_utf8(out).expect("text");
        let count = |line: &str| told.lines().filter(|told| told.trim() == line).count();
        for step in [
            "Order was called by front",
            "Payment was called by order",
            "Notification was called by payment",
        ] {
            assert_eq!(count(step), 3, "{step}: {told}");
        }
        assert_eq!(count("Inventory was called by order, 94 left"), 1, "{told}");
        assert!(told.contains("the front end without a token: Unauthenticated"), "{told}");
        assert!(!told.contains("let through"), "{told}");
        assert_eq!(count("anyone listing items: tea"), 1, "{told}");
    }
}
