//! Where to connect, and how safely.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::net::is_loopback;
use crate::session::reach::error::SessionError;

/// Where plaintext may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plaintext {
    /// To this machine only.
    OnLoopback,
    /// Anywhere: someone asked for that explicitly.
    Anywhere,
}

/// The certificate authorities that may vouch for a server: those in a PEM text, or the system's.
#[derive(Clone, Default)]
pub(crate) struct Roots(Option<Arc<[u8]>>);

/// An address to fetch something from: `https`, or `http` where plaintext may go.
pub(crate) fn address(url: &str, plaintext: Plaintext) -> Result<Uri, SessionError> {
    // The URL is quoted only if it cannot hold a password.
    let shown = || if url.contains('@') { "[redacted]@".to_owned() } else { url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| SessionError::BadUrl(shown()))?;
    let Some(authority) = uri.authority().filter(|authority| !authority.as_str().contains('@'))
    else {
        return Err(SessionError::BadUrl(shown()));
    };
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if plaintext == Plaintext::Anywhere || is_loopback(authority.host()) => {
            Ok(uri)
        }
        Some("http") => Err(SessionError::Plaintext(shown())),
        _ => Err(SessionError::BadUrl(shown())),
    }
}

/// The address of a gRPC server: one without a path.
pub(crate) fn server_address(url: &str, plaintext: Plaintext) -> Result<Uri, SessionError> {
    let uri = address(url, plaintext)?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(SessionError::BadUrl(url.to_owned()));
    }
    Ok(uri)
}

/// An endpoint for channels that notice when their peer vanishes without a word.
pub(crate) fn channel(uri: Uri, roots: &Roots) -> Result<Endpoint, SessionError> {
    let is_https = uri.scheme_str() == Some("https");
    let endpoint = Channel::builder(uri)
        // Without keepalive a partition may never be noticed: TCP alone reports no silent peer.
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    if is_https {
        endpoint.tls_config(roots.for_grpc()).map_err(|_| SessionError::NoAuthorities)
    } else {
        Ok(endpoint)
    }
}

/// The same, presenting a client certificate: over TLS only.
pub(crate) fn channel_presenting(
    uri: Uri,
    roots: &Roots,
    identity: Identity,
) -> Result<Endpoint, SessionError> {
    channel(uri, roots)?
        .tls_config(roots.for_grpc().identity(identity))
        .map_err(|_| SessionError::BadClientCertificate)
}

impl Roots {
    /// One authority, or several, in PEM.
    pub(crate) fn only(pem: &[u8]) -> Result<Self, SessionError> {
        let roots = Self(Some(pem.into()));
        roots.store().map(|_| roots.clone())
    }

    fn for_grpc(&self) -> ClientTlsConfig {
        match &self.0 {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        }
    }

    /// The TLS settings for fetches from this address. A plaintext address needs no authorities.
    pub(crate) fn for_http(&self, uri: &Uri) -> Result<ClientConfig, SessionError> {
        let store = match uri.scheme_str() {
            Some("https") => self.store()?,
            _ => RootCertStore::empty(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3");
        Ok(config.with_root_certificates(store).with_no_client_auth())
    }

    fn store(&self) -> Result<RootCertStore, SessionError> {
        let mut store = RootCertStore::empty();
        match &self.0 {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|_| SessionError::BadCertificate)?;
                    store.add(certificate).map_err(|_| SessionError::BadCertificate)?;
                }
                if store.is_empty() {
                    return Err(SessionError::BadCertificate);
                }
            }
            None => {
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if store.is_empty() {
                    return Err(SessionError::NoAuthorities);
                }
            }
        }
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_stays_on_this_machine_unless_asked() {
        for url in
            ["http://127.0.0.1:1", "http://127.8.9.1/x", "http://[::1]:1", "http://LocalHost"]
        {
            assert!(address(url, Plaintext::OnLoopback).is_ok(), "{url}");
        }
        for url in
            ["http://10.0.0.1:1", "http://[::2]:1", "http://localhost.example", "http://0.0.0.0"]
        {
            let refused = address(url, Plaintext::OnLoopback);
            assert!(matches!(refused, Err(SessionError::Plaintext(_))), "{url}");
            assert!(address(url, Plaintext::Anywhere).is_ok(), "{url}");
        }
        assert!(address("https://issuer.example", Plaintext::OnLoopback).is_ok());
    }

    #[test]
    fn a_malformed_address_is_refused_without_quoting_its_password() {
        for url in ["127.0.0.1:1", "/x", "ftp://127.0.0.1", "h t", ""] {
            let refused = address(url, Plaintext::Anywhere);
            assert!(matches!(refused, Err(SessionError::BadUrl(_))), "{url}");
        }
        let refused = address("https://me:hush@issuer.example", Plaintext::Anywhere);
        let error = refused.expect_err("it holds a password").to_string();
        assert!(!error.contains("hush"), "{error}");
        for url in ["https://issuer.example/v1", "https://issuer.example/?x"] {
            assert!(server_address(url, Plaintext::OnLoopback).is_err(), "{url}");
        }
    }

    #[test]
    fn pem_without_a_certificate_is_refused() {
        for pem in ["", "noise", "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n"] {
            let refused = Roots::only(pem.as_bytes());
            assert!(matches!(refused, Err(SessionError::BadCertificate)), "{pem}");
        }
    }
}
