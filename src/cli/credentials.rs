//! Which client the commands act as, and which server they call. This module finds the file or the
//! variables that say so, and turns what is wrong with them into advice. `SessionBuilder` of
//! `countersign-mesh` does the reading.

mod new_file;

pub use self::new_file::{NewCredentialsFile, point_to};

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use countersign_mesh::internals::{CredentialsFile, Proves, read_private};
use countersign_mesh::session::{
    CredentialsError, CredentialsFileProblem, SessionBuilder, SessionError,
};

use crate::cli::contexts::Contexts;
use crate::cli::environment::Environment;
use crate::cli::error::Error;
use crate::cli::toml_file;

/// A client's credentials and the server that knows them.
#[derive(Debug)]
pub struct Credentials {
    /// Connects to the server as the client.
    pub builder: SessionBuilder,
    /// Where the server is: `http://127.0.0.1:9443`.
    pub url: String,
    /// Where they were found, for messages.
    pub origin: String,
    /// Whether nobody named them: `serve --dev` has written them into this directory, or they are the current context's.
    pub unasked: bool,
    /// The file with the certificate authorities that vouch for the server; `None` for the system's.
    ca_file: Option<PathBuf>,
}

/// Which of the clients that `serve --dev` makes a command speaks as, when nobody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevClient {
    /// The one that has tokens to show.
    Demo,
    /// The one that may do everything.
    Operator,
}

impl DevClient {
    /// The file with its credentials, from where `serve --dev` was started.
    fn file(self) -> &'static str {
        match self {
            Self::Demo => "countersign-dev/demo.toml",
            Self::Operator => "countersign-dev/operator.toml",
        }
    }
}

const CREDENTIALS: &str = "COUNTERSIGN_CREDENTIALS";
const CONTEXT: &str = "COUNTERSIGN_CONTEXT";
const URL: &str = "COUNTERSIGN_URL";
const CLIENT_ID: &str = "COUNTERSIGN_CLIENT_ID";
const CLIENT_SECRET: &str = "COUNTERSIGN_CLIENT_SECRET";
const CA_FILE: &str = "COUNTERSIGN_CA_FILE";
const CLIENT_KEY_FILE: &str = "COUNTERSIGN_CLIENT_KEY_FILE";
const CLIENT_CERT_FILE: &str = "COUNTERSIGN_CLIENT_CERT_FILE";
const ISSUER: &str = "COUNTERSIGN_ISSUER";

/// If any of these variables is set, the environment counts as holding credentials.
const IDENTITY: [&str; 8] = [
    URL,
    "COUNTERSIGN_URL_FILE",
    CLIENT_ID,
    "COUNTERSIGN_CLIENT_ID_FILE",
    CLIENT_SECRET,
    "COUNTERSIGN_CLIENT_SECRET_FILE",
    CLIENT_KEY_FILE,
    CLIENT_CERT_FILE,
];

impl Credentials {
    /// Finds the credentials: in the file that was named, else in the environment, else those of `dev_client`
    /// where `serve --dev` keeps them, else in the configuration directory.
    ///
    /// # Errors
    /// When they are incomplete, contradictory, open to others, or nowhere.
    pub fn find(
        named: Option<&Path>,
        dev_client: DevClient,
        environment: &Environment,
    ) -> Result<Self, Error> {
        if let Some(path) = named {
            return Self::of_file(path, environment);
        }
        if let Some(path) = environment.path(CREDENTIALS) {
            // Credentials of one server must not go to the address of another.
            for name in IDENTITY {
                if environment.text(name)?.is_some() {
                    return Err(explain(&CredentialsError::Contradictory(CREDENTIALS, name)));
                }
            }
            return Self::of_file(&path, environment);
        }
        if let Some(name) = environment.text(CONTEXT)? {
            return Self::of_file(Contexts::read(environment)?.file(&name)?, environment);
        }
        if let Some(credentials) = Self::of_environment(environment)? {
            return Ok(credentials);
        }
        let dev = environment.directory().join(dev_client.file());
        if dev.exists() {
            return Ok(Self { unasked: true, ..Self::of_file(&dev, environment)? });
        }
        let contexts = match environment.configuration("contexts.toml") {
            Some(path) if path.exists() => Contexts::read(environment)?,
            _ => Contexts::default(),
        };
        if let Some((name, path)) = contexts.current() {
            let found = Self::of_file(path, environment)?;
            let origin = format!("{} (context {name})", found.origin);
            return Ok(Self { unasked: true, origin, ..found });
        }
        let nowhere = match environment.configuration("credentials.toml") {
            Some(path) if path.exists() => return Self::of_file(&path, environment),
            Some(path) => format!("and there is no {}", path.display()),
            None => "nor HOME".to_owned(),
        };
        Err(Error::failed(
            format!("no credentials: neither --credentials nor {CREDENTIALS} is given, {nowhere}"),
            format!(
                "name a credentials file with --credentials, or run this where {} is",
                dev_client.file()
            ),
        ))
    }

