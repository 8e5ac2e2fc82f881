//! A channel that presents a client certificate. It is made anew when the certificate's files change:
//! certificates are renewed more often than services are restarted.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use sha2::{Digest, Sha256};
use tonic::transport::Channel;

use crate::session::reach::address::{Roots, channel_presenting};
use crate::session::reach::credentials::CertifiedKey;
use crate::session::reach::error::SessionError;

/// Where to present it. Only requests for tokens go over this channel.
pub(crate) struct Presenting {
    uri: Uri,
    roots: Roots,
    longest_answer: Duration,
    /// The last channel, and the digest of what it presents.
    made: Mutex<Option<([u8; 32], Channel)>>,
}

impl Presenting {
    pub(crate) fn new(uri: Uri, roots: Roots, longest_answer: Duration) -> Self {
        Self { uri, roots, longest_answer, made: Mutex::default() }
    }

    /// A channel that presents this certificate.
    ///
    /// # Errors
    /// When the certificate is not one in PEM, or the key does not belong to it.
    pub(crate) fn channel(&self, certified: &CertifiedKey) -> Result<Channel, SessionError> {
        // Two digests of fixed length: where the certificate ends and the key begins is unambiguous.
        let digest = Sha256::new()
            .chain_update(Sha256::digest(&certified.cert))
            .chain_update(Sha256::digest(&*certified.key))
            .finalize()
            .into();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((presented, channel)) = &*made
            && *presented == digest
        {
            return Ok(channel.clone());
        }
        let endpoint = channel_presenting(self.uri.clone(), &self.roots, certified.to_identity())?;
        let channel = endpoint.timeout(self.longest_answer).connect_lazy();
        *made = Some((digest, channel.clone()));
        Ok(channel)
    }
}

impl fmt::Debug for Presenting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presenting").field("uri", &self.uri).finish_non_exhaustive()
    }
}
