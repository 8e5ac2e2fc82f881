//! What it takes to start with 100,000 clients. Targets: less than half a second, less than 60 MB.
//!
//! Each start is a process of its own (this program again), so that its memory is its alone.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use countersign::authority::host::{self, NewClient};
use countersign::authority::{Authority, Settings};
use countersign::client::{GrantRule, Grants, Serves};
use countersign::store::{self, Kek};
use countersign_mesh::claims::{Audience, Clock, Issuer, ScopeSet};

/// Set for a process that starts: the store.
const OPEN: &str = "COUNTERSIGN_BENCH_OPEN";
const KEK: &str = "COUNTERSIGN_BENCH_KEK";

const CLIENTS: usize = 100_000;
/// Clients call one of so many services, each with grants of its own.
const AUDIENCES: usize = 1000;
const STARTS: usize = 7;

fn main() {
    match env::var_os(OPEN) {
        Some(database) => start(Path::new(&database)),
        None => measure(),
    }
}

/// Starts, and tells the milliseconds that it took and the kilobytes that it takes.
#[expect(clippy::print_stdout, reason = "the figures are told on standard output")]
fn start(database: &Path) {
    let settings = Settings {
        default_ttl: Duration::from_secs(900),
        audit_retention: Duration::from_secs(86_400),
        ..Settings::default()
    };
    let kek = env::var(KEK).expect("the KEK").parse().expect("a KEK");
    let started = Instant::now();
    let authority = Authority::open(database, kek, settings, &Clock::system());
    let authority = authority.expect("the store opens");
    let millis = started.elapsed().as_secs_f64() * 1e3;

    let status = fs::read_to_string("/proc/self/status").expect("it runs on Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the memory");
    let kilobytes = line.split_whitespace().nth(1).expect("a figure");
    println!("{millis} {kilobytes}");
    drop(authority);
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn measure() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let database = dir.path().join("countersign.db");
    let kek = Kek::generate().expect("randomness");
    create(&database, &kek);

    let mut starts: Vec<(f64, u64)> = (0..STARTS)
        .map(|_| {
            let output = Command::new(env::current_exe().expect("this program"))
                .env(OPEN, &database)
                .env(KEK, kek.expose().as_str())
                .output()
                .expect("a process");
            let told = String::from_utf8(output.stdout).expect("figures");
            let (millis, kilobytes) = told.trim().split_once(' ').expect("two figures");
            (millis.parse().expect("a figure"), kilobytes.parse().expect("a figure"))
        })
        .collect();
    starts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (millis, _) = starts[STARTS / 2];
    let kilobytes = starts.iter().map(|(_, kilobytes)| kilobytes).max().expect("a start");
    println!("{CLIENTS} clients start in {millis:.0} ms   (target: less than 500)");
    println!("{CLIENTS} clients take {:.1} MB   (target: less than 60)", *kilobytes as f64 / 1e3);
}

fn create(database: &Path, kek: &Kek) {
    let now = Clock::system().now();
    let audiences: Vec<Audience> =
        (0..AUDIENCES).map(|n| format!("service-{n}").parse().expect("audience")).collect();
    let scopes = ScopeSet::parse("stock:read stock:write").expect("scopes");
    let clients: Vec<NewClient> = (0..CLIENTS)
        .map(|n| {
            let audience = audiences[n % AUDIENCES].clone();
            let grants = vec![GrantRule { audience, scopes: scopes.clone() }];
            // One in ten is a service itself.
            let serves: Vec<Audience> =
                audiences.get(n / 10).filter(|_| n % 10 == 0).cloned().into_iter().collect();
            NewClient::new(
                format!("client-of-some-team-{n}").parse().expect("client id"),
                "what it is and whom to ask",
                Grants::try_from(grants).expect("a grant"),
                Serves::try_from(serves).expect("an audience at most"),
                now,
            )
            .expect("randomness")
        })
        .collect();
    let issuer: Issuer = "https://token.example.com".parse().expect("issuer");
    let place = store::reserve(database).expect("nothing is there");
    host::init(&place, kek, &issuer, &clients, now).expect("a fresh store");
}
