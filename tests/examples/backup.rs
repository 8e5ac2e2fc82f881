//! The nightly backup and the storage that it goes to.

use std::collections::VecDeque;
use std::fs;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};

use crate::night::seconds_until_two;
use crate::process::{Sandbox, Server, listing};
use crate::shop::{Shop, call, serve};

fn data(sandbox: &Sandbox) {
    fs::create_dir(sandbox.path("data")).expect("it is not there yet");
    for (name, text) in [("orders.csv", "1001,tea\n"), ("stock.csv", "tea,98\n")] {
        fs::write(sandbox.path("data").join(name), text).expect("the test owns the file");
    }
}

/// The arguments of a backup that is made at once.
fn now<'a>(credentials: &'a str, storage: &'a Server) -> Vec<&'a str> {
    vec!["--now", "--credentials", credentials, "--storage", &storage.url, "--data", "data"]
}

#[test]
fn a_backup_is_stored_under_the_name_of_its_client() {
    let shop = Shop::open();
    data(&shop.sandbox);
    let credentials = shop.client("nightly-backup", &["storage=backup:write"]);
    let storage = shop.serve("storage_api", "storage", &["--store", "store"]);
    // Run twice: repeating a night's backup does no harm.
    for _ in 0..2 {
        let end = shop.run("nightly_backup", &now(&credentials, &storage));
        assert_eq!((end.code, end.stdout.as_str()), (Some(0), ""), "{end:?}");
        assert!(end.stderr.contains("the backup is done files=2"), "{end:?}");
        let secret = shop.sandbox.credential(&credentials, "client_secret");
        assert!(!end.stderr.contains(&secret), "{end:?}");
    }
    assert_eq!(shop.sandbox.listing("store"), ["nightly-backup"]);
    let days = shop.sandbox.listing("store/nightly-backup");
    let day = shop.sandbox.path("store/nightly-backup").join(days.last().expect("today's"));
    assert_eq!(listing(&day), ["orders.csv", "stock.csv"]);
    assert_eq!(
        fs::read_to_string(day.join("orders.csv")).expect("the file is there"),
        "1001,tea\n"
    );

    // A file name cannot lead out of the storage's directory.
    let token = shop.token(&credentials, "storage", "backup:write");
    for name in ["..%2F..%2Fescaped", ".hidden", "a%00b"] {
        let answer = call(&storage, &format!("PUT /backups/today/{name}"), Some(&token), "x");
        assert_eq!(answer.status, 400, "{name}: {answer:?}");
    }
    assert!(!shop.sandbox.path("escaped").exists());
}

#[test]
fn a_backup_goes_through_once_the_token_service_and_the_storage_are_back() {
    let mut shop = Shop::open();
    data(&shop.sandbox);
    let credentials = shop.client("nightly-backup", &["storage=backup:write"]);
    let storage = shop.serve("storage_api", "storage", &["--store", "store"]);
    shop.kill_countersign();
    let mut backup =
        Server::spawn(&mut shop.example("nightly_backup", &now(&credentials, &storage)));
    backup.wait_for_log("no token");
    shop.restart_countersign();
    let end = backup.end();
    assert_eq!(end.code, Some(0), "{end:?}");

    let listen = storage.url.replace("http://", "");
    let args = now(&credentials, &storage).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    storage.kill();
    let mut backup = Server::spawn(&mut shop.example("nightly_backup", &args));
    backup.wait_for_log("not yet");
    let _storage = shop.serve("storage_api", "storage", &["--store", "again", "--listen", &listen]);
    let end = backup.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(shop.sandbox.listing("again"), ["nightly-backup"]);
}

/// A storage that answers with these one after the other, and keeps the tokens that it was shown.
#[derive(Default)]
struct Moody {
    answers: Mutex<VecDeque<StatusCode>>,
    tokens: Mutex<Vec<HeaderValue>>,
}

