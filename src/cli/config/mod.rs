//! The server's configuration, read once and handed down as values.
//!
//! [`SETTINGS`](settings::SETTINGS) is the one list of settings. The reference page is generated from
//! it, and a test holds the flags of `serve` against it.

pub mod layers;
mod listen;
pub mod settings;

pub use self::listen::Listen;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing_subscriber::EnvFilter;

use crate::cli::config::layers::{Flags, Found, Layers, Source};
use crate::cli::environment::Environment;
use crate::cli::error::Error;
use crate::cli::secret::Secret;
use crate::server::{LimitSettings, TlsFiles};

/// All that `serve` needs to know.
#[derive(Debug)]
pub struct ServeConfig {
    /// For whom it serves.
    pub mode: Mode,
    /// Where to listen. Off loopback only with TLS, or when plaintext is allowed explicitly.
    pub listen: Vec<Listen>,
    /// The files for TLS. Without them the server speaks plaintext.
    pub tls: Option<TlsFiles>,
    /// Where the state is.
    pub store: StoreConfig,
    /// How many threads serve.
    pub workers: NonZeroUsize,
    /// How long shutting down may take.
    pub shutdown_grace: Duration,
    /// How much peers and clients may ask for.
    pub limits: LimitSettings,
    /// What log lines look like.
    pub log_format: LogFormat,
    /// Which log lines are written: directives that `EnvFilter` has parsed once.
    pub log_filter: String,
    /// The life of a token for a client that has no maximum of its own: 1 s to 24 h.
    pub tokens_default_ttl: Duration,
    /// How long audit events are kept; more than nothing.
    pub audit_retention: Duration,
    /// How long a key signs before the next one takes over by itself; `None` for never.
    pub keys_rotate_every: Option<Duration>,
    /// How old a verifier's keys and revocations may become before one that fails closed refuses calls:
    /// 2 min to 24 h.
    pub trust_max_staleness: Duration,
    /// How many trust streams a client may have at a time.
    pub trust_max_streams: usize,
}

/// For whom a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For someone who tries it out: makes what is missing, stays on loopback.
    Dev,
    /// For real: what is missing is an error.
    Production,
}

/// Where the state is, and the key that opens it.
#[derive(Debug)]
pub struct StoreConfig {
    /// The directory that holds the database.
    pub data_dir: PathBuf,
    /// The key-encryption key.
    pub kek: Kek,
    /// Where the highest epoch is kept.
    pub epoch_dir: PathBuf,
}

/// Where the key-encryption key is.
#[derive(Debug)]
pub enum Kek {
    /// In this file.
    File(PathBuf),
    /// The key itself, from `COUNTERSIGN_KEK`.
    Given(Secret),
}

/// What log lines look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// For machines.
    Json,
}

