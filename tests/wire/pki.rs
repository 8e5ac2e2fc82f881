//! Certificate authorities and certificates for tests, in files in a temporary directory.

use std::fs;
use std::path::PathBuf;

use countersign::server::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// A certificate authority.
pub struct Ca {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
pub struct Certified {
    pub cert: String,
    pub key: String,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for the loopback address and this DNS name.
    pub fn certify(&self, name: &str) -> Certified {
        self.certify_until(name, 4096)
    }

    /// A certificate that expires at the beginning of this year.
    pub fn certify_until(&self, name: &str, year: i32) -> Certified {
        let names = [name.to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = date_time_ymd(year, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Certified { cert, key: key.serialize_pem() }
    }
}

/// The files that a server's TLS settings name.
pub struct Files {
    dir: TempDir,
    pub client_ca: bool,
}

impl Files {
    pub fn new(server: &Certified, client_ca: Option<&Ca>) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let files = Self { dir, client_ca: client_ca.is_some() };
        files.put(server);
        if let Some(ca) = client_ca {
            fs::write(files.path("ca.pem"), &ca.pem).expect("the file can be written");
        }
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces the certificate and the key by renaming, as certificate tools do.
    pub fn put(&self, server: &Certified) {
        for (name, text) in [("tls.crt", &server.cert), ("tls.key", &server.key)] {
            fs::write(self.path("new"), text).expect("the file can be written");
            fs::rename(self.path("new"), self.path(name)).expect("the file can be renamed");
        }
    }

    pub fn tls(&self) -> TlsFiles {
        TlsFiles {
            cert: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_ca: self.client_ca.then(|| self.path("ca.pem")),
        }
    }
}
