//! A token service, and the examples around it.

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use axum::Router;
use tokio::net::TcpListener;

use crate::process::{Finished, PROGRAM, Sandbox, Server, finish};

const OPERATOR: &str = "countersign-dev/operator.toml";

pub struct Shop {
    pub sandbox: Sandbox,
    countersign: Option<Server>,
    /// Where the token service is, whenever it runs.
    pub url: String,
}

impl Shop {
    pub fn open() -> Self {
        let sandbox = Sandbox::new();
        let countersign = sandbox.dev();
        let url = countersign.url.clone();
        Self { sandbox, countersign: Some(countersign), url }
    }

    /// Makes a client, as the operator. Returns its credentials file.
    pub fn client(&self, id: &str, grants: &[&str]) -> String {
        let file = format!("{id}.toml");
        let mut args = vec!["client", "create", id, "--credentials", OPERATOR, "--out", &file];
        grants.iter().for_each(|grant| args.extend(["--grant", grant]));
        self.sandbox.run(&args).ok();
        file
    }

    /// A token, as a script gets it.
    pub fn token(&self, credentials: &str, audience: &str, scope: &str) -> String {
        let args = ["token", "issue", "--credentials", credentials];
        let what = ["--audience", audience, "--scope", scope];
        self.sandbox.run(&[&args[..], &what].concat()).ok().trim().to_owned()
    }

    /// `kill -9` for the token service.
    pub fn kill_countersign(&mut self) {
        self.countersign.take().expect("it runs").kill();
    }

    /// Starts it again at the same address and with the same store.
    pub fn restart_countersign(&mut self) {
        let listen = self.url.replace("http://", "");
        let mut command = self.sandbox.program(PROGRAM);
        command.args(["serve", "--dev", "--listen", &listen]);
        self.countersign = Some(Server::start(&mut command));
    }

    /// The command that runs an example with these arguments.
    pub fn example(&self, name: &str, args: &[&str]) -> Command {
        let path = path_of(name);
        let mut command = self.sandbox.program(path.to_str().expect("the path is text"));
        command.args(args);
        command
    }

    /// Runs an example to its end.
    pub fn run(&self, name: &str, args: &[&str]) -> Finished {
        finish(&mut self.example(name, args), "")
    }

    /// An example's server, behind the token service, once it listens.
    pub fn serve(&self, name: &str, audience: &str, args: &[&str]) -> Server {
        let jwks_url = format!("{}/.well-known/jwks.json", self.url);
        self.serve_behind(&self.url, &jwks_url, name, &[&["--audience", audience], args].concat())
    }

    /// An example's server, behind any issuer, once it listens.
    pub fn serve_behind(&self, issuer: &str, jwks_url: &str, name: &str, args: &[&str]) -> Server {
        let behind = ["--issuer", issuer, "--jwks-url", jwks_url];
        Server::start_saying(self.example(name, &behind).args(args), "listening on ")
    }
}

/// Beside the tests, where `cargo test` puts the examples.
fn path_of(name: &str) -> PathBuf {
    let tests = env::current_exe().expect("this test runs");
    let target = tests.parent().and_then(|deps| deps.parent()).expect("tests are in target/*/deps");
    let path = target.join("examples").join(name);
    assert!(
        path.exists(),
        "{} is not there: `cargo build --examples` makes it, and so does `cargo test` when it is not \
         told which tests",
        path.display()
    );
    path
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Makes an HTTP request, such as `GET /customers`, with this token.
pub fn call(server: &Server, request: &str, token: Option<&str>, json: &str) -> Answer {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let mut stream =
        TcpStream::connect(server.url.replace("http://", "")).expect("the server listens");
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n{}\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
        authorization.unwrap_or_default(),
        json.len(),
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Serves these routes in this process until the test is over. Returns the address.
pub async fn serve(routes: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}
