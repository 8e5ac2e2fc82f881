//! A Countersign and what stands around it, in a directory of their own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign::rpc::CreateClientCredentialRequest;
use countersign::rpc::client_service_client::ClientServiceClient;
use countersign::rpc::create_client_credential_request::Kind;
use tonic::Request;

use crate::support::{Finished, Sandbox, Server, finish};
use crate::tools::Tools;

const OPERATOR: &str = "countersign-dev/operator.toml";

/// Prints the public key of the private key that it writes.
const MAKE_KEY: &str = "import json, sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
key = Ed25519PrivateKey.generate()
with open(sys.argv[1], 'wb') as file:
    file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
print(json.dumps(list(key.public_key().public_bytes_raw())))";

/// The token service and its registered clients.
pub struct Mesh {
    pub sandbox: Sandbox,
    pub countersign: Server,
}

impl Mesh {
    pub fn start() -> Self {
        let sandbox = Sandbox::new();
        let countersign = sandbox.dev();
        Self { sandbox, countersign }
    }

    /// Registers a client. Its credentials are in `NAME.toml`.
    pub fn register(&self, name: &str, more: &[&str]) {
        let file = format!("{name}.toml");
        let create = ["client", "create", name, "--credentials", OPERATOR, "--out", &file];
        self.sandbox.run(&[&create[..], more].concat()).ok();
    }

    pub fn rotate(&self) {
        self.sandbox.run(&["keys", "rotate", "--credentials", OPERATOR]).ok();
    }

    /// Makes a key for a client, in a file, and registers it.
    pub async fn register_key(&self, name: &str, file: &str, tools: &Tools) {
        let mut python = Command::new(&tools.python);
        python.args(["-c", MAKE_KEY, file]);
        let public_key: Vec<u8> =
            serde_json::from_str(&run(self, python, &[], "").ok()).expect("it prints bytes");
        self.sandbox.set_mode(file, 0o600);

        let issue = ["token", "issue", "--credentials", OPERATOR, "--audience", "countersign"];
        let token = format!("Bearer {}", self.sandbox.run(&issue).ok().trim());
        let kind = Some(Kind::PublicKey(public_key));
        let key = CreateClientCredentialRequest { client_id: name.into(), kind, ..<_>::default() };
        let mut request = Request::new(key);
        let token = token.parse().expect("a token is ASCII");
        request.metadata_mut().insert("authorization", token);
        let mut clients = ClientServiceClient::new(self.countersign.channel().await);
        clients.create_client_credential(request).await.expect("it is new");
    }

    pub fn secret(&self, name: &str) -> String {
        self.sandbox.credential(&format!("{name}.toml"), "client_secret")
    }

    /// Starts a server of an example, behind this issuer.
    pub fn serve(&self, command: Command, audience: &str) -> Server {
        let url = &self.countersign.url;
        let mut command = self.outside(command);
        command.args(["--listen", "127.0.0.1:0", "--audience", audience, "--issuer", url]);
        command.args(["--jwks-url", &format!("{url}/.well-known/jwks.json")]);
        Server::start_saying(&mut command, "listening on ")
    }

    /// A command that sees nothing of the environment of the tests, but what it was given itself.
    fn outside(&self, given: Command) -> Command {
        let program = given.get_program().to_str().expect("a path of ours is text");
        let mut command = self.sandbox.program(program);
        command.args(given.get_args());
        for (name, value) in given.get_envs() {
            command.env(name, value.expect("none is taken away"));
        }
        command
    }
}

/// The example in Python, with what is generated for it.
pub struct Python {
    program: PathBuf,
    path: String,
}

impl Python {
    pub fn prepare(sandbox: &Sandbox, tools: &Tools) -> Self {
        let (example, generated) = (source("examples/python"), sandbox.path("gen"));
        let generate = example.join("generate.sh").display().to_string();
        finish(sandbox.program(&generate).arg(&generated).env("PYTHON", &tools.python), "").ok();
        let path = format!("{}:{}", generated.display(), example.display());
        Self { program: tools.python.clone(), path }
    }

    /// Runs a script of this repository.
    pub fn script(&self, script: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(source(script)).env("PYTHONPATH", &self.path);
        // Leaves nothing beside the sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// The example in JavaScript. Node looks for packages beside the script, so it is copied to where they are.
pub struct Node {
    directory: PathBuf,
}

impl Node {
    pub fn prepare(sandbox: &Sandbox, tools: &Tools) -> Self {
        let directory = sandbox.path("examples/node");
        let examples = sandbox.path("examples");
        fs::create_dir_all(&directory).expect("it is not there yet");
        let is_ours = |path: &Path| path.extension().is_some_and(|it| it == "js");
        for entry in fs::read_dir(source("examples/node")).expect("it is there") {
            let path = entry.expect("it can be read").path();
            if is_ours(&path) {
                let name = path.file_name().expect("it is a file");
                fs::copy(&path, directory.join(name)).expect("there is room");
            }
        }
        let test = source("tests/languages/refresh.mjs");
        fs::copy(test, directory.join("refresh.mjs")).expect("there is room");
        let link = |from: &Path, to: PathBuf| symlink(from, to).expect("it is not there yet");
        link(&tools.node_modules, directory.join("node_modules"));
        link(&source("examples/proto"), examples.join("proto"));
        link(&source("proto"), sandbox.path("proto"));
        Self { directory }
    }

    pub fn script(&self, script: &str) -> Command {
        let mut command = Command::new("node");
        command.arg(self.directory.join(script));
        command
    }
}

/// A file of this repository.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a command to its end, as `Mesh::serve` runs one that has none.
pub fn run(mesh: &Mesh, command: Command, args: &[&str], input: &str) -> Finished {
    finish(mesh.outside(command).args(args), input)
}
