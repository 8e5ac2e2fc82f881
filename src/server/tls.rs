//! TLS: from certificate files to what handshakes use, and again when the files change.
//!
//! Handshakes that begin after a change use the new files; open connections keep what they have. Files that cannot be
//! used change nothing: the server goes on with what it read last.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, fs, io};

use arc_swap::ArcSwap;
use countersign_mesh::claims::{Clock, Timestamp};
use countersign_mesh::internals::open_to_others;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use zeroize::Zeroizing;

use crate::client::CertificateNames;

/// The files that TLS is made from, all in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and after it those of the authorities between it and a root.
    pub cert: PathBuf,
    /// The certificate's private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// The authorities that client certificates must chain to. Without it none is asked for.
    pub client_ca: Option<PathBuf>,
}

/// What handshakes use, always the latest.
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
    /// What the files looked like when they were read last, good or not.
    seen: Mutex<Option<Vec<Version>>>,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub struct TlsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: TlsProblem,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum TlsProblem {
    /// It cannot be read.
    Unreadable(io::Error),
    /// It is not PEM.
    NotPem,
    /// It is PEM without a certificate.
    NoCertificate,
    /// A certificate in it is damaged, or cannot be used.
    BadCertificate(String),
    /// It is PEM without a private key.
    NoKey,
    /// Its key is damaged, or of a kind that is not supported.
    BadKey,
    /// Its key is not that of the certificate in this file.
    KeyOfAnother(PathBuf),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            TlsProblem::Unreadable(error) => write!(f, "cannot read {path}: {error}"),
            TlsProblem::NotPem => write!(f, "{path} is not PEM"),
            TlsProblem::NoCertificate => write!(f, "{path} holds no certificate"),
            TlsProblem::BadCertificate(why) => write!(f, "{path} holds a bad certificate: {why}"),
            TlsProblem::NoKey => write!(f, "{path} holds no private key"),
            TlsProblem::BadKey => write!(f, "{path} holds a private key that cannot be used"),
            TlsProblem::KeyOfAnother(cert) => {
                write!(f, "{path} holds the key of another certificate than {}", cert.display())
            }
        }
    }
}

impl std::error::Error for TlsError {}

/// What tells one version of a file from another: modification time, length, inode.
type Version = Option<(i64, i64, u64, u64)>;

impl Tls {
    /// Whether clients can prove who they are with a certificate.
    pub fn takes_client_certificates(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Reads the files. A certificate that is out of date at `now` is used all the same, with a
    /// warning in the log: clients tell better than the server whether to go on.
    ///
    /// # Errors
    /// When a file is of no use.
    pub fn load(files: TlsFiles, now: Timestamp) -> Result<Self, TlsError> {
        let seen = versions(&files);
        let config = read(&files, now)?;
        let current = ArcSwap::from_pointee(config);
        Ok(Self { files, current, seen: Mutex::new(Some(seen)) })
    }

    /// Reads the files again if they have changed since they were read last. If one of them cannot be used, everything
    /// stays as it is, and the log gets one error for each change.
    pub fn refresh(&self, now: Timestamp) {
        // Taken before the files are read, so that a change in between is found the next time.
        let found = versions(&self.files);
        let before =
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).replace(found.clone());
        if before.as_ref() == Some(&found) {
            return;
        }
        match read(&self.files, now) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(cert = %self.files.cert.display(), "the TLS files have changed; new connections use them");
            }
            Err(error) => {
                tracing::error!(%error, "the TLS files have changed and are of no use; the ones before stay in use");
            }
        }
    }

    /// For one handshake.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

/// A client certificate that an authority of ours has signed.
pub(super) struct Presented {
    pub(super) names: Arc<CertificateNames>,
    not_after: Duration,
}

impl Presented {
    /// The certificate that a client presented in its handshake. One whose names cannot be read counts as none.
    pub(super) fn by<IO>(stream: &TlsStream<IO>) -> Option<Self> {
        let leaf = stream.get_ref().1.peer_certificates()?.first()?;
        let not_after = Certificate::from_der(leaf).ok()?.tbs_certificate().validity().not_after;
        match CertificateNames::from_der(leaf) {
            Ok(names) => {
                Some(Self { names: Arc::new(names), not_after: not_after.to_unix_duration() })
            }
            Err(error) => {
                tracing::debug!(%error, "a client certificate is passed over");
                None
            }
        }
    }

