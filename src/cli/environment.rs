//! The environment variables, as a value that tests vary.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::error::Error;

type Lookup = dyn Fn(&str) -> Option<OsString>;

/// Looks up environment variables. An empty variable counts as unset.
pub struct Environment {
    directory: PathBuf,
    variable: Box<Lookup>,
}

impl Environment {
    /// Variables as `lookup` answers for them, `std::env::var_os` for the process's own, in a working
    /// directory, which is "" for the process's own.
    pub fn new(
        directory: impl Into<PathBuf>,
        lookup: impl Fn(&str) -> Option<OsString> + 'static,
    ) -> Self {
        Self { directory: directory.into(), variable: Box::new(lookup) }
    }

    /// The working directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A variable's text.
    ///
    /// # Errors
    /// When it is not UTF-8; the error names the variable, not its value.
    pub fn text(&self, name: &str) -> Result<Option<String>, Error> {
        match self.value(name) {
            Some(value) => value.into_string().map(Some).map_err(|_| {
                Error::failed(format!("{name} is not UTF-8"), "set it to text, or unset it")
            }),
            None => Ok(None),
        }
    }

    /// A variable as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// A file of this program in the configuration directory (XDG Base Directory Specification); `None` without HOME.
    pub fn configuration(&self, file: &str) -> Option<PathBuf> {
        let directory = self
            .path("XDG_CONFIG_HOME")
            .or_else(|| self.path("HOME").map(|home| home.join(".config")))?;
        Some(directory.join("countersign").join(file))
    }

    fn value(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn an_empty_variable_is_unset_and_one_that_is_not_text_is_an_error() {
        let environment = Environment::new("", |name| match name {
            "GOOD" => Some("value".into()),
            "EMPTY" => Some(OsString::new()),
            "BYTES" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        });
        assert_eq!(environment.text("GOOD").expect("it is text").as_deref(), Some("value"));
        assert_eq!(environment.text("EMPTY").expect("it is unset"), None);
        assert_eq!(environment.text("ABSENT").expect("it is unset"), None);
        assert!(matches!(environment.text("BYTES"), Err(Error::Failed(_))));
    }
}