    fn of_file(path: &Path, environment: &Environment) -> Result<Self, Error> {
        let mut file = CredentialsFile::read(path).map_err(|error| explain(&error))?;
        if let Proves::PrivateKeyFile(key) | Proves::CertificateFiles { key, .. } = &file.proves {
            keep_private(key)?;
        }
        let (origin, url) = (path.display().to_string(), file.url.clone());
        let ca_file = file.ca_file.take().or_else(|| environment.path(CA_FILE));
        let builder = SessionBuilder::of_credentials_file(&file);
        Self::new(builder, url, origin, ca_file)
    }

    /// All of the credentials, or none of them. URL and secret never come from different places: a URL
    /// from the environment must not receive the secret of a file.
    fn of_environment(environment: &Environment) -> Result<Option<Self>, Error> {
        let mut values = BTreeMap::new();
        for name in IDENTITY {
            values.extend(environment.text(name)?.map(|value| (name, value)));
        }
        if values.is_empty() {
            return Ok(None);
        }
        values.extend(environment.text(ISSUER)?.map(|issuer| (ISSUER, issuer)));
        if let Some(key) = values.get(CLIENT_KEY_FILE) {
            keep_private(Path::new(key))?;
        }
        let builder = SessionBuilder::from_variables(&|name| values.get(name).cloned());
        let url = builder.as_ref().map(|builder| builder.url().to_owned()).unwrap_or_default();
        let ca_file = environment.path(CA_FILE);
        Self::new(builder, url, "the environment".to_owned(), ca_file).map(Some)
    }

    fn new(
        builder: Result<SessionBuilder, SessionError>,
        url: String,
        origin: String,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let builder =
            builder.map_err(|error| unusable(&error, &url, &origin, ca_file.as_deref()))?;
        let builder = match &ca_file {
            Some(path) => builder
                .ca_certificate(&fs::read(path).map_err(|error| no_authorities(path, &error))?),
            None => builder,
        };
        Ok(Self { builder, url, origin, unasked: false, ca_file })
    }

    /// The error for credentials with which no connection can be made.
    pub fn unusable(&self, error: &SessionError) -> Error {
        unusable(error, &self.url, &self.origin, self.ca_file.as_deref())
    }
}

/// What is wrong with credentials found in `origin`, and what to do.
fn unusable(error: &SessionError, url: &str, origin: &str, ca_file: Option<&Path>) -> Error {
    match error {
        SessionError::Credentials(error) => explain(error),
        // The URL is not quoted: it may hold a password.
        SessionError::BadUrl(_) => Error::failed(
            format!("the url in {origin} is not the address of a server"),
            "give one like http://127.0.0.1:9443, without a path and a user name",
        ),
        SessionError::Plaintext(_) => Error::failed(
            format!("{url} is off loopback, where plaintext would show the secret"),
            "use an https:// url, or give --insecure-plaintext if something else encrypts",
        ),
        SessionError::CertificateInPlaintext => Error::failed(
            format!(
                "the url in {origin} is plaintext, and a certificate is presented over TLS only"
            ),
            "use an https:// url",
        ),
        SessionError::BadCertificate => {
            no_authorities(ca_file.unwrap_or(Path::new(origin)), &"there is no certificate in it")
        }
        SessionError::NoAuthorities => Error::failed(
            "the system's certificate authorities cannot be used",
            "install them, or name a file of them in SSL_CERT_FILE",
        ),
        SessionError::BadClientCertificate => Error::failed(
            format!("the client certificate or its key that {origin} names cannot be used"),
            "give both in PEM, and see whether they belong together",
        ),
        SessionError::BadIssuer => {
            Error::failed(error.to_string(), format!("set {ISSUER} to the issuer's name"))
        }
        SessionError::Unreadable(..)
        | SessionError::BadWhenStale
        | SessionError::TrustFileWithoutIssuer => Error::failed(error.to_string(), "correct it"),
    }
}

