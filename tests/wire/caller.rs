//! A caller with a token, and short methods for the calls that tests make with it.

use countersign::rpc;
use countersign::rpc::create_client_credential_request::Kind;
use countersign::rpc::revoke_token_request::Target;
use tonic::{Code, Response, Status};

use crate::support::{TestServer, ask, assert_refused, bearing, grant};

/// All administrative scopes, for tests that are not about missing scopes.
pub const ALL_SCOPES: &[&str] = &[
    "audit:read",
    "clients:read",
    "clients:write",
    "keys:read",
    "keys:rotate",
    "operators:write",
    "tokens:revoke",
];

/// A request for a credential that does not expire.
pub fn new_credential(client_id: &str, kind: Kind) -> rpc::CreateClientCredentialRequest {
    rpc::CreateClientCredentialRequest {
        client_id: client_id.to_owned(),
        kind: Some(kind),
        ..Default::default()
    }
}

/// Makes calls with one token. It still works after a restart of the server.
#[derive(Clone)]
pub struct Caller {
    pub token: String,
}

impl TestServer {
    /// The first operator, with a fresh token.
    pub async fn operator(&self) -> Caller {
        Caller { token: self.operator_token().await }
    }

    /// Issues a token for a client, with all scopes that it was granted for the audience.
    pub async fn token(&self, client_id: &str, secret: &str, audience: &str) -> Caller {
        let issued = self.issue(ask(client_id, secret, audience, &[])).await;
        Caller { token: issued.expect("the client gets a token").access_token }
    }

    /// Registers an operator with these scopes, and gives it a token with them.
    pub async fn operator_with(&self, client_id: &str, scopes: &[&str]) -> Caller {
        let secret = self.register(client_id, &[("countersign", scopes)], &[]).await;
        self.token(client_id, &secret, "countersign").await
    }
}