    /// How long it is good for from now.
    pub(super) fn good_for(&self, clock: &Clock) -> Duration {
        self.not_after.saturating_sub(Duration::from_secs(clock.now().as_unix()))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

fn versions(files: &TlsFiles) -> Vec<Version> {
    let version = |path: &Path| {
        let found = fs::metadata(path).ok()?;
        Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
    };
    [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| version(path))
        .collect()
}

fn read(files: &TlsFiles, now: Timestamp) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&files.cert)?;
    warn_if_out_of_date(&chain, &files.cert, now);
    let key = certified(chain, files, &provider)?;
    warn_if_open(&files.key);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3");
    let resolver = Arc::new(SingleCertAndKey::from(key));
    let mut config = match &files.client_ca {
        None => builder.with_no_client_auth().with_cert_resolver(resolver),
        Some(path) => {
            let verifier = client_verifier(path, provider)?;
            let mut config =
                builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
            // A resumed session would bring back a certificate that nobody has verified since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    files: &TlsFiles,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let fails = |problem| TlsError { path: files.key.clone(), problem };
    let text = contents(&files.key)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        fails(match error {
            pem::Error::NoItemsFound if !looks_like_pem(&text) => TlsProblem::NotPem,
            pem::Error::NoItemsFound => TlsProblem::NoKey,
            _ => TlsProblem::NotPem,
        })
    })?;
    let signer = provider.key_provider.load_private_key(key);
    let certified = CertifiedKey::new(chain, signer.map_err(|_| fails(TlsProblem::BadKey))?);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(fails(TlsProblem::KeyOfAnother(files.cert.clone())))
        }
        // Some kinds of key do not say what their public half is; those cannot be compared.
        Err(rustls::Error::InconsistentKeys(_)) => Ok(certified),
        Err(error) => Err(TlsError {
            path: files.cert.clone(),
            problem: TlsProblem::BadCertificate(error.to_string()),
        }),
    }
}

/// A certificate is asked for and not demanded: most clients have a secret or a key instead.
fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let bad =
        |why: String| TlsError { path: path.to_owned(), problem: TlsProblem::BadCertificate(why) };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| bad(error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fails = |problem| TlsError { path: path.to_owned(), problem };
    let text = contents(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) if looks_like_pem(&text) => Err(fails(TlsProblem::NoCertificate)),
        Ok(_) | Err(_) => Err(fails(TlsProblem::NotPem)),
    }
}

/// Erased when it is dropped: it may be a key.
fn contents(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| TlsError { path: path.to_owned(), problem: TlsProblem::Unreadable(error) })
}

fn looks_like_pem(text: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN ";
    text.windows(BEGIN.len()).any(|window| window == BEGIN)
}

/// Warns of a key that others can read. It is no error: orchestrators often mount certificates into containers so.
fn warn_if_open(key: &Path) {
    if fs::metadata(key).is_ok_and(|found| open_to_others(&found).is_some()) {
        tracing::warn!(path = %key.display(), "others on this machine can read the TLS key");
    }
}

fn warn_if_out_of_date(chain: &[CertificateDer<'_>], path: &Path, now: Timestamp) {
    // A leaf that is no certificate fails when it is matched with its key.
    let Some(Ok(leaf)) = chain.first().map(|leaf| Certificate::from_der(leaf)) else { return };
    let validity = leaf.tbs_certificate().validity();
    let now = Duration::from_secs(now.as_unix());
    let path = path.display();
    if now > validity.not_after.to_unix_duration() {
        tracing::warn!(%path, since = %validity.not_after, "the TLS certificate has expired");
    } else if now < validity.not_before.to_unix_duration() {
        tracing::warn!(%path, until = %validity.not_before, "the TLS certificate is not valid yet");
    }
}
