//! The table of the server's settings, and the reference that is made from it.

/// A setting of the server: what it is called everywhere, and what it does.
#[derive(Debug)]
pub struct Setting {
    /// Its key in the file: dots are tables.
    pub key: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// Its default, in words where it depends on another setting; empty if there is none.
    pub default: &'static str,
    /// What kind of value it takes.
    pub kind: Kind,
    /// What it does, as a sentence.
    pub doc: &'static str,
}

/// What a setting's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Addresses with ports, with commas between.
    Addresses,
    /// A file or directory.
    Path,
    /// A span of time: `15m`, `1h 30m`.
    Duration,
    /// Yes or no.
    Switch,
    /// A whole number.
    Count,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Directives as in the variable `RUST_LOG` of other programs.
    LogFilter,
}

impl Setting {
    /// Its flag: `--tokens-default-ttl`.
    pub fn flag(&self) -> String {
        format!("--{}", self.key.replace(['.', '_'], "-"))
    }
}

impl Kind {
    /// The kind in words, for messages and the reference.
    pub fn words(self) -> String {
        match self {
            Self::Addresses => {
                "addresses with ports like `127.0.0.1:9443`, `localhost:9443` or `:9443`, with commas between"
                    .to_owned()
            }
            Self::Path => "a path".to_owned(),
            Self::Duration => "a span of time like `15m` or `1h 30m`".to_owned(),
            Self::Switch => "`true` or `false`".to_owned(),
            Self::Count => "a whole number".to_owned(),
            Self::Choice(words) => {
                words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ")
            }
            Self::LogFilter => "log directives like `info` or `info,countersign=debug`".to_owned(),
        }
    }
}

