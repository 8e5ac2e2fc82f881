//! The gRPC service in Python and in JavaScript.

use std::fs;
use std::process::Command;

use crate::mesh::{Mesh, Node, Python, run};
use crate::support::Finished;
use crate::tools::tools;

/// What a client of the warehouse prints when all its calls went through.
const ALL_CALLS: &str = "sold here: coffee tea
picker sees 100 of tea
picker delivered 2 parcels
picked 2, left 110
picked 10, left 100
coffee: 40
tea: 100
";

struct Warehouse {
    mesh: Mesh,
    python: Python,
    node: Node,
}

impl Warehouse {
    fn prepare() -> Option<Self> {
        let tools = tools()?;
        let mesh = Mesh::start();
        let python = Python::prepare(&mesh.sandbox, &tools);
        let node = Node::prepare(&mesh.sandbox, &tools);
        mesh.register("picker", &["--grant", "stock=stock:read,stock:write"]);
        Some(Self { mesh, python, node })
    }

    /// What both clients say of a server, in Python and in JavaScript.
    fn call(&self, url: &str, credentials: &str, more: &[&str]) -> [Finished; 2] {
        let args = [&["--server", url, "--credentials", credentials], more].concat();
        let clients =
            [self.python.script("examples/python/client.py"), self.node.script("client.js")];
        clients.map(|client| run(&self.mesh, client, &args, ""))
    }
}

#[test]
fn python_and_javascript_call_each_other_before_and_after_a_rotation() {
    let Some(warehouse) = Warehouse::prepare() else { return };
    let Warehouse { mesh, python, node } = &warehouse;
    let servers = [python.script("examples/python/server.py"), node.script("server.js")];
    let servers = servers.map(|server| mesh.serve(server, "stock"));
    let all_call_all = || {
        for server in &servers {
            for called in warehouse.call(&server.url, "picker.toml", &[]) {
                assert_eq!(called.ok(), ALL_CALLS);
            }
        }
    };
    all_call_all();
    mesh.rotate();
    all_call_all();
    for server in servers {
        server.stop();
    }
}

#[test]
fn a_client_gets_no_further_than_its_grants() {
    let Some(warehouse) = Warehouse::prepare() else { return };
    let Warehouse { mesh, python, node } = &warehouse;
    mesh.register("reader", &["--grant", "stock=stock:read"]);
    mesh.register("stranger", &["--grant", "payment=stock:read,stock:write"]);
    let servers = [python.script("examples/python/server.py"), node.script("server.js")];
    for server in servers.map(|server| mesh.serve(server, "stock")) {
        for refused in warehouse.call(&server.url, "reader.toml", &[]) {
            assert!(refused.failed(3).contains("PERMISSION_DENIED"));
        }
        // The token service gives the stranger a token, and the warehouse does not take it.
        for refused in warehouse.call(&server.url, "stranger.toml", &["--audience", "payment"]) {
            assert_eq!(refused.code, Some(3), "{refused:?}");
            assert_eq!(refused.stdout, "sold here: coffee tea\n");
            assert!(refused.stderr.contains("UNAUTHENTICATED"), "{refused:?}");
            assert!(refused.stderr.contains("another audience"), "{refused:?}");
        }
        server.stop();
    }
}

#[test]
fn the_clients_find_their_credentials_as_the_command_line_does() {
    let Some(Warehouse { mesh, python, node }) = Warehouse::prepare() else { return };
    let server = mesh.serve(node.script("server.js"), "stock");
    let (url, secret) = (&mesh.countersign.url, mesh.secret("picker"));
    let clients = || [python.script("examples/python/client.py"), node.script("client.js")];
    let some = [("COUNTERSIGN_URL", url.as_str()), ("COUNTERSIGN_CLIENT_ID", "picker")];
    for client in clients() {
        let told = run(&mesh, with(client, &some), &["--server", &server.url], "").failed(1);
        assert!(told.contains("but not COUNTERSIGN_CLIENT_SECRET"), "{told}");
    }
    let all = [&some[..], &[("COUNTERSIGN_CLIENT_SECRET", secret.as_str())]].concat();
    for client in clients() {
        assert_eq!(run(&mesh, with(client, &all), &["--server", &server.url], "").ok(), ALL_CALLS);
    }
    mesh.sandbox.set_mode("picker.toml", 0o644);
    for client in clients() {
        let args = ["--server", &server.url, "--credentials", "picker.toml"];
        assert!(run(&mesh, client, &args, "").failed(1).contains("chmod 600"));
    }
    server.stop();
}

#[tokio::test]
async fn a_key_takes_the_place_of_the_secret() {
    let (Some(Warehouse { mesh, python, node }), Some(tools)) = (Warehouse::prepare(), tools())
    else {
        return;
    };
    mesh.register_key("picker", "picker.pem", &tools).await;
    let url = &mesh.countersign.url;
    let file = |name: &str, issuer: &str| {
        let text = format!(
            "url = {url:?}\nclient_id = \"picker\"\nprivate_key_file = \"picker.pem\"\nissuer = {issuer:?}\n"
        );
        fs::write(mesh.sandbox.path(name), text).expect("there is room");
        mesh.sandbox.set_mode(name, 0o600);
    };
    file("key.toml", url);
    file("elsewhere.toml", "https://elsewhere.example");
    let server = mesh.serve(python.script("examples/python/server.py"), "stock");
    let clients = || [python.script("examples/python/client.py"), node.script("client.js")];
    let call = |client, credentials: &str| {
        run(&mesh, client, &["--server", &server.url, "--credentials", credentials], "")
    };
    for client in clients() {
        assert_eq!(call(client, "key.toml").ok(), ALL_CALLS);
    }
    for client in clients() {
        assert!(call(client, "elsewhere.toml").failed(3).contains("UNAUTHENTICATED"));
    }
    mesh.sandbox.set_mode("picker.pem", 0o644);
    for client in clients() {
        assert!(call(client, "key.toml").failed(1).contains("chmod 600"));
    }
    server.stop();
}

fn with(mut command: Command, variables: &[(&str, &str)]) -> Command {
    command.envs(variables.iter().copied());
    command
}

#[test]
fn bad_tokens_are_refused() {
    let Some(Warehouse { mesh, python, node }) = Warehouse::prepare() else { return };
    for server in [python.script("examples/python/server.py"), node.script("server.js")] {
        let args: Vec<&str> = std::iter::once(server.get_program())
            .chain(server.get_args())
            .map(|arg| arg.to_str().expect("a path of ours is text"))
            .collect();
        let end = run(&mesh, python.script("tests/languages/rejects.py"), &args, "");
        assert_eq!(end.code, Some(0), "{server:?}: {}\n{}", end.stdout, end.stderr);
    }
}

#[test]
fn tokens_are_refreshed_and_outlast_an_outage_until_they_expire() {
    let Some(Warehouse { mesh, python, node }) = Warehouse::prepare() else { return };
    for test in [python.script("tests/languages/refresh.py"), node.script("refresh.mjs")] {
        run(&mesh, test, &[], "").ok();
    }
}
