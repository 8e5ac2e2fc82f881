//! Finding a setting's value: flag, then environment, then file, then default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use countersign_mesh::internals::without_mark;
use toml::{Table, Value};

use crate::cli::config::settings::{Kind, SETTINGS, Setting};
use crate::cli::environment::Environment;
use crate::cli::error::Error;
use crate::cli::toml_file;

/// The settings that were given as flags, with their text as typed.
pub type Flags = Vec<(&'static Setting, String)>;

/// All places that a setting can come from.
pub struct Layers<'a> {
    flags: Flags,
    environment: &'a Environment,
    file: BTreeMap<String, Value>,
    path: PathBuf,
}

/// A setting's value as written, and where it was found.
#[derive(Debug)]
pub struct Found {
    setting: &'static Setting,
    /// The value as written.
    pub text: String,
    /// Where it stands.
    pub source: Source,
}

/// Where a value stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// On the command line.
    Flag(String),
    /// In an environment variable.
    Variable(&'static str),
    /// In the configuration file.
    File(PathBuf),
    /// In the table of settings.
    Default,
}

impl<'a> Layers<'a> {
    /// Reads the configuration file, if `file` or the environment names one.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or has a key that does not exist.
    pub fn read(
        flags: Flags,
        file: Option<&Path>,
        environment: &'a Environment,
    ) -> Result<Self, Error> {
        let Some(path) =
            file.map(Path::to_owned).or_else(|| environment.path("COUNTERSIGN_CONFIG"))
        else {
            return Ok(Self { flags, environment, file: BTreeMap::new(), path: PathBuf::new() });
        };
        let text = fs::read_to_string(&path).map_err(|error| {
            Error::failed(
                format!("cannot read the configuration file {}: {error}", path.display()),
                "name another with --config",
            )
        })?;
        let mut file = BTreeMap::new();
        flatten(toml_file::parse(without_mark(&text), &path)?, "", &mut file);
        let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        match file.keys().find(|key| !known.contains(&key.as_str())) {
            Some(unknown) => Err(toml_file::unknown_key(unknown, &known, &path)),
            None => Ok(Self { flags, environment, file, path }),
        }
    }

    /// The value of a setting from the first place that has it.
    pub fn find(&self, setting: &'static Setting) -> Result<Found, Error> {
        if let Some((_, text)) = self.flags.iter().find(|(given, _)| given.key == setting.key) {
            return Ok(Found { setting, text: text.clone(), source: Source::Flag(setting.flag()) });
        }
        if let Some(text) = self.environment.text(setting.variable)? {
            return Ok(Found { setting, text, source: Source::Variable(setting.variable) });
        }
        if let Some(value) = self.file.get(setting.key) {
            return Ok(Found {
                setting,
                text: self.text_of(setting, value)?,
                source: Source::File(self.path.clone()),
            });
        }
        Ok(Found { setting, text: setting.default.to_owned(), source: Source::Default })
    }

    /// The file's value as text, if its TOML type is the one that the setting takes.
    fn text_of(&self, setting: &Setting, value: &Value) -> Result<String, Error> {
        match (setting.kind, value) {
            (Kind::Switch, Value::Boolean(value)) => Ok(value.to_string()),
            (Kind::Count, Value::Integer(value)) => Ok(value.to_string()),
            (
                Kind::Addresses | Kind::Path | Kind::Duration | Kind::Choice(_) | Kind::LogFilter,
                Value::String(value),
            ) => Ok(value.clone()),
            (Kind::Addresses, Value::Array(values)) if values.iter().all(Value::is_str) => {
                Ok(values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","))
            }
            (kind, other) => Err(Error::failed(
                format!(
                    "{} is {} (from {})",
                    setting.key,
                    toml_file::type_name(other),
                    self.path.display()
                ),
                match kind {
                    Kind::Switch | Kind::Count => format!("give {} without quotes", kind.words()),
                    _ => format!("give {}, in quotes", kind.words()),
                },
            )),
        }
    }
}

impl Found {
    /// Parses the value.
    pub fn parse<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Error> {
        parse(&self.text).ok_or_else(|| {
            let next = format!("give {}", self.setting.kind.words());
            self.error(format!("is {:?}", self.text), next)
        })
    }

    /// Parses the value, which must be one of the things that `expected` describes.
    pub fn parse_as<T>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        parse(&self.text)
            .ok_or_else(|| self.error(format!("is {:?}", self.text), format!("give {expected}")))
    }

    /// The error for a value that is not acceptable. It names the setting and where the value stands;
    /// for a flag it is wrong usage.
    pub fn error(&self, problem: impl fmt::Display, next: impl Into<String>) -> Error {
        let problem = format!("{} {problem} (from {})", self.setting.key, self.source);
        match self.source {
            Source::Flag(_) => Error::usage(problem, next),
            Source::Variable(_) | Source::File(_) | Source::Default => Error::failed(problem, next),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("its default"),
        }
    }
}

/// Flattens tables into dotted keys: `format` in `[log]` becomes `log.format`.
fn flatten(table: Table, prefix: &str, into: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(inner, &format!("{key}."), into),
            // An empty table sets nothing, but its name must still be known.
            Value::Table(_)
                if SETTINGS.iter().any(|setting| setting.key.starts_with(&format!("{key}."))) => {}
            leaf => {
                into.insert(key, leaf);
            }
        }
    }
}
