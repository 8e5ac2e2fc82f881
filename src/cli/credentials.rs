//! Whom the commands speak as, and to which server.

mod new_file;

pub use self::new_file::{NewCredentialsFile, point_to};

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use countersign_mesh::claims::Issuer;
use countersign_mesh::keys::SigningKey;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::cli::environment::Environment;
use crate::cli::error::Error;
use crate::cli::secret::Secret;
use crate::cli::toml_file;

/// A client's credentials and the server that knows them.
#[derive(Debug)]
pub struct Credentials {
    /// Where the server is: `http://127.0.0.1:9443`.
    pub url: String,
    /// The client's id.
    pub client_id: String,
    /// What the client proves itself with.
    pub means: Means,
    /// The authorities that vouch for the server, in PEM; the system's if not given.
    pub ca_file: Option<PathBuf>,
    /// Where they were found, for messages.
    pub origin: String,
}

/// What a client proves itself with. `Debug` does not show it.
pub enum Means {
    /// One of its secrets.
    Secret(Secret),
    /// Its private key, with which it signs for this issuer.
    PrivateKey {
        /// The key.
        key: Box<SigningKey>,
        /// The issuer: never what the server calls itself, or another's could have us sign for this one.
        issuer: Issuer,
    },
    /// The certificate of its connections (RFC 8705 §2.1), with its chain and its key, in PEM.
    Certificate {
        /// The certificate and its chain.
        cert: Vec<u8>,
        /// Its key.
        key: Zeroizing<String>,
    },
}

impl fmt::Debug for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret(_) => "Secret([redacted])",
            Self::PrivateKey { .. } => "PrivateKey([redacted])",
            Self::Certificate { .. } => "Certificate([redacted])",
        })
    }
}

impl Credentials {
    /// Finds the credentials: in the file that was named, else in the
    /// environment, else in the configuration directory.
    ///
    /// # Errors
    /// When they are incomplete, contradictory, open to others, or nowhere.
    pub fn find(named: Option<&Path>, environment: &Environment) -> Result<Self, Error> {
        let mut found = Self::find_file_first(named, environment)?;
        found.ca_file = found.ca_file.or_else(|| environment.path(CA_FILE));
        Ok(found)
    }

    fn find_file_first(named: Option<&Path>, environment: &Environment) -> Result<Self, Error> {
        if let Some(path) = named {
            return Self::read(path);
        }
        if let Some(credentials) = Self::from_environment(environment)? {
            return Ok(credentials);
        }
        match default_path(environment) {
            Some(path) if path.exists() => Self::read(&path),
            Some(path) => Err(Error::failed(
                format!(
                    "no credentials: neither --credentials nor {CLIENT_ID} is given, and there is no {}",
                    path.display()
                ),
                "name a credentials file with --credentials",
            )),
            None => Err(Error::failed(
                format!("no credentials: neither --credentials nor {CLIENT_ID} is given, nor HOME"),
                "name a credentials file with --credentials",
            )),
        }
    }

