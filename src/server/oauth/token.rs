//! `POST /oauth/token`: the client credentials grant (RFC 6749 §4.4).

use serde::Serialize;

use crate::authority::IssueError;
use crate::authority::IssueRequest;
use crate::claims::Audience;
use crate::claims::ClientId;
use crate::claims::ScopeSet;
use crate::client::NotAuthenticated;
use crate::policy::TokenRequest;
use crate::server::grpc::Desk;
use crate::server::oauth::client_auth::Presented;
use crate::server::oauth::client_auth::presented;
use crate::server::oauth::errors::OAuthError;
use crate::server::oauth::form::Form;
use crate::server::oauth::request::Post;

/// RFC 6749 §5.1.
#[derive(Serialize)]
pub(super) struct Answer {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    scope: String,
}

pub(super) async fn issue(desk: &Desk, post: &Post) -> Result<Answer, OAuthError> {
    let form = &post.form;
    match form.get("grant_type") {
        Some("client_credentials") => {}
        Some(_) => return Err(OAuthError::GrantType),
        None => return Err(OAuthError::Invalid("grant_type is missing")),
    }
    let presented = presented(&post.headers, form)?;
    let (client_id, client_secret) = match &presented {
        Presented::Basic(basic) => (basic.client_id.as_str(), basic.client_secret.as_str()),
        Presented::Post { client_id, client_secret } => (*client_id, *client_secret),
        Presented::Assertion { .. } | Presented::Certificate { .. } => {
            return Err(OAuthError::Client("no_credential"));
        }
    };
    let client_id =
        ClientId::new(client_id).map_err(|_| OAuthError::Client("malformed_client_id"))?;
    let request = IssueRequest {
        client_id: &client_id,
        client_secret,
        token: token_request(form)?,
        peer: &post.peer,
    };
    let (authority, now) = (&desk.authority, desk.clock.now());
    let mut issued = authority.issue(&request, now);
    if matches!(issued, Err(IssueError::LeaseOver)) && authority.renew_lease(now).await {
        issued = authority.issue(&request, now);
    }
    if !matches!(issued, Err(IssueError::ClientRejected(NotAuthenticated::UnknownClient))) {
        let _ = post.notes.client.set(client_id.clone());
    }
    let issued = issued?;
    let _ = post.notes.audience.set(issued.claims.audience.clone());
    Ok(Answer {
        access_token: issued.token.into_exposed(),
        token_type: "Bearer",
        expires_in: issued.expires_in.as_secs(),
        scope: issued.claims.scopes.to_string(),
    })
}

fn token_request(form: &Form) -> Result<TokenRequest, OAuthError> {
    let audience = form.get("audience").map(Audience::new).transpose();
    let scopes = ScopeSet::parse(form.get("scope").unwrap_or_default());
    Ok(TokenRequest {
        audience: audience.map_err(|_| OAuthError::Target("the audience is not a name"))?,
        scopes: scopes.map_err(|_| OAuthError::Scope)?,
        requested_ttl: None,
    })
}
