//! `POST /oauth/revoke` (RFC 7009).

use crate::authority::{Act, RevocationTarget};
use crate::client::AuthenticatedClient;
use crate::policy::Operator;
use crate::server::desk::Desk;
use crate::server::oauth::errors::OAuthError;
use crate::server::oauth::request::Post;

/// There is one type of token, so `token_type_hint` tells nothing (RFC 7009 §2.1 lets us ignore it).
pub(super) async fn revoke(
    desk: &Desk,
    caller: &AuthenticatedClient,
    post: &Post,
) -> Result<(), OAuthError> {
    let token = post.form.get("token").ok_or(OAuthError::Invalid("token is missing"))?;
    let act = Act {
        operator: Operator::authenticated(caller),
        peer: post.peer.clone(),
        now: desk.clock.now(),
        request: None,
    };
    Ok(desk.authority.revoke_token(act, RevocationTarget::Token(token)).await?)
}
