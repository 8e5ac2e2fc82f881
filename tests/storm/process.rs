//! The server: the real binary on a store of its own, at one address through all of its lives.

use std::fs::File;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::figures::{Figures, random};

/// Ends with its test.
pub struct Server {
    dir: TempDir,
    address: String,
    pub url: String,
    running: Running,
}

struct Running {
    child: Child,
    /// It writes to this pipe for as long as it lives.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Server {
    pub async fn start() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let address = format!("127.0.0.1:{}", free_port());
        let running = serve(&dir, &address).await;
        Self { url: format!("http://{address}"), dir, address, running }
    }

    pub fn operator_secret(&self) -> String {
        let path = self.dir.path().join("countersign-dev/operator.toml");
        let text = std::fs::read_to_string(path).expect("`serve --dev` writes it");
        let table: toml::Table = text.parse().expect("it is TOML");
        table["client_secret"].as_str().expect("it is a string").to_owned()
    }

    /// `kill -9` at some moment that nobody chose, and another start.
    pub async fn kill_and_restart(&mut self, figures: &Figures) {
        tokio::time::sleep(Duration::from_millis(random(300))).await;
        self.running.child.kill().await.expect("it is our child");
        self.running = serve(&self.dir, &self.address).await;
        figures.one(&figures.kills);
    }
}

/// Starts it, and waits until it says that it serves.
async fn serve(dir: &TempDir, address: &str) -> Running {
    let log_path = dir.path().join("log");
    let log = File::options().create(true).append(true).open(&log_path).expect("a log file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["serve", "--dev", "--log-filter", "warn", "--listen", address])
        .env_clear()
        .env("HOME", dir.path())
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("the program is there");
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    loop {
        match stdout.next_line().await.expect("it prints text") {
            Some(line) if line.starts_with("Countersign serves on ") => break,
            Some(_) => {}
            None => {
                let log = std::fs::read_to_string(log_path).expect("it is there");
                let last: Vec<_> = log.lines().rev().take(5).collect();
                panic!("it does not serve: {last:?}");
            }
        }
    }
    Running { child, _stdout: stdout }
}

/// A port that nobody listens on. Below those that connections are made from: while the server is down,
/// one of these could take it.
fn free_port() -> u16 {
    (0..1000)
        .map(|_| 20_000 + u16::try_from(random(12_000)).expect("it is small"))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