/// The settings of a client: its grants, and the audiences that it serves.
pub fn client(client_id: &str, grants: &[(&str, &[&str])], serves: &[&str]) -> rpc::Client {
    rpc::Client {
        client_id: client_id.to_owned(),
        grants: grants.iter().map(|(audience, scopes)| grant(audience, scopes)).collect(),
        serves: serves.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

impl Caller {
    pub async fn create(
        &self,
        server: &TestServer,
        client: rpc::Client,
    ) -> Result<rpc::Client, Status> {
        let request = rpc::CreateClientRequest { client: Some(client), ..Default::default() };
        let answer = server.clients().create_client(bearing(&self.token, request)).await?;
        Ok(answer.into_inner().client.expect("the answer has the client"))
    }

    pub async fn read(&self, server: &TestServer, client_id: &str) -> Result<rpc::Client, Status> {
        let request = rpc::GetClientRequest { client_id: client_id.to_owned() };
        let answer = server.clients().get_client(bearing(&self.token, request)).await?;
        Ok(answer.into_inner().client.expect("the answer has the client"))
    }

    /// Sends an update with the client as it is, including its etag.
    pub async fn update(
        &self,
        server: &TestServer,
        client: rpc::Client,
        paths: &[&str],
    ) -> Result<rpc::Client, Status> {
        let update_mask =
            prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() };
        let request = rpc::UpdateClientRequest {
            client: Some(client),
            update_mask: Some(update_mask),
            ..Default::default()
        };
        let answer = server.clients().update_client(bearing(&self.token, request)).await?;
        Ok(answer.into_inner().client.expect("the answer has the client"))
    }

    /// Reads a client, changes it, and writes it back at once.
    pub async fn change(
        &self,
        server: &TestServer,
        client_id: &str,
        paths: &[&str],
        change: impl FnOnce(&mut rpc::Client),
    ) -> Result<rpc::Client, Status> {
        let mut client = server.operator().await.read(server, client_id).await?;
        change(&mut client);
        self.update(server, client, paths).await
    }

    pub async fn delete(
        &self,
        server: &TestServer,
        client_id: &str,
        etag: &str,
    ) -> Result<(), Status> {
        let request = rpc::DeleteClientRequest {
            client_id: client_id.to_owned(),
            etag: etag.to_owned(),
            ..Default::default()
        };
        server.clients().delete_client(bearing(&self.token, request)).await.map(|_| ())
    }

    /// Creates a secret; `ttl` in seconds.
    pub async fn new_secret(
        &self,
        server: &TestServer,
        client_id: &str,
        ttl: Option<i64>,
    ) -> Result<rpc::CreateClientCredentialResponse, Status> {
        let request = new_credential(client_id, Kind::Secret(rpc::ClientSecret {}));
        let request = rpc::CreateClientCredentialRequest { ttl: ttl.map(seconds), ..request };
        self.create_credential(server, request).await
    }

    pub async fn create_credential(
        &self,
        server: &TestServer,
        request: rpc::CreateClientCredentialRequest,
    ) -> Result<rpc::CreateClientCredentialResponse, Status> {
        let request = bearing(&self.token, request);
        server.clients().create_client_credential(request).await.map(Response::into_inner)
    }

    /// Adds a credential other than a secret; `ttl` in seconds.
    pub async fn add_credential(
        &self,
        server: &TestServer,
        client_id: &str,
        kind: Kind,
        ttl: Option<i64>,
    ) -> Result<rpc::ClientCredential, Status> {
        let ttl = ttl.map(seconds);
        let request = rpc::CreateClientCredentialRequest { ttl, ..new_credential(client_id, kind) };
        let answer = self.create_credential(server, request).await?;
        assert_eq!(answer.client_secret, "");
        Ok(answer.credential.expect("the answer has the credential"))
    }

    pub async fn revoke_credential(
        &self,
        server: &TestServer,
        client_id: &str,
        credential_id: &str,
    ) -> Result<(), Status> {
        let request = rpc::RevokeClientCredentialRequest {
            client_id: client_id.to_owned(),
            credential_id: credential_id.to_owned(),
            ..Default::default()
        };
        let request = bearing(&self.token, request);
        server.clients().revoke_client_credential(request).await.map(|_| ())
    }

    /// Revokes a credential and the tokens that its client got so far.
    pub async fn revoke_credential_and_tokens(
        &self,
        server: &TestServer,
        client_id: &str,
        credential_id: &str,
    ) -> Result<(), Status> {
        let request = rpc::RevokeClientCredentialRequest {
            client_id: client_id.to_owned(),
            credential_id: credential_id.to_owned(),
            revoke_tokens: true,
            ..Default::default()
        };
        let request = bearing(&self.token, request);
        server.clients().revoke_client_credential(request).await.map(|_| ())
    }

    /// Revokes a client's tokens. Returns the time before which they are revoked.
    pub async fn revoke_tokens(&self, server: &TestServer, client_id: &str) -> Result<i64, Status> {
        let request = rpc::RevokeClientTokensRequest {
            client_id: client_id.to_owned(),
            ..Default::default()
        };
        let answer = server.clients().revoke_client_tokens(bearing(&self.token, request)).await?;
        Ok(answer.into_inner().revoked_before.expect("the answer has the time").seconds)
    }

    pub async fn revoke_token(&self, server: &TestServer, target: Target) -> Result<(), Status> {
        let request = rpc::RevokeTokenRequest { target: Some(target) };
        server.tokens().revoke_token(bearing(&self.token, request)).await.map(|_| ())
    }

    pub async fn validate(
        &self,
        server: &TestServer,
        token: &str,
    ) -> Result<rpc::ValidateTokenResponse, Status> {
        let request = rpc::ValidateTokenRequest { token: token.to_owned(), ..Default::default() };
        let answer = server.tokens().validate_token(bearing(&self.token, request)).await;
        answer.map(Response::into_inner)
    }

    /// Validates a token, which must be active, and returns its claims.
    pub async fn claims(&self, server: &TestServer, token: &str) -> rpc::TokenClaims {
        let answer = self.validate(server, token).await.expect("an answer");
        answer.claims.unwrap_or_else(|| panic!("inactive: {:?}", answer.inactive_reason))
    }

    /// Validates a token, which must be inactive for this reason.
    pub async fn assert_inactive(
        &self,
        server: &TestServer,
        token: &str,
        reason: rpc::InactiveReason,
    ) {
        let answer = self.validate(server, token).await.expect("an answer");
        assert!(!answer.active && answer.claims.is_none());
        assert_eq!(answer.inactive_reason(), reason);
    }

    pub async fn rotate(&self, server: &TestServer) -> Result<rpc::RotateKeysResponse, Status> {
        let request = rpc::RotateKeysRequest::default();
        let answer = server.keys().rotate_keys(bearing(&self.token, request)).await;
        answer.map(Response::into_inner)
    }

    pub async fn revoke_key(
        &self,
        server: &TestServer,
        kid: &str,
    ) -> Result<rpc::RevokeKeyResponse, Status> {
        let request = rpc::RevokeKeyRequest { kid: kid.to_owned(), ..Default::default() };
        let answer = server.keys().revoke_key(bearing(&self.token, request)).await;
        answer.map(Response::into_inner)
    }

    /// Lists all keys. Since `KeyService` is guarded, this also shows that the token is accepted.
    pub async fn keys(&self, server: &TestServer) -> Result<Vec<rpc::Key>, Status> {
        let request = rpc::ListKeysRequest::default();
        let answer = server.keys().list_keys(bearing(&self.token, request)).await;
        answer.map(|answer| answer.into_inner().keys)
    }

    /// Asserts that the guard refuses the token for this reason.
    pub async fn assert_shut_out(&self, server: &TestServer, reason: &str) {
        assert_refused(self.keys(server).await, Code::Unauthenticated, reason);
    }
}

pub fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// A token with one character changed in part 0, 1 or 2: its header, claims or signature.
pub fn tampered(token: &str, part: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let other = if parts[part].as_bytes()[20] == b'A' { "B" } else { "A" };
    parts[part].replace_range(20..21, other);
    parts.join(".")
}
