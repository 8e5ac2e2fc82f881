//! `/openapi.json` is what the server does: that answers are as it says is seen by every other test here.

use crate::oauth::call::request;
use crate::oauth::contract::{DOCUMENT, methods};
use crate::support::TestServer;

#[tokio::test]
async fn the_document_is_served_as_it_is_kept() {
    let server = TestServer::start().await;
    let answer = request(&server, "GET", "/openapi.json", "").await;
    assert_eq!(answer.json(), *DOCUMENT);
    assert_eq!(DOCUMENT["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(request(&server, "HEAD", "/openapi.json", "").await.status, 200);
}

#[tokio::test]
async fn every_other_method_is_refused_with_those_that_there_are() {
    let server = TestServer::start().await;
    for path in DOCUMENT["paths"].as_object().expect("paths").keys() {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            // What is asked here is held against the document.
            let answer = request(&server, method, path, "").await;
            assert_eq!(answer.status == 405, !methods(path).contains(method), "{method} {path}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
}

#[tokio::test]
async fn unknown_paths_are_not_found() {
    let server = TestServer::start().await;
    for path in
        ["/nowhere", "/oauth", "/oauth/", "/oauth/token/", "/oauth/authorize", "/OAuth/Token"]
    {
        for method in ["GET", "POST"] {
            assert_eq!(request(&server, method, path, "").await.status, 404, "{method} {path}");
        }
    }
}
