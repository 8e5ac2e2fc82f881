//! OAuth clients that others wrote, unchanged.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::mesh::{Mesh, run, source};
use crate::tools::{Tools, tools};

/// A client that may call the warehouse and be it: so it can ask about its own tokens. It has a
/// secret, and a key in `key.pem`.
async fn prepare(tools: &Tools) -> Mesh {
    let mesh = Mesh::start();
    mesh.register("crm", &["--grant", "stock=stock:read", "--serves", "stock"]);
    mesh.register_key("crm", "key.pem", tools).await;
    mesh
}

#[tokio::test]
async fn authlib_and_requests_oauthlib_get_tokens_that_pyjwt_verifies() {
    let Some(tools) = tools() else { return };
    let mesh = prepare(&tools).await;
    let mut script = Command::new(&tools.python);
    script.arg(source("tests/languages/oauth.py"));
    // On loopback, without TLS.
    script.envs([("AUTHLIB_INSECURE_TRANSPORT", "1"), ("OAUTHLIB_INSECURE_TRANSPORT", "1")]);
    let url = &mesh.countersign.url;
    run(&mesh, script, &[url, url, "crm", "key.pem"], &mesh.secret("crm")).ok();
}

#[tokio::test]
async fn openid_client_gets_tokens_that_jose_verifies() {
    let Some(tools) = tools() else { return };
    let mesh = prepare(&tools).await;
    let directory = mesh.sandbox.path("openid");
    fs::create_dir(&directory).expect("it is not there yet");
    symlink(&tools.openid_modules, directory.join("node_modules")).expect("it is not there yet");
    let script = directory.join("openid.mjs");
    fs::copy(source("tests/languages/openid.mjs"), &script).expect("there is room");
    let mut node = Command::new("node");
    node.arg(script);
    run(&mesh, node, &[&mesh.countersign.url, "crm", "key.pem"], &mesh.secret("crm")).ok();
}