    /// Reads a credentials file, which must be readable by its owner only.
    fn read(path: &Path) -> Result<Self, Error> {
        let text = read_private(path)?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        const KEYS: [&str; 8] = [
            "url",
            "client_id",
            "client_secret",
            "private_key_file",
            "issuer",
            "client_cert_file",
            "client_key_file",
            "ca_file",
        ];

        let mut table = toml_file::parse(text, path)?;
        if let Some(unknown) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(toml_file::unknown_key(unknown, &KEYS, path));
        }
        let mut take_optional = |key: &str| match table.remove(key) {
            Some(toml::Value::String(value)) => Ok(Some(value)),
            Some(other) => Err(Error::failed(
                format!(
                    "`{key}` in {} must be a string, not {}",
                    path.display(),
                    toml_file::type_name(&other)
                ),
                "correct the file",
            )),
            None => Ok(None),
        };
        let lacks =
            |key: &str| Error::failed(format!("{} lacks `{key}`", path.display()), "add it");
        let required = |value: Option<String>, key: &str| value.ok_or_else(|| lacks(key));
        // Beside the file, wherever it is read from.
        let beside = |file: String| path.parent().unwrap_or(Path::new("")).join(file);
        let ca_file = take_optional("ca_file")?.map(beside);
        let origin = path.display().to_string();
        let means = [
            take_optional("client_secret")?,
            take_optional("private_key_file")?,
            take_optional("client_cert_file")?,
        ];
        let key = take_optional("client_key_file")?;
        Ok(Self {
            url: required(take_optional("url")?, "url")?,
            client_id: required(take_optional("client_id")?, "client_id")?,
            means: match (means, key) {
                ([Some(secret), None, None], None) => Means::Secret(Secret::new(secret)),
                ([None, Some(key), None], None) => {
                    let issuer = required(take_optional("issuer")?, "issuer")?;
                    private_key(&beside(key), &issuer, &origin)?
                }
                ([None, None, Some(cert)], key) => {
                    let key = required(key, "client_key_file")?;
                    certificate(&beside(cert), &beside(key))?
                }
                ([None, None, None], None) => return Err(lacks("client_secret")),
                ([None, None, None], Some(_)) => return Err(lacks("client_cert_file")),
                _ => {
                    return Err(Error::failed(
                        format!(
                            "{origin} has more than one of `client_secret`, `private_key_file` and \
                             `client_cert_file` with `client_key_file`"
                        ),
                        "remove one of them",
                    ));
                }
            },
            ca_file,
            origin,
        })
    }

    /// All three or none: a URL from here must not send the secret of a file to some other server.
    fn from_environment(environment: &Environment) -> Result<Option<Self>, Error> {
        let found = [URL, CLIENT_ID, CLIENT_SECRET].map(|name| variable_or_file(environment, name));
        let key = environment.path(CLIENT_KEY_FILE);
        let cert = environment.path(CLIENT_CERT_FILE);
        if cert.is_some() && key.is_none() {
            return Err(Error::failed(
                format!("{CLIENT_CERT_FILE} is set without {CLIENT_KEY_FILE}"),
                format!("set {CLIENT_KEY_FILE} to the file of its key"),
            ));
        }
        match (found, key) {
            ([Ok(None), Ok(None), Ok(None)], None) => Ok(None),
            ([_, _, Ok(Some(_))], Some(_)) => Err(Error::failed(
                format!("both {CLIENT_SECRET} and {CLIENT_KEY_FILE} are set"),
                "unset one of them",
            )),
            ([url, client_id, client_secret], key) => {
                let required = |value: Result<Option<String>, Error>, name: &str| {
                    value?.ok_or_else(|| {
                        Error::failed(
                            format!(
                                "the environment holds part of the credentials, but not {name}"
                            ),
                            match name {
                                ISSUER => format!("set {name} to the issuer's name"),
                                _ => format!("set {name} or {name}_FILE"),
                            },
                        )
                    })
                };
                Ok(Some(Self {
                    url: required(url, URL)?,
                    client_id: required(client_id, CLIENT_ID)?,
                    means: match (key, cert) {
                        (Some(key), Some(cert)) => certificate(&cert, &key)?,
                        (Some(key), None) => {
                            let issuer = required(environment.text(ISSUER), ISSUER)?;
                            private_key(&key, &issuer, "the environment")?
                        }
                        (None, _) => {
                            Means::Secret(Secret::new(required(client_secret, CLIENT_SECRET)?))
                        }
                    },
                    ca_file: None,
                    origin: "the environment".to_owned(),
                }))
            }
        }
    }
}

/// Reads a certificate and its key, which must be readable by its owner only.
fn certificate(cert: &Path, key: &Path) -> Result<Means, Error> {
    let unusable = |path: &Path, problem: &dyn fmt::Display| {
        Error::failed(format!("cannot use {}: {problem}", path.display()), "give a file in PEM")
    };
    let pem = fs::read(cert).map_err(|error| unusable(cert, &error))?;
    if CertificateDer::from_pem_slice(&pem).is_err() {
        return Err(unusable(cert, &"there is no certificate in it"));
    }
    let key_pem = read_private(key)?;
    if PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).is_err() {
        return Err(unusable(key, &"there is no private key in it"));
    }
    Ok(Means::Certificate { cert: pem, key: key_pem })
}

/// Reads a private key, which must be readable by its owner only.
fn private_key(path: &Path, issuer: &str, origin: &str) -> Result<Means, Error> {
    let issuer = Issuer::new(issuer).map_err(|error| {
        Error::failed(format!("the issuer in {origin}: {error}"), "give the server's issuer")
    })?;
    let key = SigningKey::from_file_text(&read_private(path)?).map_err(|error| {
        Error::failed(
            format!("{}: {error}", path.display()),
            "give a file that this writes: openssl genpkey -algorithm ed25519",
        )
    })?;
    Ok(Means::PrivateKey { key: Box::new(key), issuer })
}

