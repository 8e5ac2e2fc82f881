//! The real binary in an environment of its own. What a test starts ends with it.

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

/// How long anything may take before a test fails instead of hanging. Nothing waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is home and working directory of all that runs in it.
pub struct Sandbox(TempDir);

impl Sandbox {
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program that sees nothing of the environment of the tests.
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

    /// Runs it as the client of a credentials file, for JSON.
    pub fn json(&self, credentials: &str, args: &[&str]) -> Value {
        self.run(&[args, &["--credentials", credentials, "--format", "json"]].concat()).json()
    }

    pub fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("it is there")
    }

    /// The value of a key of a credentials file.
    pub fn credential(&self, file: &str, key: &str) -> String {
        let table: toml::Table = self.text(file).parse().expect("it is TOML");
        table[key].as_str().expect("it is a string").to_owned()
    }

    pub fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).expect("it is there").permissions().mode() & 0o7777
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    /// The names of what is in a directory, in order.
    pub fn listing(&self, directory: &str) -> Vec<String> {
        listing(&self.path(directory))
    }

    /// `serve --dev`, with its state in `countersign-dev`.
    pub fn dev(&self) -> Server {
        self.serve(&["--dev"])
    }

    /// `serve` on a free port, once it says that it serves.
    pub fn serve(&self, args: &[&str]) -> Server {
        Server::start(self.program(PROGRAM).args(["serve", "--listen", "127.0.0.1:0"]).args(args))
    }
}

/// Posts a form to the server of these credentials with more headers, each of which ends in CRLF.
pub fn post(sandbox: &Sandbox, credentials: &str, path: &str, headers: &str, form: &str) -> String {
    let url = sandbox.credential(credentials, "url");
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).expect("it listens");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len(),
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    answer
}

pub fn listing(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").file_name().into_string().expect("it is text"))
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
        serde_json::from_str(&self.ok()).expect("it prints JSON")
    }

    /// Its one line on stderr, when it ended with this code and printed nothing else.
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
    let mut stdin = child.stdin.take().expect("it is piped");
    // Who does not read its input may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
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

    /// Starts a command and waits for the line that says so, with its address at the end.
    pub fn start_saying(command: &mut Command, text: &str) -> Self {
        let mut server = Self::spawn(command);
        match server.stdout.until(text) {
            Some(line) => server.url = line.replace(text, ""),
            None => panic!("it does not serve: {}", server.log.rest()),
        }
        server
    }

    /// Starts a command and waits for nothing.
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program is there");
        let stdout = Lines::of(child.stdout.take().expect("it is piped"));
        let log = Lines::of(child.stderr.take().expect("it is piped"));
        Self { child, url: String::new(), stdout, log }
    }

    /// The commands to paste, without their `$ `.
    pub fn commands(&mut self, count: usize) -> Vec<String> {
        let command = |line: String| line.strip_prefix("$ ").map(str::to_owned);
        (0..count)
            .map(|_| command(self.wait_for_output("$ ")).expect("it begins the line"))
            .collect()
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone())
            .expect("a valid address")
            .connect()
            .await
            .expect("it listens")
    }

    pub fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("there is a shell");
        assert!(status.success(), "{kill}");
    }

    /// Waits until it prints something. The line.
    pub fn wait_for_output(&mut self, text: &str) -> String {
        let line = self.stdout.until(text);
        line.unwrap_or_else(|| panic!("it never prints {text:?}: {}", self.stdout.seen))
    }

    /// Waits until the log says something.
    pub fn wait_for_log(&mut self, text: &str) {
        assert!(self.log.until(text).is_some(), "the log never says {text:?}: {}", self.log.seen);
    }

    /// Waits for its end. Its exit code, and all that it printed and logged.
    pub fn end(mut self) -> Finished {
        // The pipes close when the process is gone, so that this wait has an end.
        let (stdout, stderr) = (self.stdout.rest(), self.log.rest());
        let status = self.child.wait().expect("it is our child");
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
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

/// Says what the server had to say when its test fails.
#[allow(clippy::print_stderr, reason = "the test runner shows it with the failure")]
impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server had ended: {ended:?}; its log:\n{}", self.log.rest());
        }
    }
}

/// What a process writes, line by line, read all the time so that it never waits for us.
struct Lines {
    lines: mpsc::Receiver<String>,
    /// What came so far.
    seen: String,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                // Nobody listens any more when the test is over.
                let _ = sender.send(line);
            }
        });
        Self { lines, seen: String::new() }
    }

    /// The next line, or none at the end.
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

    /// The next line with this text, or none if it ends before.
    fn until(&mut self, text: &str) -> Option<String> {
        loop {
            let line = self.next()?;
            if line.contains(text) {
                return Some(line);
            }
        }
    }

    /// All that it ever wrote.
    fn rest(&mut self) -> String {
        while self.next().is_some() {}
        self.seen.clone()
    }
}
