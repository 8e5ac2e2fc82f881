//! The automated checker.

use crate::shop::Shop;

#[test]
fn a_liveness_check_needs_no_token_and_a_deep_check_does() {
    let shop = Shop::open();
    let checker = shop.client("checker", &["notification=messages:check"]);
    let stranger = shop.client("stranger", &["notification=messages:send"]);
    let notification = shop.serve("notification_service", "notification", &[]);
    let storage = shop.serve("storage_api", "storage", &["--store", "store"]);
    let page = format!("{}/health/live", storage.url);
    let grpc = notification.url.clone();

    let end = shop.run("health_check", &["--grpc", &grpc, "--http", &page]);
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(end.stdout.contains("ok      http") && end.stdout.contains("ok      grpc"), "{end:?}");
    // The token service itself can be checked in the same way.
    assert_eq!(shop.run("health_check", &["--grpc", &shop.url]).code, Some(0));

    let deep = |credentials: &str| {
        let args = ["--grpc", &grpc, "--deep", "--credentials", credentials];
        shop.run("health_check", &args)
    };
    let end = deep(&checker);
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(end.stdout.contains("ok      deep") && end.stdout.contains("0 messages"), "{end:?}");
    let end = deep(&stranger);
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stdout.contains("ok      grpc"), "{end:?}");
    assert!(end.stdout.contains("FAILED  deep") && end.stdout.contains("no token"), "{end:?}");

    // The same from the environment, as a container has it.
    let credential = |key: &str| shop.sandbox.credential(&checker, key);
    let mut command = shop.example("health_check", &["--grpc", &grpc, "--deep"]);
    command
        .env("COUNTERSIGN_URL", credential("url"))
        .env("COUNTERSIGN_CLIENT_ID", credential("client_id"))
        .env("COUNTERSIGN_CLIENT_SECRET", credential("client_secret"));
    let end = crate::process::finish(&mut command, "");
    assert_eq!(end.code, Some(0), "{end:?}");
    let end = shop.run("health_check", &["--grpc", &grpc, "--deep"]);
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stdout.contains("neither COUNTERSIGN_URL nor"), "{end:?}");

    let gone = format!("{}/elsewhere", storage.url);
    notification.kill();
    let end = shop.run("health_check", &["--grpc", &grpc, "--http", &gone]);
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.stdout.contains("FAILED  http") && end.stdout.contains("404"), "{end:?}");
    assert!(end.stdout.contains("FAILED  grpc") && end.stdout.contains("refused"), "{end:?}");
    assert_eq!(shop.run("health_check", &[]).code, Some(2));
}
