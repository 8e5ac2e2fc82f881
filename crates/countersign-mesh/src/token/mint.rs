//! Minting: from claims to signed text. The service's `policy` has decided before that they should be
//! signed.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroize;

use crate::claims::Claims;
use crate::keys::SigningKey;
use crate::token::format::{encode_claims, encode_header};

/// A signing key with the token header that goes with it, encoded once.
#[derive(Debug, Clone)]
pub struct Minter {
    key: Arc<SigningKey>,
    header: Box<str>,
}

impl Minter {
    /// Signs with this key.
    pub fn new(key: Arc<SigningKey>) -> Self {
        let header = encode_header(key.kid().as_str()).into();
        Self { key, header }
    }

    /// Signs claims. The same claims give the same bytes: Ed25519 is deterministic.
    pub fn mint(&self, claims: &Claims) -> Token {
        // Enough for most tokens, so that the buffer is not moved while it grows.
        let mut token = String::with_capacity(512);
        token.push_str(&self.header);
        token.push('.');
        encode_claims(claims, &mut token);
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Token(token)
    }
}

/// A signed bearer token: whoever holds it is believed. It is erased when dropped, and `Debug` never
/// shows it.
pub struct Token(String);

impl Token {
    /// A token with which an issuer has answered.
    pub fn issued(text: String) -> Self {
        Self(text)
    }

    /// The text, for the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text, for the wire, without a copy.
    pub fn into_exposed(mut self) -> String {
        // A field cannot be moved out of a type with a destructor, which now erases an empty text.
        std::mem::take(&mut self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
