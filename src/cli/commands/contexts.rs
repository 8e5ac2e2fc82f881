//! `context`: names for credentials files.

use std::path::Path;

use countersign_mesh::internals::CredentialsFile;
use serde::Serialize;

use crate::cli::args::contexts::ContextCommand;
use crate::cli::contexts::Contexts;
use crate::cli::credentials::explain;
use crate::cli::environment::Environment;
use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::output::{Output, View};
use crate::cli::sheet::Sheet;

/// Adds, lists, chooses or removes a context. No server is asked.
pub fn run(
    command: ContextCommand,
    environment: &Environment,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let mut contexts = Contexts::read(environment)?;
    match command {
        ContextCommand::List => {}
        ContextCommand::Add { name, file } => {
            // One that cannot be used had better be refused now.
            CredentialsFile::read(&file).map_err(|error| explain(&error))?;
            let absolute = std::path::absolute(&file).map_err(|error| {
                let problem = format!("cannot tell where {} is: {error}", file.display());
                Error::failed(problem, "give its whole path")
            })?;
            if absolute.to_str().is_none() {
                let problem = format!("{} is not a name in UTF-8", file.display());
                return Err(Error::failed(problem, "rename it"));
            }
            contexts.add(&name, absolute);
            contexts.write()?;
        }
        ContextCommand::Use { name } => {
            contexts.choose(&name)?;
            contexts.write()?;
        }
        ContextCommand::Remove { name } => {
            contexts.remove(&name)?;
            contexts.write()?;
        }
    }
    let contexts = contexts.all().map(|(name, file, current)| Context::new(name, file, current));
    output.show(&All { contexts: contexts.collect() })
}

#[derive(Serialize)]
struct All {
    contexts: Vec<Context>,
}

#[derive(Serialize)]
struct Context {
    name: String,
    current: bool,
    credentials: String,
    /// Where its server is; none when the file cannot be read now.
    url: Option<String>,
}

impl Context {
    fn new(name: &str, file: &Path, current: bool) -> Self {
        Self {
            name: name.to_owned(),
            current,
            credentials: file.display().to_string(),
            url: CredentialsFile::read(file).ok().map(|file| file.url),
        }
    }
}

impl View for All {
    fn human(&self, sheet: Sheet) -> String {
        if self.contexts.is_empty() {
            return "there is no context; add one: countersign context add NAME FILE\n".to_owned();
        }
        let row = |context: &Context| {
            [
                if context.current { "*" } else { "" }.to_owned(),
                context.name.clone(),
                context.url.clone().unwrap_or_else(|| "cannot be read".to_owned()),
                escape(&context.credentials),
            ]
        };
        let rows: Vec<_> = self.contexts.iter().map(row).collect();
        sheet.table([("", 0), ("NAME", 0), ("URL", 0), ("CREDENTIALS", 1)], &rows)
    }
}
