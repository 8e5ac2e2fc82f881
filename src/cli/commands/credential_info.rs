//! What people and scripts are shown of a credential.

use serde::Serialize;

use crate::cli::output;
use crate::cli::sheet::Sheet;
use crate::rpc;
use crate::rpc::client_credential::Kind as KnownKind;

/// A credential as it is shown.
#[derive(Serialize)]
pub struct CredentialInfo {
    /// Its id, unique among its client's credentials.
    pub credential_id: String,
    /// What it is: `secret`, `public_key` or `certificate_name`.
    pub kind: &'static str,
    create_time: Option<String>,
    /// When it stops working.
    pub expire_time: Option<String>,
    last_use_time: Option<String>,
    /// In seconds.
    pub retire_when_idle: Option<u64>,
}

impl From<rpc::ClientCredential> for CredentialInfo {
    fn from(credential: rpc::ClientCredential) -> Self {
        Self {
            credential_id: credential.credential_id,
            kind: match credential.kind {
                Some(KnownKind::Secret(_)) => "secret",
                Some(KnownKind::PublicKey(_)) => "public_key",
                Some(KnownKind::CertificateName(_)) => "certificate_name",
                None => "unknown",
            },
            create_time: credential.create_time.as_ref().map(output::time),
            expire_time: credential.expire_time.as_ref().map(output::time),
            last_use_time: credential.last_use_time.as_ref().map(output::time),
            retire_when_idle: output::seconds(credential.retire_when_idle.as_ref()),
        }
    }
}

impl CredentialInfo {
    /// When it was last used, and what becomes of it after a rotation.
    pub fn prospect(&self) -> String {
        let used = match &self.last_use_time {
            Some(time) => format!("last used {time}"),
            None => "never used".to_owned(),
        };
        let prospect = match self.retire_when_idle.map(output::span) {
            Some(span) => {
                format!("revoked once nobody has used it for {span}, and somebody a newer one")
            }
            None => "goes on working; revoke it once nobody uses it".to_owned(),
        };
        format!("{} {} ({used}): {prospect}", self.kind, self.credential_id)
    }
}

/// A table of credentials.
pub fn table(sheet: Sheet, credentials: &[CredentialInfo]) -> String {
    let row = |credential: &CredentialInfo| {
        let or = |time: &Option<String>, otherwise: &str| {
            time.clone().unwrap_or_else(|| otherwise.to_owned())
        };
        [
            credential.credential_id.clone(),
            credential.kind.to_owned(),
            or(&credential.create_time, "-"),
            or(&credential.expire_time, "never"),
            or(&credential.last_use_time, "never"),
            credential.retire_when_idle.map_or_else(|| "-".to_owned(), output::span),
        ]
    };
    sheet.table(
        [
            ("CREDENTIAL ID", 0),
            ("KIND", 0),
            ("CREATED", 2),
            ("EXPIRES", 1),
            ("LAST USED", 0),
            ("RETIRES WHEN IDLE FOR", 3),
        ],
        &credentials.iter().map(row).collect::<Vec<_>>(),
    )
}
