//! The file that `countersign client create --out` writes: where a server is, who we are there, and one
//! of our secrets.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use toml::{Table, Value};
use zeroize::Zeroizing;

use crate::session::reach::error::CredentialsError;

/// The largest file that is read.
const MAX_FILE: u64 = 16 * 1024;

const KEYS: [&str; 5] = ["url", "client_id", "client_secret", "issuer", "ca_file"];

/// What such a file holds. Its names are those of some issuer, and not checked yet.
pub(crate) struct CredentialsFile {
    pub(crate) url: String,
    pub(crate) client_id: String,
    client_secret: Zeroizing<String>,
    pub(crate) issuer: Option<String>,
    ca_file: Option<String>,
}

impl CredentialsFile {
    /// The authorities that vouch for the server, in PEM, if the file names any: beside itself, unless it
    /// says otherwise.
    pub(crate) fn authorities(&self, path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
        let Some(ca_file) = &self.ca_file else { return Ok(None) };
        let ca_file = path.parent().unwrap_or(Path::new("")).join(ca_file);
        let pem = std::fs::read(&ca_file);
        pem.map(Some).map_err(|error| CredentialsError::Unreadable(ca_file, error))
    }
}

/// Reads a credentials file, which must be its owner's only.
pub(crate) fn read(path: &Path) -> Result<CredentialsFile, CredentialsError> {
    let unreadable = |error: io::Error| CredentialsError::Unreadable(path.to_owned(), error);
    let mut file = File::open(path).map_err(unreadable)?;
    // Of the open file, not of the path, which could be another one by now.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(CredentialsError::OpenToOthers(path.to_owned(), mode & 0o7777));
    }
    let mut text = Zeroizing::new(String::new());
    (&mut file).take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
    // A file that is being written can be empty for a moment.
    if text.trim().is_empty() {
        return Err(CredentialsError::Empty(path.to_owned()));
    }
    parse(&text).map_err(|problem| CredentialsError::BadFile(path.to_owned(), problem))
}

/// Only the secret: what a file says about the rest was settled when it was read first.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, CredentialsError> {
    read(path).map(|file| file.client_secret)
}

/// What is wrong is told without quoting any of it.
fn parse(text: &str) -> Result<CredentialsFile, String> {
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("is not TOML: {} on line {line}", error.message())
    })?;
    if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("has the unknown key `{unknown}`; known are {}", KEYS.join(", ")));
    }
    let mut optional = |key: &str| match table.remove(key) {
        Some(Value::String(value)) => Ok(Some(value)),
        Some(_) => Err(format!("has a `{key}` that is not a string")),
        None => Ok(None),
    };
    let (issuer, ca_file) = (optional("issuer")?, optional("ca_file")?);
    let mut take = |key: &str| optional(key)?.ok_or_else(|| format!("lacks `{key}`"));
    let client_secret = Zeroizing::new(take("client_secret")?);
    let (url, client_id) = (take("url")?, take("client_id")?);
    Ok(CredentialsFile { url, client_id, client_secret, issuer, ca_file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_complete_or_says_what_is_wrong_without_quoting_the_secret() {
        let complete =
            "url = \"http://127.0.0.1:1\"\nclient_id = \"cron\"\nclient_secret = \"csec_hush\"\n";
        let file = parse(complete).expect("it is complete");
        assert_eq!((file.url.as_str(), file.client_id.as_str()), ("http://127.0.0.1:1", "cron"));
        assert_eq!(file.client_secret.as_str(), "csec_hush");

        for (text, problem) in [
            (complete.replace("url", "ulr"), "unknown key `ulr`"),
            (complete.replace("client_id = \"cron\"\n", ""), "lacks `client_id`"),
            (complete.replace("\"csec_hush\"", "7"), "`client_secret` that is not a string"),
            (complete.replace("\"csec_hush\"", "csec_hush"), "on line 3"),
        ] {
            let told = parse(&text).err().expect("it is no good");
            assert!(told.contains(problem) && !told.contains("hush"), "{told}");
        }
    }
}