impl ServeConfig {
    /// Gathers the settings from `flags`, the environment and the file.
    ///
    /// # Errors
    /// A value that cannot be read names its setting and its source. Dev mode off
    /// loopback is a usage error, wherever the address comes from.
    pub fn load(
        flags: Flags,
        file: Option<&Path>,
        mode: Mode,
        environment: &Environment,
    ) -> Result<Self, Error> {
        let layers = Layers::read(flags, file, environment)?;
        let tls = tls(&layers, mode)?;
        Ok(Self {
            mode,
            listen: listen(&layers, mode, tls.is_some())?,
            tls,
            store: store(&layers, mode, environment)?,
            workers: layers
                .find(&settings::WORKERS)?
                .parse_as("a number from 1 to 1024", |text| {
                    text.parse().ok().filter(|workers: &NonZeroUsize| workers.get() <= 1024)
                })?,
            shutdown_grace: layers.find(&settings::SHUTDOWN_GRACE)?.parse(duration)?,
            limits: limits(&layers)?,
            log_format: layers.find(&settings::LOG_FORMAT)?.parse(|text| match text {
                "human" => Some(LogFormat::Human),
                "json" => Some(LogFormat::Json),
                _ => None,
            })?,
            log_filter: layers
                .find(&settings::LOG_FILTER)?
                .parse(|text| EnvFilter::builder().parse(text).is_ok().then(|| text.to_owned()))?,
            tokens_default_ttl: layers.find(&settings::TOKENS_DEFAULT_TTL)?.parse_as(
                "1s to 24h",
                |text| {
                    duration(text).filter(|ttl| {
                        (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(ttl)
                    })
                },
            )?,
            audit_retention: layers
                .find(&settings::AUDIT_RETENTION)?
                .parse(|text| duration(text).filter(|retention| !retention.is_zero()))?,
            keys_rotate_every: layers.find(&settings::KEYS_ROTATE_EVERY)?.parse_as(
                "1m or more, or off",
                |text| match text {
                    "off" => Some(None),
                    text => {
                        duration(text).filter(|every| *every >= Duration::from_secs(60)).map(Some)
                    }
                },
            )?,
            trust_max_staleness: layers.find(&settings::TRUST_MAX_STALENESS)?.parse_as(
                "2m to 24h",
                |text| {
                    duration(text).filter(|age| {
                        (Duration::from_secs(120)..=Duration::from_secs(86_400)).contains(age)
                    })
                },
            )?,
            trust_max_streams: layers
                .find(&settings::TRUST_MAX_STREAMS)?
                .parse_as("a number from 1 to 100000", |text| {
                    text.parse().ok().filter(|streams| (1..=100_000).contains(streams))
                })?,
        })
    }
}

impl StoreConfig {
    /// Gathers the settings of the commands that work on the store itself.
    ///
    /// # Errors
    /// As [`ServeConfig::load`].
    pub fn load(
        flags: Flags,
        file: Option<&Path>,
        environment: &Environment,
    ) -> Result<Self, Error> {
        store(&Layers::read(flags, file, environment)?, Mode::Production, environment)
    }
}

/// The TLS files, if they are given. Dev mode refuses them: the credentials files that it writes name
/// an `http` address, so no command could reach a server with TLS.
fn tls(layers: &Layers<'_>, mode: Mode) -> Result<Option<TlsFiles>, Error> {
    let given = |setting| -> Result<(Found, Option<PathBuf>), Error> {
        let found = layers.find(setting)?;
        let path = match found.source {
            Source::Default => None,
            _ => Some(found.parse(path)?),
        };
        Ok((found, path))
    };
    let (cert_found, cert) = given(&settings::TLS_CERT_FILE)?;
    let (key_found, key) = given(&settings::TLS_KEY_FILE)?;
    let (ca_found, client_ca) = given(&settings::TLS_CLIENT_CA_FILE)?;
    let is_lonely = |found: &Found, other: &str| {
        Err(found.error(format!("is given without {other}"), format!("give {other} too")))
    };
    match (cert, key) {
        (Some(_), Some(_)) if mode == Mode::Dev => Err(Error::usage(
            format!(
                "serve --dev speaks plaintext on loopback, but tls.cert_file is given (from {})",
                cert_found.source
            ),
            "leave out tls.cert_file and tls.key_file, or leave out --dev",
        )),
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key, client_ca })),
        (Some(_), None) => is_lonely(&cert_found, "tls.key_file"),
        (None, Some(_)) => is_lonely(&key_found, "tls.cert_file"),
        (None, None) if client_ca.is_some() => is_lonely(&ca_found, "tls.cert_file"),
        (None, None) => Ok(None),
    }
}

fn limits(layers: &Layers<'_>) -> Result<LimitSettings, Error> {
    let count = |setting| {
        // The server counts requests and connections with semaphores, which cannot hold more permits.
        let most = Semaphore::MAX_PERMITS;
        layers.find(setting)?.parse_as("a whole number, 1 or more", |text| {
            text.parse().ok().filter(|count| (1..=most).contains(count))
        })
    };
    Ok(LimitSettings {
        failures: layers.find(&settings::LIMITS_FAILURES)?.parse(|text| match text {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        })?,
        tokens_per_client: layers
            .find(&settings::LIMITS_TOKENS_PER_CLIENT)?
            .parse_as("a whole number up to 1000000; 0 for no limit", |text| {
                text.parse().ok().filter(|count| *count <= 1_000_000).map(NonZeroU32::new)
            })?,
        requests: count(&settings::LIMITS_CONCURRENT_REQUESTS)?,
        connections: count(&settings::LIMITS_CONNECTIONS)?,
    })
}

