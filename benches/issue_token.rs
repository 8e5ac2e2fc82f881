//! What `IssueToken` costs the server beside a call that does nothing, over loopback, in CPU time.
//! Target: at most 1.25 times the call that does nothing and a bare signature together.
//!
//! The server is a process of its own (this program again), so that its CPU time is its alone.

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use countersign::authority::host::{self, NewClient};
use countersign::authority::{Authority, Settings};
use countersign::client::{GrantRule, Grants, Serves};
use countersign::rpc::issue_token_request::Credential;
use countersign::rpc::token_service_client::TokenServiceClient;
use countersign::store::{self, Kek};
use countersign::{rpc, server};
use countersign_mesh::claims::{Clock, Issuer, ScopeSet};
use ed25519_dalek::Signer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Set for the process that is the server: the directory of its store.
const SERVE: &str = "COUNTERSIGN_BENCH_SERVE";
const KEK: &str = "COUNTERSIGN_BENCH_KEK";

const ROUNDS: usize = 5;
/// So many that a tick of the CPU clock is a few hundredths of a round at most.
const CALLS: u32 = 50_000;
const CONCURRENCY: u32 = 16;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    match env::var_os(SERVE) {
        Some(dir) => runtime.block_on(serve(Path::new(&dir))),
        None => runtime.block_on(measure()),
    }
}

#[expect(clippy::print_stdout, reason = "the address is told on standard output")]
async fn serve(dir: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("a bound socket has an address"));
    let settings = Settings {
        default_ttl: Duration::from_secs(900),
        audit_retention: Duration::from_secs(86_400),
        ..Settings::default()
    };
    let kek = env::var(KEK).expect("the KEK").parse().expect("a KEK");
    let clock = Clock::system();
    let authority = Authority::open(&dir.join("countersign.db"), kek, settings, &clock);
    let authority = Arc::new(authority.expect("the store opens"));
    let for_ever = std::future::pending();
    server::serve(listener, authority, clock, for_ever, Duration::ZERO).await.expect("it serves");
}

/// The server, for as long as it is looked at.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    fn start(dir: &Path, kek: &Kek) -> (Self, String) {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .env(SERVE, dir)
            .env(KEK, kek.expose().as_str())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let stdout = child.stdout.take().expect("a pipe");
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).expect("the address");
        (Self(child), address.trim().to_owned())
    }

    /// The CPU time of all of its threads so far: `utime` and `stime` of proc_pid_stat(5).
    fn cpu_time(&self) -> Duration {
        const TICK: Duration = Duration::from_millis(10);
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()));
        let stat = stat.expect("it runs, and on Linux");
        let (_, fields) = stat.rsplit_once(')').expect("the program's name");
        let ticks = |field| -> u32 {
            let figure = fields.split_whitespace().nth(field).expect("a figure");
            figure.parse().expect("a figure")
        };
        TICK * (ticks(11) + ticks(12))
    }
}

#[expect(clippy::print_stdout, reason = "the ratio is what this is for")]
async fn measure() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let kek = Kek::generate().expect("randomness");
    let now = Clock::system().now();
    let rule = GrantRule {
        audience: "inventory".parse().expect("audience"),
        scopes: ScopeSet::parse("stock:read stock:write").expect("scopes"),
    };
    let client = NewClient::new(
        "order-service".parse().expect("client id"),
        "",
        Grants::try_from(vec![rule]).expect("a grant"),
        Serves::try_from(vec![]).expect("no audience"),
        now,
    )
    .expect("randomness");
    let issuer: Issuer = "https://token.example.com".parse().expect("issuer");
    host::init(
        &store::reserve(&dir.path().join("countersign.db")).expect("nothing is there"),
        &kek,
        &issuer,
        std::slice::from_ref(&client),
        now,
    )
    .expect("a fresh store");

    let (server, address) = Server::start(dir.path(), &kek);
    let channel = Channel::from_shared(format!("http://{address}")).expect("an address");
    let channel = channel.connect().await.expect("it listens");
    let issue = Call::Issue(
        TokenServiceClient::new(channel.clone()),
        rpc::IssueTokenRequest {
            client_id: "order-service".to_owned(),
            credential: Some(Credential::ClientSecret(client.secret.expose().to_owned())),
            ..Default::default()
        },
    );
    let nothing = Call::Nothing(HealthClient::new(channel));

    // The first round warms up.
    cost(&server, &nothing).await;
    cost(&server, &issue).await;
    // In turns, and the cheapest round of each: what else runs on the machine only ever adds.
    let mut cheapest = [f64::INFINITY; 3];
    for _ in 0..ROUNDS {
        let round = [cost(&server, &nothing).await, cost(&server, &issue).await, signature()];
        cheapest.iter_mut().zip(round).for_each(|(least, cost)| *least = least.min(cost));
    }
    let [nothing, issue, signature] = cheapest;
    let ratio = issue / (nothing + signature);
    println!("no-op RPC   {nothing:6.1} us of server CPU");
    println!("signature   {signature:6.1} us");
    println!("IssueToken  {issue:6.1} us of server CPU");
    println!("IssueToken  {ratio:6.3} x (no-op RPC + signature)   (target: at most 1.25)");
}

#[derive(Clone)]
enum Call {
    Nothing(HealthClient<Channel>),
    Issue(TokenServiceClient<Channel>, rpc::IssueTokenRequest),
}

impl Call {
    async fn make(&mut self) {
        match self {
            Self::Nothing(health) => {
                health.check(HealthCheckRequest::default()).await.expect("it serves");
            }
            Self::Issue(tokens, request) => {
                tokens.issue_token(request.clone()).await.expect("a token");
            }
        }
    }
}

/// Microseconds of the server's CPU time for one call of many.
async fn cost(server: &Server, call: &Call) -> f64 {
    let before = server.cpu_time();
    let mut callers = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let mut call = call.clone();
        callers.spawn(async move {
            for _ in 0..CALLS / CONCURRENCY {
                call.make().await;
            }
        });
    }
    callers.join_all().await;
    (server.cpu_time() - before).as_secs_f64() * 1e6 / f64::from(CALLS)
}

/// Microseconds for one bare signature over as many bytes as a token's has: the median of short
/// batches, most of which nobody interrupts.
fn signature() -> f64 {
    const BATCHES: usize = 101;
    const SIGNATURES: u32 = 20;
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let mut batches = [Duration::ZERO; BATCHES];
    for batch in &mut batches {
        let started = Instant::now();
        for _ in 0..SIGNATURES {
            black_box(key.sign(black_box(&[b'a'; 330])));
        }
        *batch = started.elapsed();
    }
    batches.sort();
    batches[BATCHES / 2].as_secs_f64() * 1e6 / f64::from(SIGNATURES)
}