/// What is wrong with what the client proves itself with, and what to do.
pub fn explain(error: &CredentialsError) -> Error {
    let next = match error {
        CredentialsError::OpenToOthers(path, mode) => {
            return Error::failed(
                format!("{} can be read by others (mode {mode:04o})", path.display()),
                format!("run: chmod 600 {}", shell_word(path)),
            );
        }
        CredentialsError::BadFile(path, problem) => return bad_file(path, problem),
        CredentialsError::Missing(name) => {
            return partial(name, format!("set {name} or {name}_FILE"));
        }
        CredentialsError::KeyWithoutIssuer => {
            return partial(ISSUER, format!("set {ISSUER} to the issuer's name"));
        }
        CredentialsError::Contradictory(one, other) => {
            return Error::failed(format!("both {one} and {other} are set"), "unset one of them");
        }
        CredentialsError::SecretAndKey => {
            return Error::failed(
                format!("both {CLIENT_SECRET} and {CLIENT_KEY_FILE} are set"),
                "unset one of them",
            );
        }
        CredentialsError::CertificateWithoutKey => "set it to the file of the certificate's key",
        CredentialsError::BadClientId => "correct it",
        CredentialsError::Unreadable(..) => {
            "correct its name, or name a credentials file with --credentials"
        }
        CredentialsError::Empty(_) => "fill it",
        CredentialsError::BadKey(..) => {
            "give a file that this writes: openssl genpkey -algorithm ed25519"
        }
        CredentialsError::NoRandomness => "try again",
    };
    Error::failed(error.to_string(), next)
}

fn bad_file(path: &Path, problem: &CredentialsFileProblem) -> Error {
    let next = match problem {
        CredentialsFileProblem::UnknownKey(key, known) => {
            return toml_file::unknown_key(key, known, path);
        }
        CredentialsFileProblem::Lacks(_) => "add it",
        CredentialsFileProblem::ProvesTwice => "remove one of them",
        CredentialsFileProblem::NotToml(..)
        | CredentialsFileProblem::NotAString(_)
        | CredentialsFileProblem::BadName(_) => "correct the file",
    };
    Error::failed(format!("{} {problem}", path.display()), next)
}

fn partial(lacking: &str, next: String) -> Error {
    Error::failed(format!("the environment holds part of the credentials, but not {lacking}"), next)
}

fn no_authorities(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::failed(
        format!("the certificate authorities in {} cannot be used: {why}", path.display()),
        "correct ca_file or COUNTERSIGN_CA_FILE",
    )
}

/// Refuses a private key that others can read: with it they can act as the client.
fn keep_private(key: &Path) -> Result<(), Error> {
    read_private(key).map(drop).map_err(|error| explain(&error))
}

