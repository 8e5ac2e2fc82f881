//! The worker that drains a queue into Notification.

use std::fs;

use crate::process::Server;
use crate::shop::Shop;

/// Adds messages as a producer does: under their names only when they are whole.
fn enqueue(shop: &Shop, numbers: impl IntoIterator<Item = u32>) {
    let queue = shop.sandbox.path("queue");
    fs::create_dir_all(&queue).expect("it is ours");
    for number in numbers {
        let unfinished = queue.join(format!(".{number:04}"));
        fs::write(&unfinished, format!("message {number}")).expect("it is ours");
        fs::rename(unfinished, queue.join(format!("{number:04}"))).expect("it is ours");
    }
}

fn worker(shop: &Shop, credentials: &str, notification: &Server, args: &[&str]) -> Server {
    let to = ["--credentials", credentials, "--notification", &notification.url];
    let args = [&to[..], &["--queue", "queue"], args].concat();
    Server::spawn(&mut shop.example("email_worker", &args))
}

#[test]
fn a_restart_of_the_token_service_loses_no_message_and_sends_none_twice() {
    let mut shop = Shop::open();
    let credentials = shop.client("email-worker", &["notification=messages:send"]);
    let mut notification = shop.serve("notification_service", "notification", &[]);
    enqueue(&shop, 1..=2);
    let first = worker(&shop, &credentials, &notification, &[]);
    notification.wait_for_output("from email-worker: message 2");

    // The token at hand is good without those who issued it.
    shop.kill_countersign();
    enqueue(&shop, 3..=4);
    notification.wait_for_output("from email-worker: message 4");
    // Whatever it was about to do, it has not got to more than that.
    drain_log(first, "sent name=0004");

    // One that starts now has no token, and waits for it.
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

/// Kills a worker once it has written this down.
fn drain_log(mut worker: Server, text: &str) {
    worker.wait_for_log(text);
    worker.kill();
}

#[test]
fn a_message_stays_in_the_queue_of_a_worker_that_may_not_send() {
    let shop = Shop::open();
    let credentials = shop.client("email-worker", &["notification=messages:check"]);
    let notification = shop.serve("notification_service", "notification", &[]);
    enqueue(&shop, [1]);
    let end = worker(&shop, &credentials, &notification, &["--drain"]).end();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stderr.contains("gave up: 0001: Unauthenticated: no token is issued"), "{end:?}");
    assert_eq!(shop.sandbox.listing("queue"), ["0001"]);
}
