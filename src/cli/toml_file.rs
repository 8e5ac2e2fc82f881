//! TOML files that people write: errors name the file, the line and the nearest known key.

use std::path::Path;

use toml::Table;

use crate::cli::error::Error;
use crate::cli::nearest::nearest;

/// Parses the text of a file. Errors quote none of it: it may hold a secret.
pub fn parse(text: &str, path: &Path) -> Result<Table, Error> {
    text.parse::<Table>().map_err(|error| {
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(1, |before| before.matches('\n').count() + 1);
        Error::failed(
            format!("{} is not TOML: {} on line {line}", path.display(), error.message()),
            "correct the file",
        )
    })
}

/// The error for a key that nobody knows.
pub fn unknown_key(key: &str, known: &[&str], path: &Path) -> Error {
    let next = match nearest(key, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known keys are {}", known.join(", ")),
    };
    Error::failed(format!("unknown key `{key}` in {}", path.display()), next)
}

/// What a value is, for an error about its type.
pub fn type_name(value: &toml::Value) -> &'static str {
    match value {
        toml::Value::String(_) => "a string",
        toml::Value::Integer(_) => "an integer",
        toml::Value::Float(_) => "a fraction",
        toml::Value::Boolean(_) => "true or false",
        toml::Value::Datetime(_) => "a date",
        toml::Value::Array(_) => "a list",
        toml::Value::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["url", "client_id", "client_secret"];

    fn line(error: &Error) -> String {
        error.line().expect("this error has a line")
    }

    #[test]
    fn a_misspelt_key_is_answered_with_the_nearest_known_key_and_a_strange_one_with_all() {
        let path = Path::new("c.toml");
        assert_eq!(
            line(&unknown_key("client_sceret", &KNOWN, path)),
            "countersign: unknown key `client_sceret` in c.toml; did you mean `client_secret`?"
        );
        assert_eq!(
            line(&unknown_key("zzz", &KNOWN, path)),
            "countersign: unknown key `zzz` in c.toml; known keys are url, client_id, client_secret"
        );
    }

    #[test]
    fn a_syntax_error_names_the_line_and_quotes_nothing() {
        assert!(parse("a = 1\n", Path::new("c.toml")).is_ok());
        let error = parse("a = 1\nclient_secret = csec_hush\n", Path::new("c.toml"))
            .expect_err("the string lacks quotes");
        assert!(
            line(&error).contains("c.toml is not TOML") && line(&error).contains("on line 2"),
            "{error:?}"
        );
        assert!(!line(&error).contains("hush"), "{error:?}");
    }
}