/// The path as one word of a shell command.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::cli::connection::{Connection, Plaintext};
    use crate::cli::secret::Secret;

    const COMPLETE: &str =
        "url = \"http://127.0.0.1:1\"\nclient_id = \"cron\"\nclient_secret = \"csec_hush\"\n";

    fn directory() -> TempDir {
        tempfile::tempdir().expect("the temp directory is writable")
    }

    fn write(path: &Path, text: &str, mode: u32) {
        fs::create_dir_all(path.parent().expect("a file has a parent"))
            .expect("the test owns its directory");
        fs::write(path, text).expect("the test owns its directory");
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .expect("the test owns its directory");
    }

    fn find(named: Option<&Path>, environment: &Environment) -> Result<Credentials, Error> {
        Credentials::find(named, DevClient::Operator, environment)
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        environment_in(Path::new("/nonexistent"), variables)
    }

    fn environment_in(directory: &Path, variables: &[(&str, &str)]) -> Environment {
        let variables: BTreeMap<String, String> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Environment::new(directory, move |name| variables.get(name).map(Into::into))
    }

    /// The error line for credentials that cannot be used. Some fail when they are found, others when a
    /// connection is made with them; in both cases nothing has been sent.
    fn refusal(found: Result<Credentials, Error>) -> String {
        let unusable = |credentials: Credentials| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let opened = runtime
                .expect("a runtime")
                .block_on(Connection::open(credentials, Plaintext::OnLoopback));
            opened.map(drop).expect_err("nobody answers there")
        };
        found.map_or_else(|error| error, unusable).line().expect("this error has a line")
    }

    fn url(found: Result<Credentials, Error>) -> String {
        found.expect("they are complete").url
    }

    #[test]
    fn a_private_key_takes_the_place_of_the_secret() {
        // RFC 8410 §10.3.
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let directory = directory();
        let (path, key) = (directory.path().join("c.toml"), directory.path().join("cron.key"));
        let complete = "url = \"http://127.0.0.1:1\"\nclient_id = \"cron\"\nprivate_key_file = \"cron.key\"\n\
            issuer = \"https://issuer.test\"\n";
        let found = || find(Some(&path), &environment(&[]));
        write(&key, pem, 0o600);
        write(&path, complete, 0o600);
        assert!(refusal(found()).contains("cannot reach"), "the key is beside the file");

        let file = key.to_str().expect("temp paths are text");
        let base = [(URL, "http://127.0.0.1:1"), (CLIENT_ID, "cron"), (CLIENT_KEY_FILE, file)];
        let with = |more: &[(&str, &str)]| find(None, &environment(&[&base[..], more].concat()));
        let issuer = (ISSUER, "https://issuer.test");
        assert!(refusal(with(&[issuer])).contains("cannot reach"));
        assert!(refusal(with(&[])).contains("but not COUNTERSIGN_ISSUER"));
        assert!(refusal(with(&[(ISSUER, "me")])).contains("COUNTERSIGN_ISSUER is not"));
        assert!(refusal(with(&[issuer, (CLIENT_SECRET, "s")])).contains("unset one of them"));

        write(&key, pem, 0o644);
        assert!(refusal(found()).contains("chmod 600"));
        write(&key, "noise", 0o600);
        assert!(refusal(found()).contains("openssl genpkey"));
        write(&path, &complete.replace("issuer", "isuer"), 0o600);
        assert!(refusal(found()).ends_with("did you mean `issuer`?"));
        write(&path, &complete.replace("issuer =", "client_secret ="), 0o600);
        assert!(refusal(found()).contains("remove one of them"));
        let (without, _) = complete.split_once("issuer").expect("the text holds it");
        write(&path, without, 0o600);
        assert!(refusal(found()).contains("lacks `issuer`"));
    }

    #[test]
    fn a_certificate_and_its_key_take_the_place_of_the_secret() {
        let made = rcgen::generate_simple_self_signed(["cron.example".to_owned()]).expect("made");
        let directory = directory();
        let at = |name: &str| directory.path().join(name);
        write(&at("cron.crt"), &made.cert.pem(), 0o644);
        write(&at("cron.key"), &made.signing_key.serialize_pem(), 0o600);
        let complete = "url = \"https://127.0.0.1:1\"\nclient_id = \"cron\"\n\
            client_cert_file = \"cron.crt\"\nclient_key_file = \"cron.key\"\n";
        let path = at("c.toml");
        let found = |text: &str| {
            write(&path, text, 0o600);
            find(Some(&path), &environment(&[]))
        };
        let there = found(complete).expect("both are beside the file");
        assert!(!format!("{there:?}").contains("PRIVATE"));
        let twice = format!("{complete}client_secret = \"csec_hush\"\n");
        assert!(refusal(found(&twice)).ends_with("remove one of them"));
        let (without_key, _) = complete.split_once("client_key_file").expect("the text holds it");
        assert!(refusal(found(without_key)).contains("lacks `client_key_file`"));
        let without_cert = complete.replace("client_cert_file = \"cron.crt\"\n", "");
        assert!(refusal(found(&without_cert)).contains("lacks `client_cert_file`"));
        let swapped = complete.replace("cron.crt", "cron.key");
        assert!(refusal(found(&swapped)).contains("give both in PEM"));

        let (cert, key) = (at("cron.crt"), at("cron.key"));
        let (cert, key) = (cert.to_str().expect("text"), key.to_str().expect("text"));
        let base = [(URL, "https://127.0.0.1:1"), (CLIENT_ID, "cron"), (CLIENT_CERT_FILE, cert)];
        let with = |more: &[(&str, &str)]| find(None, &environment(&[&base[..], more].concat()));
        assert_eq!(url(with(&[(CLIENT_KEY_FILE, key)])), "https://127.0.0.1:1");
        assert!(refusal(with(&[])).contains("without COUNTERSIGN_CLIENT_KEY_FILE"));
        write(&at("cron.key"), &made.signing_key.serialize_pem(), 0o644);
        assert!(refusal(found(complete)).contains("chmod 600"));
    }

    #[test]
    fn a_named_file_wins_over_the_environment() {
        let directory = directory();
        let path = directory.path().join("c.toml");
        write(&path, COMPLETE, 0o600);
        let there = [(URL, "http://127.0.0.2:1"), (CLIENT_ID, "other"), (CLIENT_SECRET, "s")];
        let environment = environment(&there);
        assert_eq!(url(find(Some(&path), &environment)), "http://127.0.0.1:1");
        assert_eq!(url(find(None, &environment)), "http://127.0.0.2:1");
    }

    #[test]
    fn a_file_in_a_variable_is_as_good_as_one_in_a_flag_and_excludes_the_pieces() {
        let directory = directory();
        let path = directory.path().join("c.toml");
        write(&path, COMPLETE, 0o600);
        let file = (CREDENTIALS, path.to_str().expect("temp paths are text"));
        assert_eq!(url(find(None, &environment(&[file]))), "http://127.0.0.1:1");
        let both = refusal(find(None, &environment(&[file, (URL, "http://127.0.0.2:1")])));
        assert!(
            both.contains("both COUNTERSIGN_CREDENTIALS and COUNTERSIGN_URL are set"),
            "{both}"
        );
    }

    #[test]
    fn what_serve_dev_wrote_into_this_directory_is_found_after_the_environment_and_told() {
        let directory = directory();
        let at = |client: DevClient| directory.path().join(client.file());
        write(&at(DevClient::Operator), COMPLETE, 0o600);
        write(&at(DevClient::Demo), &COMPLETE.replace("0.1:1", "0.3:1"), 0o600);
        let here = environment_in(directory.path(), &[("HOME", "/nonexistent")]);
        let found = Credentials::find(None, DevClient::Demo, &here).expect("it is there");
        assert_eq!((found.url.as_str(), found.unasked), ("http://127.0.0.3:1", true));
        assert_eq!(url(find(None, &here)), "http://127.0.0.1:1");
        let variables = [(URL, "http://127.0.0.2:1"), (CLIENT_ID, "other"), (CLIENT_SECRET, "s")];
        let named = find(None, &environment_in(directory.path(), &variables));
        assert!(!named.as_ref().expect("it is complete").unasked);
        assert_eq!(url(named), "http://127.0.0.2:1");
    }

    #[test]
    fn the_ca_file_of_a_credentials_file_wins_over_that_of_the_environment() {
        let directory = directory();
        let (with, without) = (directory.path().join("c.toml"), directory.path().join("d.toml"));
        write(&with, &format!("{COMPLETE}ca_file = \"absent.pem\"\n"), 0o600);
        write(&without, COMPLETE, 0o600);
        let environment = environment(&[(CA_FILE, "/absent/env.pem")]);
        let told = |path: &Path| refusal(find(Some(path), &environment));
        let beside = directory.path().join("absent.pem");
        assert!(told(&with).contains(&format!("{} cannot be used", beside.display())));
        assert!(told(&without).contains("/absent/env.pem cannot be used"));
    }

    #[test]
    fn a_file_open_to_others_is_refused_with_the_command_to_run() {
        let directory = directory();
        let path = directory.path().join("my file.toml");
        for mode in [0o644, 0o604, 0o666] {
            write(&path, COMPLETE, mode);
            let line = refusal(find(Some(&path), &environment(&[])));
            assert!(line.ends_with(&format!("run: chmod 600 '{}'", path.display())), "{line}");
        }
        write(&path, COMPLETE, 0o400);
        assert!(find(Some(&path), &environment(&[])).is_ok());
    }

    #[test]
    fn a_credentials_file_with_unknown_missing_or_non_string_keys_is_refused() {
        let directory = directory();
        let path = directory.path().join("c.toml");
        let told = |text: &str| {
            write(&path, text, 0o600);
            refusal(find(Some(&path), &environment(&[])))
        };
        assert!(told(&COMPLETE.replace("url", "ulr")).ends_with("did you mean `url`?"));
        assert!(told("url = \"u\"\n").contains("c.toml lacks `client_id`"));
        assert!(
            told(&COMPLETE.replace("\"cron\"", "7")).contains("`client_id` that is not a string")
        );
        assert!(told(&COMPLETE.replace("csec", "csec\"")).contains("is not TOML"));
    }

    #[test]
    fn an_unusable_url_is_refused_and_a_password_in_it_is_not_printed() {
        let told = |url: &str| {
            let there = [(URL, url), (CLIENT_ID, "cron"), (CLIENT_SECRET, "s")];
            refusal(find(None, &environment(&there)))
        };
        for url in ["127.0.0.1:9443", "ftp://127.0.0.1", "http://127.0.0.1/v1", "h t"] {
            assert!(told(url).contains("the url in the environment is not"), "{url}");
        }
        assert!(told("http://10.0.0.1:9443").contains("--insecure-plaintext"));
        let line = told("http://me:hush@127.0.0.1");
        assert!(
            line.contains("without a path and a user name") && !line.contains("hush"),
            "{line}"
        );
    }

    #[test]
    fn partial_credentials_in_the_environment_are_refused() {
        let line = refusal(find(None, &environment(&[(CLIENT_ID, "cron"), (URL, "u")])));
        assert!(line.contains("but not COUNTERSIGN_CLIENT_SECRET"), "{line}");
        let line = refusal(find(None, &environment(&[])));
        assert!(line.contains("no credentials"), "{line}");
    }

    #[test]
    fn a_variable_may_name_a_file_whose_text_is_trimmed_but_not_stand_beside_its_plain_form() {
        let directory = directory();
        let path = directory.path().join("secret");
        write(&path, "csec_hush\n", 0o644);
        let file = path.to_str().expect("temp paths are text");
        let base = [
            (URL, "http://127.0.0.1:1"),
            (CLIENT_ID, "cron"),
            ("COUNTERSIGN_CLIENT_SECRET_FILE", file),
        ];
        assert_eq!(url(find(None, &environment(&base))), "http://127.0.0.1:1");

        let both = [&base[..], &[(CLIENT_SECRET, "s")]].concat();
        assert!(
            refusal(find(None, &environment(&both))).contains("both COUNTERSIGN_CLIENT_SECRET and")
        );
        write(&path, "\n", 0o644);
        assert!(refusal(find(None, &environment(&base))).contains("is empty"));
    }

    #[test]
    fn the_configuration_directory_is_searched_last() {
        let directory = directory();
        let root = directory.path().to_str().expect("temp paths are text");
        write(&directory.path().join(".config/countersign/credentials.toml"), COMPLETE, 0o600);
        let home = environment(&[("HOME", root)]);
        assert_eq!(url(find(None, &home)), "http://127.0.0.1:1");
        let elsewhere = environment(&[("HOME", root), ("XDG_CONFIG_HOME", "/nonexistent")]);
        assert!(
            refusal(find(None, &elsewhere)).contains("/nonexistent/countersign/credentials.toml")
        );
    }

    #[test]
    fn a_written_credentials_file_reads_back_and_never_overwrites_another() {
        let directory = directory();
        let path = directory.path().join("new.toml");
        let text = "csec_\"hush\\";
        let given = Secret::new(text.to_owned());
        NewCredentialsFile::create(&path)
            .expect("nothing is there")
            .write("u", "cron", &given)
            .expect("there is room");
        let file = CredentialsFile::read(&path).expect("its mode is 0600");
        assert!(matches!(&file.proves, Proves::Secret(secret) if secret.as_str() == text));
        assert!(matches!(NewCredentialsFile::create(&path), Err(Error::Failed(_))));
    }

    #[test]
    fn a_credentials_file_that_is_not_kept_is_removed() {
        let directory = directory();
        let given = Secret::new("csec_hush".to_owned());
        let abandoned = directory.path().join("abandoned.toml");
        let mut file = NewCredentialsFile::create(&abandoned).expect("nothing is there");
        file.fill("u", "cron", &given).expect("there is room");
        assert!(abandoned.exists());
        drop(file);
        assert!(!abandoned.exists());
    }
}