fn listen(layers: &Layers<'_>, mode: Mode, tls: bool) -> Result<Vec<Listen>, Error> {
    let found = layers.find(&settings::LISTEN)?;
    let listens = found.parse(Listen::list)?;
    // Parsed before it is needed, so that a malformed value is an error on loopback too.
    let insecure: bool =
        layers.find(&settings::INSECURE_PLAINTEXT)?.parse(|text| text.parse().ok())?;

    let Some(open) = listens.iter().find(|listen| !listen.is_loopback()) else {
        return Ok(listens);
    };
    match mode {
        Mode::Dev => Err(Error::usage(
            format!(
                "serve --dev never leaves loopback, but listen is {open} (from {})",
                found.source
            ),
            "listen on 127.0.0.1, or leave out --dev",
        )),
        Mode::Production if tls || insecure => Ok(listens),
        Mode::Production => Err(found.error(
            format!("is {open}, off loopback, without TLS"),
            "give --tls-cert-file and --tls-key-file, or --insecure-plaintext if something else encrypts",
        )),
    }
}

fn store(layers: &Layers<'_>, mode: Mode, environment: &Environment) -> Result<StoreConfig, Error> {
    let found = layers.find(&settings::DATA_DIR)?;
    let data_dir = match (&found.source, mode) {
        (Source::Default, Mode::Dev) => PathBuf::from("countersign-dev"),
        _ => found.parse(path)?,
    };
    let file = layers.find(&settings::KEK_FILE)?;
    let kek = match (environment.text("COUNTERSIGN_KEK")?, &file.source) {
        (Some(kek), Source::Default) => Kek::Given(Secret::new(kek)),
        (Some(_), _) => {
            return Err(file.error("is given, and COUNTERSIGN_KEK too", "keep one of them"));
        }
        (None, Source::Default) => Kek::File(data_dir.join("kek")),
        (None, _) => Kek::File(file.parse(path)?),
    };
    let epoch_dir = layers.find(&settings::EPOCH_DIR)?;
    let epoch_dir = match (&epoch_dir.source, &kek) {
        (Source::Default, Kek::File(kek)) => {
            // A bare file name has an empty parent; the file is in the current directory.
            let parent = kek.parent().filter(|parent| !parent.as_os_str().is_empty());
            parent.unwrap_or(Path::new(".")).to_owned()
        }
        (Source::Default, Kek::Given(_)) => data_dir.clone(),
        _ => epoch_dir.parse(path)?,
    };
    Ok(StoreConfig { data_dir, kek, epoch_dir })
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    /// Loads a configuration from flags, variables and the text of a file.
    fn load(
        mode: Mode,
        flags: &[(&'static settings::Setting, &str)],
        variables: &[(&str, &str)],
        file: &str,
    ) -> Result<ServeConfig, String> {
        let directory = tempfile::tempdir().expect("the temp directory is writable");
        let path = directory.path().join("c.toml");
        fs::write(&path, file).expect("the test owns its directory");
        let variables: BTreeMap<String, String> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let environment = Environment::new("", move |name| variables.get(name).map(Into::into));
        let flags = flags.iter().map(|(setting, text)| (*setting, (*text).to_owned())).collect();
        ServeConfig::load(flags, Some(&path), mode, &environment).map_err(|error| {
            let code = if matches!(error, Error::Usage(_)) { "usage" } else { "failed" };
            let line = error.line().expect("this error has a line");
            format!("{code}: {}", line.replace(&path.display().to_string(), "c.toml"))
        })
    }

    fn from_file(file: &str) -> Result<ServeConfig, String> {
        load(Mode::Production, &[], &[], file)
    }

    #[test]
    fn the_defaults_are_those_of_the_settings_table() {
        let config = from_file("").expect("defaults are valid");
        assert_eq!(config.listen[0].to_string(), settings::LISTEN.default);
        assert_eq!(config.store.data_dir, PathBuf::from("countersign-data"));
        assert!(
            matches!(config.store.kek, Kek::File(path) if path == Path::new("countersign-data/kek"))
        );
        assert_eq!(config.tokens_default_ttl, Duration::from_secs(15 * 60));
        assert_eq!(config.audit_retention, Duration::from_secs(365 * 86_400));
        assert_eq!((config.workers.get(), config.log_format), (1, LogFormat::Human));
        let dev = load(Mode::Dev, &[], &[], "").expect("defaults are valid");
        assert_eq!(dev.store.data_dir, PathBuf::from("countersign-dev"));
        assert!(
            matches!(dev.store.kek, Kek::File(path) if path == Path::new("countersign-dev/kek"))
        );
    }

    #[test]
    fn flags_win_over_variables_and_variables_over_the_file() {
        let file = "listen = \"127.0.0.1:1\"\nworkers = 2\n[log]\nformat = \"json\"\n";
        let variables = [("COUNTERSIGN_LISTEN", "127.0.0.1:2"), ("COUNTERSIGN_WORKERS", "3")];
        let config =
            load(Mode::Production, &[(&settings::LISTEN, "127.0.0.1:3")], &variables, file)
                .expect("all valid");
        assert_eq!(
            (config.listen[0].addresses[0].port(), config.workers.get(), config.log_format),
            (3, 3, LogFormat::Json)
        );
    }

    #[test]
    fn an_unknown_key_gets_the_nearest_known_name() {
        let error = |file| from_file(file).expect_err("no such key");
        assert_eq!(
            error("[log]\nfromat = \"json\"\n"),
            "failed: countersign: unknown key `log.fromat` in c.toml; did you mean `log.format`?"
        );
        assert!(error("lisen = \"x\"\n").ends_with("did you mean `listen`?"));
        assert!(error("log = \"json\"\n").contains("unknown key `log`"));
        assert!(error("[lgo]\n").contains("unknown key `lgo`"));
        assert!(error("kek = \"hush\"\n").contains("unknown key `kek`"));
        assert!(from_file("[log]\n").is_ok());
    }

    #[test]
    fn a_wrong_type_names_key_and_source() {
        assert_eq!(
            from_file("workers = \"2\"\n").expect_err("a string is no number"),
            "failed: countersign: workers is a string (from c.toml); give a whole number without quotes"
        );
        assert!(
            from_file("listen = 9443\n")
                .expect_err("a number is no address")
                .contains("is an integer (from c.toml)")
        );
        assert!(from_file("insecure_plaintext = \"true\"\n").is_err());
        assert!(from_file("insecure_plaintext = true\n").is_ok());
        let error = load(Mode::Production, &[], &[("COUNTERSIGN_LISTEN", "here")], "")
            .expect_err("no address");
        assert!(
            error.starts_with(
                "failed: countersign: listen is \"here\" (from COUNTERSIGN_LISTEN); give"
            ),
            "{error}"
        );
        let error = load(Mode::Production, &[(&settings::WORKERS, "0")], &[], "")
            .expect_err("nobody would serve");
        assert!(
            error.starts_with("usage: countersign: workers is \"0\" (from --workers); give"),
            "{error}"
        );
    }

    #[test]
    fn values_outside_their_bounds_are_refused() {
        let ttl = |text: &str| from_file(&format!("[tokens]\ndefault_ttl = \"{text}\"\n"));
        assert!(ttl("1s").is_ok() && ttl("24h").is_ok());
        assert!(ttl("0s").is_err() && ttl("24h 1s").is_err() && ttl("900").is_err());
        assert!(from_file("workers = 1024\n").is_ok() && from_file("workers = 1025\n").is_err());
        assert!(from_file("[audit]\nretention = \"0s\"\n").is_err());
        let every = |text: &str| {
            let config = from_file(&format!("[keys]\nrotate_every = \"{text}\"\n"));
            config.map(|config| config.keys_rotate_every)
        };
        assert_eq!(every("off"), Ok(None));
        assert_eq!(every("1m"), Ok(Some(Duration::from_secs(60))));
        assert!(every("59s").is_err() && every("never").is_err());
        assert!(from_file("[trust]\nmax_staleness = \"2m\"\nmax_streams = 1\n").is_ok());
        assert!(from_file("[trust]\nmax_staleness = \"119s\"\n").is_err());
        assert!(from_file("[trust]\nmax_streams = 0\n").is_err());
        assert!(from_file("[log]\nfilter = \"info,countersign=debug\"\n").is_ok());
        assert!(from_file("[log]\nfilter = \"countersign=loud\"\n").is_err());
        assert!(
            from_file("[log]\nformat = \"xml\"\n")
                .expect_err("no such format")
                .contains("`human` or `json`")
        );
        assert!(from_file("data_dir = \"\"\n").is_err());
        let limits =
            |text: &str| from_file(&format!("[limits]\n{text}\n")).map(|config| config.limits);
        assert_eq!(limits("").expect("defaults are valid"), LimitSettings::default());
        assert!(!limits("failures = \"off\"").expect("a choice").failures);
        assert!(limits("failures = \"often\"").is_err());
        let tokens = limits("tokens_per_client = 5").expect("a number").tokens_per_client;
        assert_eq!(tokens, NonZeroU32::new(5));
        assert!(limits("tokens_per_client = 1000001").is_err());
        assert!(limits("concurrent_requests = 0").is_err() && limits("connections = 0").is_err());
    }

    #[test]
    fn plaintext_leaves_loopback_only_when_allowed_and_never_in_dev_mode() {
        let open = "listen = \"0.0.0.0:9443\"\n";
        assert!(from_file(open).expect_err("off loopback").contains("--insecure-plaintext"));
        assert!(from_file(&format!("{open}insecure_plaintext = true\n")).is_ok());
        assert!(
            from_file("listen = \"[::1]:9443\"\n").is_ok()
                && from_file("listen = \"[::]:9443\"\n").is_err()
        );
        let several = "listen = [\"127.0.0.1:1\", \"localhost:2\"]\n";
        assert_eq!(from_file(several).expect("both are on loopback").listen.len(), 2);
        let one_open = from_file("listen = [\"127.0.0.1:1\", \":2\"]\n").expect_err("off loopback");
        assert!(one_open.contains("listen is :2, off loopback"), "{one_open}");
        assert!(from_file("listen = [1]\n").is_err() && from_file("listen = []\n").is_err());

        let insecure = (&settings::INSECURE_PLAINTEXT, "true");
        let error = load(Mode::Dev, &[insecure], &[("COUNTERSIGN_LISTEN", "0.0.0.0:9443")], "")
            .expect_err("off loopback");
        assert!(
            error.starts_with("usage: ") && error.contains("(from COUNTERSIGN_LISTEN)"),
            "{error}"
        );
    }

    #[test]
    fn the_highest_epoch_is_kept_beside_the_key_unless_told_otherwise() {
        let of = |file| from_file(file).expect("all valid").store.epoch_dir;
        assert_eq!(of(""), Path::new("countersign-data"));
        assert_eq!(of("kek_file = \"/etc/k\"\n"), Path::new("/etc"));
        assert_eq!(of("kek_file = \"k\"\n"), Path::new("."));
        assert_eq!(of("kek_file = \"/etc/k\"\nepoch_dir = \"/e\"\n"), Path::new("/e"));
        assert!(from_file("epoch_dir = \"\"\n").is_err());
    }

    #[test]
    fn tls_needs_a_certificate_with_its_key_and_may_then_leave_loopback() {
        let both = "listen = \"0.0.0.0:9443\"\n[tls]\ncert_file = \"c\"\nkey_file = \"k\"\n";
        let config = from_file(both).expect("the settings are complete");
        let files = config.tls.expect("it is given");
        assert_eq!((files.cert, files.key), (PathBuf::from("c"), PathBuf::from("k")));
        assert_eq!(files.client_ca, None);
        let with_ca = from_file(&format!("{both}client_ca_file = \"ca\"\n"))
            .expect("the settings are complete");
        assert_eq!(with_ca.tls.expect("it is given").client_ca, Some(PathBuf::from("ca")));
        assert!(from_file("").expect("valid").tls.is_none());

        let error = |file| from_file(file).expect_err("one of the two is missing");
        assert!(
            error("[tls]\ncert_file = \"c\"\n")
                .contains("is given without tls.key_file (from c.toml)")
        );
        assert!(error("[tls]\nkey_file = \"k\"\n").contains("is given without tls.cert_file"));
        assert!(
            error("[tls]\nclient_ca_file = \"a\"\n").contains("is given without tls.cert_file")
        );
        assert!(error("[tls]\ncert_file = \"\"\nkey_file = \"k\"\n").contains("give a path"));

        let dev = load(Mode::Dev, &[], &[], "[tls]\ncert_file = \"c\"\nkey_file = \"k\"\n");
        let error = dev.expect_err("dev mode speaks plaintext");
        assert!(error.starts_with("usage: ") && error.contains("leave out --dev"), "{error}");
    }

    #[test]
    fn the_key_encryption_key_comes_from_the_environment_or_a_file_but_not_both() {
        let given = [("COUNTERSIGN_KEK", "hush")];
        let config = load(Mode::Production, &[], &given, "").expect("one source");
        assert!(matches!(&config.store.kek, Kek::Given(kek) if kek.expose() == "hush"));
        assert!(!format!("{config:?}").contains("hush"));
        assert_eq!(config.store.epoch_dir, Path::new("countersign-data"));
        let error =
            load(Mode::Production, &[], &given, "kek_file = \"k\"\n").expect_err("two sources");
        assert!(error.contains("kek_file is given, and COUNTERSIGN_KEK too"), "{error}");
    }
}
