//! `POST /oauth/token`: the client credentials grant (RFC 6749 §4.4).

use countersign_mesh::claims::{Audience, ScopeSet};
use serde::Serialize;

use crate::authority::{Authority, NoAudience};
use crate::client::ResourceUri;
use crate::policy::TokenRequest;
use crate::server::desk::Desk;
use crate::server::oauth::client_auth::{authenticate, presented};
use crate::server::oauth::errors::{NOT_GRANTED, OAuthError};
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
    match post.form.get("grant_type") {
        Some("client_credentials") => {}
        Some(_) => return Err(OAuthError::GrantType),
        None => return Err(OAuthError::Invalid("grant_type is missing")),
    }
    // Nobody but a client may learn what a resource stands for. So the client authenticates first, whatever is wrong
    // with what it asks for.
    let token = match token_request(&desk.authority, &post.form) {
        Ok(token) => token,
        Err(error) => {
            authenticate(desk, post)?;
            return Err(error);
        }
    };
    let presented = presented(&post.headers, &post.form)?;
    let issued = presented.attempt(post)?.issue(desk, &token).await?;
    Ok(Answer {
        access_token: issued.token.into_exposed(),
        token_type: "Bearer",
        expires_in: issued.expires_in.as_secs(),
        scope: issued.claims.scopes.to_string(),
    })
}

fn token_request(authority: &Authority, form: &Form) -> Result<TokenRequest, OAuthError> {
    let scopes = ScopeSet::parse(form.get("scope").unwrap_or_default());
    Ok(TokenRequest {
        audience: audience(authority, form)?,
        scopes: scopes.map_err(|_| OAuthError::Scope)?,
        requested_ttl: None,
    })
}

/// The audience that `audience` names and all `resource` mean.
fn audience(authority: &Authority, form: &Form) -> Result<Option<Audience>, OAuthError> {
    let named = form.get("audience").map(Audience::new).transpose();
    let named = named.map_err(|_| OAuthError::Target("the audience is not a name"))?;
    let resources = form.all("resource").map(ResourceUri::new).collect::<Result<Vec<_>, _>>();
    let resources = resources
        .map_err(|_| OAuthError::Target("a resource is not an absolute URI without a fragment"))?;
    let meant = authority.audience_of(&resources).map_err(|error| match error {
        NoAudience::Unknown => OAuthError::Target(NOT_GRANTED),
        NoAudience::Ambiguous => OAuthError::Target("the resources mean different audiences"),
    })?;
    match (named, meant) {
        (Some(named), Some(meant)) if named != meant => {
            Err(OAuthError::Target("audience and resource mean different audiences"))
        }
        (named, meant) => Ok(named.or(meant)),
    }
}