async fn answer(State(moody): State<Arc<Moody>>, headers: HeaderMap) -> StatusCode {
    moody
        .tokens
        .lock()
        .expect("no thread panicked with the lock")
        .extend(headers.get(AUTHORIZATION).cloned());
    let next = moody.answers.lock().expect("no thread panicked with the lock").pop_front();
    next.unwrap_or(StatusCode::NO_CONTENT)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_replaced_once_and_a_storage_in_trouble_is_asked_again() {
    let shop = Shop::open();
    data(&shop.sandbox);
    let credentials = shop.client("nightly-backup", &["storage=backup:write"]);
    let moody = Arc::new(Moody::default());
    let routes = Router::new().fallback(answer).with_state(Arc::clone(&moody));
    let url = serve(routes).await;
    let run = |answers: &[StatusCode]| {
        *moody.answers.lock().expect("no thread panicked with the lock") =
            answers.iter().copied().collect();
        moody.tokens.lock().expect("no thread panicked with the lock").clear();
        let args = ["--now", "--credentials", &credentials, "--storage", &url, "--data", "data"];
        let end = shop.run("nightly_backup", &args);
        (end, moody.tokens.lock().expect("no thread panicked with the lock").clone())
    };
    let (end, tokens) = run(&[
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::UNAUTHORIZED,
        StatusCode::TOO_MANY_REQUESTS,
    ]);
    assert_eq!(end.code, Some(0), "{end:?}");
    // The first file is put off, refused for its token, put off again with another token, and taken.
    // The fifth request is the second file.
    assert_eq!(tokens.len(), 5);
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[1], tokens[2]);
    assert!(tokens[2..].iter().all(|token| *token == tokens[2]));

    let (end, tokens) = run(&[StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED]);
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains("the storage answered 401"), "{end:?}");
    assert_eq!(tokens.len(), 2);
    let (end, tokens) = run(&[StatusCode::FORBIDDEN]);
    assert_eq!((end.code, tokens.len()), (Some(1), 1), "{end:?}");
}

#[test]
fn a_backup_without_now_waits_for_two_o_clock() {
    let shop = Shop::open();
    data(&shop.sandbox);
    let credentials = shop.client("nightly-backup", &["storage=backup:write"]);
    let storage = shop.serve("storage_api", "storage", &["--store", "store"]);
    let args = now(&credentials, &storage);
    let mut backup = Server::spawn(&mut shop.example("nightly_backup", &args[1..]));
    backup.wait_for_log("waiting for 02:00 UTC");
    backup.kill();
    assert!(!shop.sandbox.path("store").exists());
}

#[test]
fn a_backup_that_gives_up_says_why_and_fails() {
    let mut shop = Shop::open();
    data(&shop.sandbox);
    let reader = shop.client("reader", &["storage=backup:read"]);
    let writer = shop.client("writer", &["storage=backup:write", "attic=backup:write"]);
    let storage = shop.serve("storage_api", "storage", &["--store", "store"]);

    // What only a human can change is not tried again.
    for (credentials, args, why) in [
        (&reader, vec![], "no token is issued"),
        (&writer, vec!["--audience", "attic"], "AUDIENCE_MISMATCH"),
    ] {
        let end = shop.run("nightly_backup", &[now(credentials, &storage), args].concat());
        assert_eq!(end.code, Some(1), "{end:?}");
        assert!(
            end.stderr.contains("gave up: orders.csv: ") && end.stderr.contains(why),
            "{end:?}"
        );
    }

    // An empty directory is an error: whoever was to put the data there has not.
    fs::create_dir(shop.sandbox.path("empty")).expect("it is not there yet");
    let mut args = now(&writer, &storage);
    *args.last_mut().expect("where the data is") = "empty";
    let end = shop.run("nightly_backup", &args);
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains("gave up: there is nothing in empty"), "{end:?}");

    shop.kill_countersign();
    let patience = vec!["--give-up-after", "500ms"];
    let end = shop.run("nightly_backup", &[now(&writer, &storage), patience].concat());
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(
        end.stderr.contains("gave up: orders.csv: tried for 500ms: no token in time"),
        "{end:?}"
    );
    assert!(!shop.sandbox.path("store").exists());
}

#[test]
fn the_wait_until_two_o_clock_is_from_one_second_to_one_day() {
    let (hour, day) = (3600, 24 * 3600);
    for (time, seconds) in [
        (0, 2 * hour),
        (2 * hour - 1, 1),
        (2 * hour, day),
        (2 * hour + 1, day - 1),
        (20_000 * day + 14 * hour, 12 * hour),
    ] {
        assert_eq!(seconds_until_two(time), seconds, "{time}");
    }
}
