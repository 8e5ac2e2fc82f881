//! The command line: reads arguments and environment, does one thing, and says how it went.
//!
//! There are two kinds of commands. Those in `commands` speak to a server: they use nothing but its
//! gRPC API, with a token for just the scopes that the method demands. Those in `host` run where the
//! store is, and hold its key-encryption key.
//!
//! # How a command runs
//!
//! 1. [`run`] parses the arguments into the types of `args`.
//! 2. A command in `host` reads its settings from `config`: flag, variable, file, default. A command
//!    that speaks to a server finds its client's `credentials` and opens a `connection`.
//! 3. The command does its work and hands one answer, a `View`, to `output`: aligned text for people or
//!    one line of JSON for scripts, on stdout. Remarks for people go to stderr.
//! 4. When it fails, its `Error` becomes one line on stderr and the exit code.
//!
//! # Invariants
//!
//! - No flag takes a secret: others on the machine can read a command line.
//! - Every error line says what is wrong and what to do next, and never quotes a secret.
//! - In text for people, what came from a server or a file is escaped, so that it cannot control the
//!   terminal.
//! - The environment and the standard streams are passed down from here as values, so that tests vary
//!   them.

mod args;
mod commands;
mod config;
mod confirm;
mod connection;
mod contexts;
mod credentials;
mod environment;
mod error;
mod escape;
mod format;
mod host;
mod nearest;
mod output;
mod secret;
mod sheet;
mod status;
mod toml_file;

pub use crate::cli::config::settings::reference as configuration_reference;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::args::admin::{AuditCommand, OperatorCommand, PolicyCommand};
use crate::cli::args::host::{ServeArgs, StoreArgs};
use crate::cli::args::{Cli, Command, GlobalArgs};
use crate::cli::commands::{Server, audit, clients, keys, operators, policy, tokens};
use crate::cli::config::{ServeConfig, StoreConfig, settings};
use crate::cli::credentials::DevClient;
use crate::cli::environment::Environment;
use crate::cli::error::Error;
use crate::cli::format::Format;
use crate::cli::output::Output;
use crate::cli::sheet::Sheet;

/// Runs the program with these arguments, the first of which is its own name.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by the server, 4
/// server unreachable.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && asks_for_json(&args) => {
            // The usage stands below, after an empty line.
            let text = error.to_string();
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            let line = lines.collect::<Vec<_>>().join(" ");
            let wrong = Error::usage(line.strip_prefix("error: ").unwrap_or(&line), "see --help");
            // Nowhere is left to say that this failed.
            let _ = writeln!(io::stderr(), "{}", wrong.told(Format::Json).unwrap_or_default());
            return wrong.exit_code();
        }
        Err(error) => {
            // Help and version go to stdout, usage errors to stderr. A reader that has left is no
            // failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let format = cli.global.format;
    let sheet = Sheet::of_stdout(cli.global.wide, !cli.global.no_headers);
    // Not locked: `serve` logs to stderr from other threads.
    let (mut stdin, mut stdout, mut stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut edge = Edge {
        environment: Environment::new("", |name| std::env::var_os(name)),
        stdin: &mut stdin,
        output: Output::new(cli.global.format, sheet, &mut stdout, &mut stderr),
    };
    match dispatch(cli, &mut edge) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(line) = error.told(format) {
                // If stderr cannot be written to, there is nowhere left to say so.
                let _ = writeln!(stderr, "{line}");
            }
            error.exit_code()
        }
    }
}

/// Whether a command line that cannot be parsed asks for JSON, as far as that can be told.
fn asks_for_json(args: &[OsString]) -> bool {
    args.iter().any(|arg| arg == "--format=json")
        || args.windows(2).any(|pair| pair[0] == "--format" && pair[1] == "json")
}

/// The process's environment and streams: all that a command reads from and writes to.
struct Edge<'a> {
    environment: Environment,
    stdin: &'a mut dyn Read,
    output: Output<'a>,
}

fn dispatch(cli: Cli, edge: &mut Edge<'_>) -> Result<(), Error> {
    let Edge { environment, stdin, output } = edge;
    let server = Server::new(&cli.global, environment);
    match cli.command {
        Command::Init(args) => host::init(&args, store(&args.store, environment)?, output),
        Command::Serve(args) => host::serve(serve_config(&args, &cli.global, environment)?, output),
        Command::Backup(args) => host::back_up(&args, store(&args.store, environment)?, output),
        Command::Restore(args) => host::restore(&args, store(&args.store, environment)?, output),
        Command::Client(command) => speak(clients::run(command, &server, output)),
        Command::Operator(OperatorCommand::List) => speak(operators::list(&server, output)),
        Command::Operator(OperatorCommand::Create(args)) => {
            speak(operators::create(args, &server, output))
        }
        Command::Operator(OperatorCommand::Recover(args)) => {
            host::recover_operator(&args, store(&args.store, environment)?, output)
        }
        Command::Keys(command) => speak(keys::run(command, &server, output)),
        Command::Token(command) => {
            speak(tokens::run(command, &server.of(DevClient::Demo), stdin, output))
        }
        Command::Policy(PolicyCommand::Show { descriptor }) => {
            policy::show(descriptor.as_deref(), output)
        }
        Command::Audit(AuditCommand::List(args)) => speak(audit::list(&args, &server, output)),
        Command::Audit(AuditCommand::Verify(args)) => {
            host::verify_audit(&args, store(&args.store, environment)?, output)
        }
        Command::Audit(AuditCommand::Head(args)) => {
            host::export_audit_head(store(&args.store, environment)?, output)
        }
        Command::Context(command) => commands::contexts::run(command, environment, output),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "countersign", &mut script);
            output.text(&String::from_utf8_lossy(&script))
        }
    }
}

/// Runs a command that speaks to a server to its end.
fn speak(command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failed(format!("cannot start: {error}"), "try again"))?;
    runtime.block_on(command)
}

fn store(args: &StoreArgs, environment: &Environment) -> Result<StoreConfig, Error> {
    StoreConfig::load(args.flags(), args.config.as_deref(), environment)
}

fn serve_config(
    args: &ServeArgs,
    global: &GlobalArgs,
    environment: &Environment,
) -> Result<ServeConfig, Error> {
    let mut flags = args.flags();
    if global.insecure_plaintext {
        flags.push((&settings::INSECURE_PLAINTEXT, "true".to_owned()));
    }
    ServeConfig::load(flags, args.store.config.as_deref(), args.mode(), environment)
}