/// Where to listen.
pub const LISTEN: Setting = Setting {
    key: "listen",
    variable: "COUNTERSIGN_LISTEN",
    default: "127.0.0.1:9443",
    kind: Kind::Addresses,
    doc: "The addresses to serve on. `localhost` is both of IPv4 and IPv6, no name is every interface, and port 0 takes a free one. In the file it may be an array.",
};
/// Where the state is.
pub const DATA_DIR: Setting = Setting {
    key: "data_dir",
    variable: "COUNTERSIGN_DATA_DIR",
    default: "countersign-data",
    kind: Kind::Path,
    doc: "The directory that holds the database. With `serve --dev` the default is `countersign-dev`.",
};
/// Where the key-encryption key is.
pub const KEK_FILE: Setting = Setting {
    key: "kek_file",
    variable: "COUNTERSIGN_KEK_FILE",
    default: "<data_dir>/kek",
    kind: Kind::Path,
    doc: "The file with the key-encryption key, which seals the private keys. Keep a copy elsewhere.",
};
/// Where the highest epoch is kept.
pub const EPOCH_DIR: Setting = Setting {
    key: "epoch_dir",
    variable: "COUNTERSIGN_EPOCH_DIR",
    default: "<directory of kek_file>",
    kind: Kind::Path,
    doc: "The directory with the highest epoch that anyone was told, in a file that the server must be able to write. A \
          store that is behind is an old copy that was put back, and is not opened. Keep it where it is not restored \
          along with the store. When the key is in `COUNTERSIGN_KEK` the default is `data_dir`.",
};
/// The server's certificate.
pub const TLS_CERT_FILE: Setting = Setting {
    key: "tls.cert_file",
    variable: "COUNTERSIGN_TLS_CERT_FILE",
    default: "",
    kind: Kind::Path,
    doc: "The server's certificate and the chain behind it, in PEM. With it and `tls.key_file` every connection is TLS; without both the server speaks plaintext. The files are looked at every 30 seconds, and new connections use what is new.",
};
/// The certificate's key.
pub const TLS_KEY_FILE: Setting = Setting {
    key: "tls.key_file",
    variable: "COUNTERSIGN_TLS_KEY_FILE",
    default: "",
    kind: Kind::Path,
    doc: "The certificate's private key, in PEM (PKCS#8, PKCS#1 or SEC1).",
};
/// Who vouches for client certificates.
pub const TLS_CLIENT_CA_FILE: Setting = Setting {
    key: "tls.client_ca_file",
    variable: "COUNTERSIGN_TLS_CLIENT_CA_FILE",
    default: "",
    kind: Kind::Path,
    doc: "The authorities, in PEM, that client certificates must chain to. With it clients may present one, and none has to; without it none is asked for.",
};
/// Whether to listen off loopback without TLS.
pub const INSECURE_PLAINTEXT: Setting = Setting {
    key: "insecure_plaintext",
    variable: "COUNTERSIGN_INSECURE_PLAINTEXT",
    default: "false",
    kind: Kind::Switch,
    doc: "Without TLS, listen off loopback all the same: secrets and tokens cross the network readable, unless something else encrypts.",
};
/// How many threads serve.
pub const WORKERS: Setting = Setting {
    key: "workers",
    variable: "COUNTERSIGN_WORKERS",
    default: "1",
    kind: Kind::Count,
    doc: "How many threads serve requests, from 1 to 1024.",
};
/// How long shutting down may take.
pub const SHUTDOWN_GRACE: Setting = Setting {
    key: "shutdown_grace",
    variable: "COUNTERSIGN_SHUTDOWN_GRACE",
    default: "10s",
    kind: Kind::Duration,
    doc: "How long calls in flight may take to finish once the server was told to stop.",
};
/// What log lines look like.
pub const LOG_FORMAT: Setting = Setting {
    key: "log.format",
    variable: "COUNTERSIGN_LOG_FORMAT",
    default: "human",
    kind: Kind::Choice(&["human", "json"]),
    doc: "Log lines for people or for machines.",
};
/// Which log lines are written.
pub const LOG_FILTER: Setting = Setting {
    key: "log.filter",
    variable: "COUNTERSIGN_LOG_FILTER",
    default: "info",
    kind: Kind::LogFilter,
    doc: "Which log lines to write.",
};
/// Whether failed authentications are throttled.
pub const LIMITS_FAILURES: Setting = Setting {
    key: "limits.failures",
    variable: "COUNTERSIGN_LIMITS_FAILURES",
    default: "on",
    kind: Kind::Choice(&["on", "off"]),
    doc: "Whether failed authentications are throttled: by address (IPv6: /64) and client id 20 at once, then one every 3 seconds; by address alone 200, then 20 a second. Behind a proxy all clients have one address: switch it off there, and let the proxy limit.",
};
/// How many tokens a client gets.
pub const LIMITS_TOKENS_PER_CLIENT: Setting = Setting {
    key: "limits.tokens_per_client",
    variable: "COUNTERSIGN_LIMITS_TOKENS_PER_CLIENT",
    default: "0",
    kind: Kind::Count,
    doc: "How many tokens a second one client is issued, ten times as many at once; up to 1000000, and 0 for no limit.",
};
/// How many requests are under way.
pub const LIMITS_CONCURRENT_REQUESTS: Setting = Setting {
    key: "limits.concurrent_requests",
    variable: "COUNTERSIGN_LIMITS_CONCURRENT_REQUESTS",
    default: "4096",
    kind: Kind::Count,
    doc: "How many requests may be without an answer at once. Three quarters of them may be from one address (IPv6: /64). One more is refused with 503 or UNAVAILABLE right away, health checks excepted. Streams count until they begin.",
};
/// How many connections there are.
pub const LIMITS_CONNECTIONS: Setting = Setting {
    key: "limits.connections",
    variable: "COUNTERSIGN_LIMITS_CONNECTIONS",
    default: "8192",
    kind: Kind::Count,
    doc: "How many connections there may be at once, three quarters of them from one address (IPv6: /64). One more is accepted and closed. Each takes a file descriptor: the soft limit of open files is raised for them, and if the hard one is too low there are fewer connections, with a warning in the log.",
};
/// How long tokens live.
pub const TOKENS_DEFAULT_TTL: Setting = Setting {
    key: "tokens.default_ttl",
    variable: "COUNTERSIGN_TOKENS_DEFAULT_TTL",
    default: "15m",
    kind: Kind::Duration,
    doc: "The life of a token for a client that has no maximum of its own, from 1s to 24h.",
};
/// How long audit events are kept.
pub const AUDIT_RETENTION: Setting = Setting {
    key: "audit.retention",
    variable: "COUNTERSIGN_AUDIT_RETENTION",
    default: "365d",
    kind: Kind::Duration,
    doc: "How long audit events are kept.",
};

/// How long a key signs.
pub const KEYS_ROTATE_EVERY: Setting = Setting {
    key: "keys.rotate_every",
    variable: "COUNTERSIGN_KEYS_ROTATE_EVERY",
    default: "off",
    kind: Kind::Duration,
    doc: "How long a key signs before the next one takes over by itself, as soon as every verifier holds it; \
          at least 1m, or `off`.",
};
/// How stale verifiers may become.
pub const TRUST_MAX_STALENESS: Setting = Setting {
    key: "trust.max_staleness",
    variable: "COUNTERSIGN_TRUST_MAX_STALENESS",
    default: "5m",
    kind: Kind::Duration,
    doc: "How old what a verifier knows may become before one that fails closed refuses all calls, from 2m to 24h.",
};
/// How many trust streams a client may have.
pub const TRUST_MAX_STREAMS: Setting = Setting {
    key: "trust.max_streams",
    variable: "COUNTERSIGN_TRUST_MAX_STREAMS",
    default: "256",
    kind: Kind::Count,
    doc: "How many trust streams a client may have at a time, from 1 to 100000: one for each of its processes, \
          and some for those that restart.",
};

