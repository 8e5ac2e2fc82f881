//! The real binary in its own environment. Processes that a test starts end with the test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::Channel;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_countersign");

/// How long anything may take before a test fails instead of hanging. Tests that pass never wait this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is the home and the working directory of every program run in it.
pub struct Sandbox(TempDir);

impl Sandbox {
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command without the environment variables of the tests.
    pub fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("HOME", self.0.path()).current_dir(self.0.path());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        self.run_with_input(args, "")
    }

    pub fn run_with_input(&self, args: &[&str], input: &str) -> Finished {
        finish(self.program(PROGRAM).args(args), input)
    }

    /// Runs the program with a credentials file, and parses its JSON output.
    pub fn json(&self, credentials: &str, args: &[&str]) -> Value {
        self.run(&[args, &["--credentials", credentials, "--format", "json"]].concat()).json()
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("the file exists")
    }

    /// The value of a key in a credentials file.
    pub fn credential(&self, file: &str, key: &str) -> String {
        let table: toml::Table = self.text(file).parse().expect("the file is TOML");
        table[key].as_str().expect("the value is a string").to_owned()
    }

    pub fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).expect("the file exists").permissions().mode() & 0o7777
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode))
            .expect("the test owns the file");
    }

    /// The sorted names of the files in a directory.
    pub fn listing(&self, directory: &str) -> Vec<String> {
        listing(&self.path(directory))
    }

    /// Starts `serve --dev`, with its state in `countersign-dev`.
    pub fn dev(&self) -> Server {
        self.serve(&["--dev"])
    }

    /// Starts `serve` on a free port, and returns once it says that it serves.
    pub fn serve(&self, args: &[&str]) -> Server {
        Server::start(self.program(PROGRAM).args(["serve", "--listen", "127.0.0.1:0"]).args(args))
    }
}

/// Posts a form to the server of these credentials. `headers` are further headers, each ending in CRLF.
pub fn post(sandbox: &Sandbox, credentials: &str, path: &str, headers: &str, form: &str) -> String {
    let url = sandbox.credential(credentials, "url");
    let mut stream =
        TcpStream::connect(url.trim_start_matches("http://")).expect("the server listens");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len(),
    );
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers and closes");
    answer
}

pub fn listing(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| {
            entry
                .expect("the entry can be read")
                .file_name()
                .into_string()
                .expect("the file is text")
        })
        .collect();
    names.sort();
    names
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).expect("the output is JSON")
    }

    /// Asserts that it ended with this code and printed nothing but one line on stderr, which it returns.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!((self.stdout.as_str(), self.stderr.lines().count()), ("", 1), "{self:?}");
        self.stderr
    }
}

/// Runs a command to its end.
pub fn finish(command: &mut Command, input: &str) -> Finished {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program is there");
    let mut stdin = child.stdin.take().expect("the stream is piped");
    // A program that does not read its input may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("the process ends");
    let text = |bytes| String::from_utf8(bytes).expect("the output is UTF-8");
    Finished {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// A serving process.
pub struct Server {
    child: Child,
    pub url: String,
    stdout: Lines,
    log: Lines,
}

impl Server {
    /// Starts a command and waits until it says where it serves.
    pub fn start(command: &mut Command) -> Self {
        Self::start_saying(command, "Countersign serves on ")
    }

    /// Starts a command and waits for a line with this text, which ends in the server's address.
    pub fn start_saying(command: &mut Command, text: &str) -> Self {
        let mut server = Self::spawn(command);
        match server.stdout.until(text) {
            Some(line) => server.url = line.replace(text, ""),
            None => panic!("it does not serve: {}", server.log.rest()),
        }
        server
    }

    /// Starts a command without waiting.
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program is there");
        let stdout = Lines::of(child.stdout.take().expect("the stream is piped"));
        let log = Lines::of(child.stderr.take().expect("the stream is piped"));
        Self { child, url: String::new(), stdout, log }
    }

    /// The next commands that the server prints for pasting, without their `$ `.
    pub fn commands(&mut self, count: usize) -> Vec<String> {
        let command = |line: String| line.strip_prefix("$ ").map(str::to_owned);
        (0..count)
            .map(|_| command(self.wait_for_output("$ ")).expect("the line begins with `$ `"))
            .collect()
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone())
            .expect("a valid address")
            .connect()
            .await
            .expect("the server listens")
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.child.id());
        let status =
            Command::new("sh").args(["-c", &kill]).status().expect("the system has a shell");
        assert!(status.success(), "{kill}");
    }

    /// Waits until stdout has a line with this text, and returns the line.
    pub fn wait_for_output(&mut self, text: &str) -> String {
        let line = self.stdout.until(text);
        line.unwrap_or_else(|| panic!("it never prints {text:?}: {}", self.stdout.seen))
    }

    /// Waits until the log has a line with this text.
    pub fn wait_for_log(&mut self, text: &str) {
        assert!(self.log.until(text).is_some(), "the log never says {text:?}: {}", self.log.seen);
    }

    /// Waits until the process ends. Returns its exit code and everything that it printed and logged.
    pub fn end(mut self) -> Finished {
        // The pipes close when the process ends, so reading them to the end waits for it.
        let (stdout, stderr) = (self.stdout.rest(), self.log.rest());
        let status = self.child.wait().expect("the process is a child of the test");
        Finished { code: status.code(), stdout, stderr }
    }

    /// Stops it in order.
    #[track_caller]
    pub fn stop(self) -> Finished {
        self.signal("TERM");
        let end = self.end();
        assert_eq!(end.code, Some(0), "{}", end.stderr);
        end
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is a child of the test");
        self.child.wait().expect("the process is a child of the test");
    }
}

/// Kills the server, and prints its log if the test fails.
#[allow(clippy::print_stderr, reason = "the test runner shows it with the failure")]
impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        // Killing fails if the process has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server had ended: {ended:?}; its log:\n{}", self.log.rest());
        }
    }
}

/// The output of a process, line by line. A thread reads it all the time, so that the process never blocks on a full
/// pipe.
struct Lines {
    lines: mpsc::Receiver<String>,
    /// Everything read so far.
    seen: String,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                // Sending fails once the test is over.
                let _ = sender.send(line);
            }
        });
        Self { lines, seen: String::new() }
    }

    /// The next line, or `None` at the end.
    fn next(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.seen.push_str(&line);
                self.seen.push('\n');
                Some(line)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs after: {}", self.seen),
        }
    }

    /// The next line with this text, or `None` if the output ends before.
    fn until(&mut self, text: &str) -> Option<String> {
        loop {
            let line = self.next()?;
            if line.contains(text) {
                return Some(line);
            }
        }
    }

    /// Everything that the process ever wrote.
    fn rest(&mut self) -> String {
        while self.next().is_some() {}
        self.seen.clone()
    }
}
