//! `POST /oauth/introspect` (RFC 7662).

use serde::Serialize;

use crate::client::AuthenticatedClient;
use crate::server::desk::Desk;
use crate::server::oauth::errors::OAuthError;
use crate::server::oauth::request::Post;

/// The answer of RFC 7662 §2.2. It says nothing but `active: false` of a token that is not active, or that is for no
/// audience of the caller.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    Active {
        active: bool,
        scope: String,
        client_id: String,
        token_type: &'static str,
        exp: u64,
        iat: u64,
        sub: String,
        aud: String,
        iss: String,
        jti: String,
    },
    Inactive {
        active: bool,
    },
}

pub(super) fn introspect(
    desk: &Desk,
    caller: &AuthenticatedClient,
    post: &Post,
) -> Result<Answer, OAuthError> {
    let token = post.form.get("token").ok_or(OAuthError::Invalid("token is missing"))?;
    let validated = desk.authority.validate(&caller.client().id, token, None, desk.clock.now());
    let Ok(Ok(token)) = validated else { return Ok(Answer::Inactive { active: false }) };
    let claims = token.claims();
    let _ = post.notes.audience.set(claims.audience.clone());
    Ok(Answer::Active {
        active: true,
        scope: claims.scopes.to_string(),
        client_id: claims.client_id.to_string(),
        token_type: "Bearer",
        exp: claims.expires_at.as_unix(),
        iat: claims.issued_at.as_unix(),
        sub: claims.client_id.to_string(),
        aud: claims.audience.to_string(),
        iss: claims.issuer.to_string(),
        jti: claims.token_id.to_string(),
    })
}