/// Every setting, in the order of the reference.
pub const SETTINGS: &[&Setting] = &[
    &LISTEN,
    &DATA_DIR,
    &KEK_FILE,
    &EPOCH_DIR,
    &TLS_CERT_FILE,
    &TLS_KEY_FILE,
    &TLS_CLIENT_CA_FILE,
    &INSECURE_PLAINTEXT,
    &WORKERS,
    &SHUTDOWN_GRACE,
    &LIMITS_FAILURES,
    &LIMITS_TOKENS_PER_CLIENT,
    &LIMITS_CONCURRENT_REQUESTS,
    &LIMITS_CONNECTIONS,
    &LOG_FORMAT,
    &LOG_FILTER,
    &TOKENS_DEFAULT_TTL,
    &AUDIT_RETENTION,
    &KEYS_ROTATE_EVERY,
    &TRUST_MAX_STALENESS,
    &TRUST_MAX_STREAMS,
];

/// The reference of the server's settings, in Markdown: `docs/configuration.md`.
pub fn reference() -> String {
    let mut text = OPENING.to_owned();
    for setting in SETTINGS {
        let default = match setting.default {
            "" => "no default".to_owned(),
            default => format!("default `{default}`"),
        };
        text.push_str(&format!(
            "\n### `{}`\n\n{}\n\n- Takes {}; {default}\n- Variable `{}`, flag `{}`\n",
            setting.key,
            setting.doc,
            setting.kind.words(),
            setting.variable,
            setting.flag(),
        ));
    }
    text.push_str(CLOSING);
    text
}

const OPENING: &str = "\
# Configuration

<!-- Made from the table in src/cli/config/settings.rs by `UPDATE_DOCS=1 cargo test --lib reference`; edit that. -->

## The server

Each setting is taken from the first that has it: its flag, its environment variable, the configuration file, its
default. The file is TOML, named by `--config FILE` or `COUNTERSIGN_CONFIG`; there is none unless named. A dot in a key
is a table. A key that does not exist is an error. An empty variable counts as unset.

```toml
listen = \"127.0.0.1:9443\"
data_dir = \"/var/lib/countersign\"

[log]
format = \"json\"
```

`init`, `backup`, `restore`, `operator recover`, `audit verify` and `audit head` take `data_dir`, `kek_file` and
`epoch_dir` the same way.
";

const CLOSING: &str = "
### The key-encryption key itself

`COUNTERSIGN_KEK` may hold the key itself instead of a file. It is taken from the environment only, neither from a flag
nor from the configuration file, and not together with `kek_file`.

## The commands that speak to a server

They take their credentials from the first of these:

1. the file named by `--credentials FILE`;
2. the file that `--context NAME` stands for;
3. the file named by `COUNTERSIGN_CREDENTIALS`, or that of the context named by `COUNTERSIGN_CONTEXT`;
4. the variables `COUNTERSIGN_URL`, `COUNTERSIGN_CLIENT_ID` and `COUNTERSIGN_CLIENT_SECRET`, all three. Each may instead
   be given as `NAME_FILE`, the path of a file that holds the value;
5. `./countersign-dev/`, where `serve --dev` has written them: `demo.toml` for commands about tokens, `operator.toml` for all
   others. The command says on stderr that it took them;
6. the current context, which `countersign context use NAME` chooses; the command says so, too;
7. `$XDG_CONFIG_HOME/countersign/credentials.toml`, or `~/.config/countersign/credentials.toml`.

A credentials file is TOML with the keys `url`, `client_id` and `client_secret`, readable by its owner only (mode 0600).
In place of `client_secret` it may name a `private_key_file` (PKCS#8 in PEM, mode 0600, relative to the credentials file) and the
`issuer` to sign for; in the environment these are `COUNTERSIGN_CLIENT_KEY_FILE` and `COUNTERSIGN_ISSUER`.
Or a certificate that connections present, `client_cert_file` with `client_key_file` (mode 0600); in the environment
`COUNTERSIGN_CLIENT_CERT_FILE` with `COUNTERSIGN_CLIENT_KEY_FILE`. Sessions of `countersign-mesh` take the same files.
No flag takes a secret: others on the machine can read a command line.

For `https://` URLs the file may have `ca_file` too, and the variable is `COUNTERSIGN_CA_FILE`: the authorities, in PEM,
that vouch for the server, instead of the system's. A relative path in the file starts where the file is.

`http://` URLs must be on loopback, unless `--insecure-plaintext` is given.
";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_reference_is_the_committed_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(path.parent().expect("it has one")).expect("the tree is writable");
            fs::write(&path, reference()).expect("the tree is writable");
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == reference(),
            "docs/configuration.md is out of date; run: UPDATE_DOCS=1 cargo test --lib reference"
        );
    }

    #[test]
    fn variables_follow_from_keys() {
        for setting in SETTINGS {
            assert_eq!(
                setting.variable,
                format!("COUNTERSIGN_{}", setting.key.replace('.', "_").to_uppercase())
            );
        }
    }
}
