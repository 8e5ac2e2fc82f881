//! The worker that drains a queue into Notification.

use std::fs;

use crate::process::Server;
use crate::shop::Shop;

/// Adds messages as a producer does: under their names only when they are whole.
fn enqueue(shop: &Shop, numbers: impl IntoIterator<Item = u32>) {
    let queue = shop.sandbox.path("queue");
    fs::create_dir_all(&queue).expect("the test owns the file");
    for number in numbers {
        let unfinished = queue.join(format!(".{number:04}"));
        fs::write(&unfinished, format!("message {number}")).expect("the test owns the file");
        fs::rename(unfinished, queue.join(format!("{number:04}"))).expect("the test owns the file");
    }
}

fn worker(shop: &Shop, credentials: &str, notification: &Server, args: &[&str]) -> Server {
    let to = ["--credentials", credentials, "--notification", &notification.url];
    let args = [&to[..], &["--queue", "queue"], args].concat();
    Server::spawn(&mut shop.example("email_worker", &args))
}

#[test]
fn no_message_is_lost_or_sent_twice_over_a_restart_of_the_token_service() {
    let mut shop = Shop::open();
    let credentials = shop.client("email-worker", &["notification=messages:send"]);
    let mut notification = shop.serve("notification_service", "notification", &[]);
    enqueue(&shop, 1..=2);
    let first = worker(&shop, &credentials, &notification, &[]);
    notification.wait_for_output("from email-worker: message 2");

    // The token at hand stays good while the token service is down.
    shop.kill_countersign();
    enqueue(&shop, 3..=4);
    notification.wait_for_output("from email-worker: message 4");
    // The worker is killed once it has logged its last message as sent, so that it has nothing half
    // done.
    drain_log(first, "sent name=0004");

    // A worker that starts now has no token, and waits for one.
    enqueue(&shop, 5..=9);
    let mut second = worker(&shop, &credentials, &notification, &["--drain"]);
    second.wait_for_log("no token");
    assert_eq!(shop.sandbox.listing("queue").len(), 5);
    shop.restart_countersign();
    let end = second.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(shop.sandbox.listing("queue").is_empty());

    notification.signal("TERM");
    let printed = notification.end().stdout;
    let sent: Vec<&str> = printed.lines().filter(|line| line.starts_with("from ")).collect();
    let expected: Vec<String> =
        (1..=9).map(|number| format!("from email-worker: message {number}")).collect();
    assert_eq!(sent, expected);
}

/// Kills a worker once its log holds this text.
fn drain_log(mut worker: Server, text: &str) {
    worker.wait_for_log(text);
    worker.kill();
}

#[test]
fn a_worker_that_may_not_send_leaves_the_message_in_the_queue() {
    let shop = Shop::open();
    let credentials = shop.client("email-worker", &["notification=messages:check"]);
    let notification = shop.serve("notification_service", "notification", &[]);
    enqueue(&shop, [1]);
    let end = worker(&shop, &credentials, &notification, &["--drain"]).end();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains("gave up: 0001: Unauthenticated: no token is issued"), "{end:?}");
    assert_eq!(shop.sandbox.listing("queue"), ["0001"]);
}
