//! Names for credentials files, so that nobody types their paths: `--context prod`.
//!
//! They are kept in `countersign/contexts.toml` of the configuration directory, which holds paths and no secret.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::environment::Environment;
use crate::cli::error::Error;
use crate::cli::nearest::nearest;

/// The names, and the one that counts when none is given.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, PathBuf>,
}

impl Contexts {
    /// Reads the names. There are none if there is no file.
    ///
    /// # Errors
    /// When the file cannot be read or is malformed, or there is no configuration directory.
    pub fn read(environment: &Environment) -> Result<Self, Error> {
        let Some(path) = environment.configuration("contexts.toml") else {
            let next = "set HOME or XDG_CONFIG_HOME";
            return Err(Error::failed("there is no configuration directory", next));
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                let problem = format!("cannot read {}: {error}", path.display());
                return Err(Error::failed(problem, "correct its permissions"));
            }
        };
        let read: Self = toml::from_str(&text).map_err(|error| {
            let problem = format!("{} is malformed: {}", path.display(), error.message());
            Error::failed(problem, "correct the file, or remove it")
        })?;
        Ok(Self { path, ..read })
    }

    /// The credentials file that a name stands for.
    ///
    /// # Errors
    /// When there is no such name.
    pub fn file(&self, name: &str) -> Result<&Path, Error> {
        self.contexts.get(name).map(PathBuf::as_path).ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let next = match nearest(name, &known) {
                Some(near) => format!("did you mean {near}?"),
                None => "see: countersign context list".to_owned(),
            };
            Error::failed(format!("there is no context {name}"), next)
        })
    }

    /// The name that counts when none is given, and its credentials file.
    pub fn current(&self) -> Option<(&str, &Path)> {
        let current = self.current.as_deref()?;
        self.contexts.get(current).map(|file| (current, file.as_path()))
    }

    /// All names, each with its file and whether it is the current one.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Path, bool)> {
        self.contexts.iter().map(|(name, file)| {
            (name.as_str(), file.as_path(), self.current.as_deref() == Some(name))
        })
    }

    /// Gives a credentials file a name. The first one becomes the current one.
    pub fn add(&mut self, name: &str, file: PathBuf) {
        if self.contexts.is_empty() {
            self.current = Some(name.to_owned());
        }
        self.contexts.insert(name.to_owned(), file);
    }

    /// Makes a name the current one.
    ///
    /// # Errors
    /// When there is no such name.
    pub fn choose(&mut self, name: &str) -> Result<(), Error> {
        self.file(name)?;
        self.current = Some(name.to_owned());
        Ok(())
    }

    /// Forgets a name; its credentials file stays.
    ///
    /// # Errors
    /// When there is no such name.
    pub fn remove(&mut self, name: &str) -> Result<(), Error> {
        self.file(name)?;
        self.contexts.remove(name);
        self.current.take_if(|current| current == name);
        Ok(())
    }

    /// Writes the names down, in one step: whoever reads meanwhile gets the one version or the other.
    ///
    /// # Errors
    /// When the disk does not take them.
    pub fn write(&self) -> Result<(), Error> {
        let text = toml::to_string(self).expect("names and paths in UTF-8 are always TOML");
        let beside = self.path.with_extension("toml.new");
        let directory = self.path.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&beside, text))
            .and_then(|()| fs::rename(&beside, &self.path))
            .map_err(|error| {
                let problem = format!("cannot write {}: {error}", self.path.display());
                Error::failed(problem, "make room for it")
            })
    }
}