/// The text of a file that only its owner can read.
fn read_private(path: &Path) -> Result<Zeroizing<String>, Error> {
    let unreadable = |error: io::Error| {
        Error::failed(
            format!("cannot read {}: {error}", path.display()),
            "name a credentials file with --credentials",
        )
    };
    let mut file = File::open(path).map_err(unreadable)?;
    // Of the open file, not of the path, which could be another one by now.
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Error::failed(
            format!("{} can be read by others (mode {:04o})", path.display(), mode & 0o7777),
            format!("run: chmod 600 {}", shell_word(path)),
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

const URL: &str = "COUNTERSIGN_URL";
const CLIENT_ID: &str = "COUNTERSIGN_CLIENT_ID";
const CLIENT_SECRET: &str = "COUNTERSIGN_CLIENT_SECRET";
const CA_FILE: &str = "COUNTERSIGN_CA_FILE";
const CLIENT_KEY_FILE: &str = "COUNTERSIGN_CLIENT_KEY_FILE";
const CLIENT_CERT_FILE: &str = "COUNTERSIGN_CLIENT_CERT_FILE";
const ISSUER: &str = "COUNTERSIGN_ISSUER";

/// The value of a variable, or the trimmed content of the file that `NAME_FILE` names.
fn variable_or_file(environment: &Environment, name: &str) -> Result<Option<String>, Error> {
    let file_variable = format!("{name}_FILE");
    match (environment.text(name)?, environment.path(&file_variable)) {
        (Some(_), Some(_)) => Err(Error::failed(
            format!("both {name} and {file_variable} are set"),
            "unset one of them",
        )),
        (Some(value), None) => Ok(Some(value)),
        (None, Some(path)) => {
            let text = fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| {
                Error::failed(
                    format!("cannot read {} (from {file_variable}): {error}", path.display()),
                    "correct it",
                )
            })?;
            match text.trim() {
                "" => Err(Error::failed(
                    format!("{} (from {file_variable}) is empty", path.display()),
                    "fill it",
                )),
                value => Ok(Some(value.to_owned())),
            }
        }
        (None, None) => Ok(None),
    }
}

fn default_path(environment: &Environment) -> Option<PathBuf> {
    let directory = environment
        .path("XDG_CONFIG_HOME")
        .or_else(|| environment.path("HOME").map(|home| home.join(".config")))?;
    Some(directory.join("countersign/credentials.toml"))
}

/// The path as one word of a shell command.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::*;

    const COMPLETE: &str =
        "url = \"http://127.0.0.1:1\"\nclient_id = \"cron\"\nclient_secret = \"csec_hush\"\n";

    fn directory() -> TempDir {
        tempfile::tempdir().expect("the temp directory is writable")
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::create_dir_all(path.parent().expect("a file has a parent")).expect("it is ours");
        fs::write(path, text).expect("it is ours");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables: BTreeMap<String, String> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Environment::new(move |name| variables.get(name).map(Into::into))
    }

    fn refusal(found: Result<Credentials, Error>) -> String {
        found.expect_err("these are no good").line().expect("it says something")
    }

    fn secret(credentials: &Credentials) -> &str {
        match &credentials.means {
            Means::Secret(secret) => secret.expose(),
            other => panic!("it has {other:?}"),
        }
    }

    #[test]
    fn a_private_key_takes_the_place_of_the_secret() {
        // RFC 8410 §10.3.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let directory = directory();
        let (path, key) = (directory.path().join("c.toml"), directory.path().join("cron.key"));
        let complete = "url = \"u\"\nclient_id = \"cron\"\nprivate_key_file = \"cron.key\"\n\
            issuer = \"https://issuer.test\"\n";
        let find = || Credentials::find(Some(&path), &environment(&[]));
        write(&key, pem, 0o600);
        write(&path, complete, 0o600);
        let found = find().expect("the key is beside the file");
        assert!(!format!("{found:?}").contains("MC4C"));
        let Means::PrivateKey { issuer, .. } = found.means else { panic!("it has a secret") };
        assert_eq!(issuer.as_str(), "https://issuer.test");

        let file = key.to_str().expect("temp paths are text");
        let base = [(URL, "u"), (CLIENT_ID, "cron"), (CLIENT_KEY_FILE, file)];
        let with = |more: &[(&str, &str)]| {
            Credentials::find(None, &environment(&[&base[..], more].concat()))
        };
        let issuer = (ISSUER, "https://issuer.test");
        assert!(matches!(with(&[issuer]).expect("complete").means, Means::PrivateKey { .. }));
        assert!(refusal(with(&[])).contains("but not COUNTERSIGN_ISSUER"));
        assert!(refusal(with(&[(ISSUER, "me")])).contains("not a valid issuer"));
        assert!(refusal(with(&[issuer, (CLIENT_SECRET, "s")])).contains("unset one of them"));

        write(&key, pem, 0o644);
        assert!(refusal(find()).contains("chmod 600"));
        write(&key, "noise", 0o600);
        assert!(refusal(find()).contains("openssl genpkey"));
        write(&path, &complete.replace("issuer", "isuer"), 0o600);
        assert!(refusal(find()).ends_with("did you mean `issuer`?"));
        write(&path, &complete.replace("issuer =", "client_secret ="), 0o600);
        assert!(refusal(find()).contains("remove one of them"));
        let (without, _) = complete.split_once("issuer").expect("it is in it");
        write(&path, without, 0o600);
        assert!(refusal(find()).contains("lacks `issuer`"));
    }

    #[test]
    fn a_certificate_and_its_key_take_the_place_of_the_secret() {
        let made = rcgen::generate_simple_self_signed(["cron.example".to_owned()]).expect("made");
        let directory = directory();
        let at = |name: &str| directory.path().join(name);
        write(&at("cron.crt"), &made.cert.pem(), 0o644);
        write(&at("cron.key"), &made.signing_key.serialize_pem(), 0o600);
        let complete = "url = \"https://u\"\nclient_id = \"cron\"\n\
            client_cert_file = \"cron.crt\"\nclient_key_file = \"cron.key\"\n";
        let path = at("c.toml");
        let find = |text: &str| {
            write(&path, text, 0o600);
            Credentials::find(Some(&path), &environment(&[]))
        };
        let found = find(complete).expect("both are beside the file");
        assert!(matches!(found.means, Means::Certificate { .. }));
        assert!(!format!("{found:?}").contains("PRIVATE"));
        let twice = format!("{complete}client_secret = \"csec_hush\"\n");
        assert!(refusal(find(&twice)).ends_with("remove one of them"));
        let (without_key, _) = complete.split_once("client_key_file").expect("it is in it");
        assert!(refusal(find(without_key)).contains("lacks `client_key_file`"));
        let without_cert = complete.replace("client_cert_file = \"cron.crt\"\n", "");
        assert!(refusal(find(&without_cert)).contains("lacks `client_cert_file`"));
        let swapped = complete.replace("cron.crt", "cron.key");
        assert!(refusal(find(&swapped)).contains("no certificate in it"));

        let (cert, key) = (at("cron.crt"), at("cron.key"));
        let (cert, key) = (cert.to_str().expect("text"), key.to_str().expect("text"));
        let base = [(URL, "https://u"), (CLIENT_ID, "cron"), (CLIENT_CERT_FILE, cert)];
        let with = |more: &[(&str, &str)]| {
            Credentials::find(None, &environment(&[&base[..], more].concat()))
        };
        let found = with(&[(CLIENT_KEY_FILE, key)]).expect("complete");
        assert!(matches!(found.means, Means::Certificate { .. }));
        assert!(refusal(with(&[])).contains("without COUNTERSIGN_CLIENT_KEY_FILE"));
        write(&at("cron.key"), &made.signing_key.serialize_pem(), 0o640);
        assert!(refusal(find(complete)).contains("chmod 600"));
    }

    #[test]
    fn a_named_file_wins_over_the_environment() {
        let directory = directory();
        let path = directory.path().join("c.toml");
        write(&path, COMPLETE, 0o600);
        let environment = environment(&[(URL, "u"), (CLIENT_ID, "other"), (CLIENT_SECRET, "s")]);
        let found = Credentials::find(Some(&path), &environment).expect("the file is good");
        assert_eq!((found.client_id.as_str(), secret(&found)), ("cron", "csec_hush"));
        assert_eq!(Credentials::find(None, &environment).expect("complete").client_id, "other");
    }

    #[test]
    fn the_authority_is_that_of_the_file_and_else_of_the_environment() {
        let directory = directory();
        let (with, without) = (directory.path().join("c.toml"), directory.path().join("d.toml"));
        write(&with, &format!("{COMPLETE}ca_file = \"/ca.pem\"\n"), 0o600);
        write(&without, COMPLETE, 0o600);
        let environment = environment(&[(CA_FILE, "/env.pem")]);
        let found = |path: &Path| Credentials::find(Some(path), &environment).expect("good");
        assert_eq!(found(&with).ca_file, Some(PathBuf::from("/ca.pem")));
        assert_eq!(found(&without).ca_file, Some(PathBuf::from("/env.pem")));
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_command_to_run() {
        let directory = directory();
        let path = directory.path().join("my file.toml");
        for mode in [0o640, 0o604, 0o666] {
            write(&path, COMPLETE, mode);
            let line = refusal(Credentials::find(Some(&path), &environment(&[])));
            assert!(line.ends_with(&format!("run: chmod 600 '{}'", path.display())), "{line}");
        }
        write(&path, COMPLETE, 0o400);
        assert!(Credentials::find(Some(&path), &environment(&[])).is_ok());
    }

    #[test]
    fn keys_must_be_known_complete_and_strings() {
        let parse = |text: &str| Credentials::parse(text, Path::new("c.toml"));
        assert!(parse(COMPLETE).is_ok());
        let ca_file = |path: &str| {
            let text = format!("{COMPLETE}ca_file = \"ca.pem\"\n");
            Credentials::parse(&text, Path::new(path)).expect("complete").ca_file
        };
        assert_eq!(ca_file("c.toml"), Some(PathBuf::from("ca.pem")));
        assert_eq!(ca_file("/etc/c/c.toml"), Some(PathBuf::from("/etc/c/ca.pem")));
        assert!(refusal(parse(&COMPLETE.replace("url", "ulr"))).ends_with("did you mean `url`?"));
        assert!(refusal(parse("url = \"u\"\n")).contains("c.toml lacks `client_id`"));
        assert!(
            refusal(parse(&COMPLETE.replace("\"cron\"", "7")))
                .contains("must be a string, not an integer")
        );
    }

    #[test]
    fn the_environment_holds_all_or_nothing() {
        let line =
            refusal(Credentials::find(None, &environment(&[(CLIENT_ID, "cron"), (URL, "u")])));
        assert!(line.contains("but not COUNTERSIGN_CLIENT_SECRET"), "{line}");
        let line = refusal(Credentials::find(None, &environment(&[])));
        assert!(line.contains("no credentials"), "{line}");
    }

    #[test]
    fn a_file_variable_is_trimmed_and_excludes_the_plain_one() {
        let directory = directory();
        let path = directory.path().join("secret");
        write(&path, "csec_hush\n", 0o644);
        let file = path.to_str().expect("temp paths are text");
        let base = [(URL, "u"), (CLIENT_ID, "cron"), ("COUNTERSIGN_CLIENT_SECRET_FILE", file)];
        let found = Credentials::find(None, &environment(&base)).expect("complete");
        assert_eq!(secret(&found), "csec_hush");

        let both = [&base[..], &[(CLIENT_SECRET, "s")]].concat();
        assert!(
            refusal(Credentials::find(None, &environment(&both)))
                .contains("both COUNTERSIGN_CLIENT_SECRET and")
        );
        write(&path, "\n", 0o644);
        assert!(refusal(Credentials::find(None, &environment(&base))).contains("is empty"));
    }

    #[test]
    fn the_configuration_directory_comes_last() {
        let directory = directory();
        let root = directory.path().to_str().expect("temp paths are text");
        write(&directory.path().join(".config/countersign/credentials.toml"), COMPLETE, 0o600);
        let home = Credentials::find(None, &environment(&[("HOME", root)])).expect("it is there");
        assert_eq!(home.client_id, "cron");
        let elsewhere = environment(&[("HOME", root), ("XDG_CONFIG_HOME", "/nonexistent")]);
        assert!(
            refusal(Credentials::find(None, &elsewhere))
                .contains("/nonexistent/countersign/credentials.toml")
        );
    }

    #[test]
    fn what_is_written_reads_back_and_nothing_is_overwritten() {
        let directory = directory();
        let path = directory.path().join("new.toml");
        let text = "csec_\"hush\\";
        let given = Secret::new(text.to_owned());
        NewCredentialsFile::create(&path)
            .expect("nothing is there")
            .write("u", "cron", &given)
            .expect("there is room");
        let found = Credentials::find(Some(&path), &environment(&[])).expect("its mode is 0600");
        assert_eq!(secret(&found), text);
        assert!(matches!(NewCredentialsFile::create(&path), Err(Error::Failed(_))));

        let abandoned = directory.path().join("abandoned.toml");
        let mut file = NewCredentialsFile::create(&abandoned).expect("nothing is there");
        file.fill("u", "cron", &given).expect("there is room");
        assert!(abandoned.exists());
        drop(file);
        assert!(!abandoned.exists());
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let found = Credentials::parse(COMPLETE, Path::new("c.toml")).expect("complete");
        assert!(!format!("{found:?}").contains("hush"));
    }
}
