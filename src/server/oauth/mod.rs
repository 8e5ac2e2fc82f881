//! OAuth 2.0 over plain HTTP, for everything that speaks it already.
//!
//! A request is read within bounds into a form, the client is authenticated, the authority is asked,
//! and what it says becomes JSON. There is no CORS: a browser has no business with client secrets.

mod answer;
mod authorization;
mod client_auth;
mod endpoints;
mod errors;
mod form;
mod health;
mod home;
mod introspect;
mod jwks;
mod metadata;
mod openapi;
mod request;
mod revoke;
mod token;

pub use self::authorization::BasicCredentials;
pub(super) use self::endpoints::Endpoints;
pub use self::form::{Form, FormError};

pub(super) use self::metadata::{path_of, without_path};

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::StatusCode;

use crate::server::notes::RequestNotes;
use crate::server::oauth::answer::{UNCACHED, json};
use crate::server::oauth::client_auth::authenticate;
use crate::server::oauth::errors::OAuthError;
use crate::server::oauth::request::Post;

/// All routes there are: what `openapi.json` describes.
fn table() -> [(&'static str, MethodRouter<Endpoints>); 13] {
    [
        (HOME, get(home::page)),
        ("/oauth/token", post(token)),
        ("/oauth2/token", post(token)),
        ("/oauth/introspect", post(introspect)),
        ("/oauth2/introspect", post(introspect)),
        ("/oauth/revoke", post(revoke)),
        ("/oauth2/revoke", post(revoke)),
        ("/.well-known/jwks.json", get(jwks::keys)),
        ("/.well-known/oauth-authorization-server", get(metadata::metadata)),
        ("/.well-known/openid-configuration", get(metadata::metadata)),
        ("/health/live", get(health::live)),
        ("/health/ready", get(health::ready)),
        ("/openapi.json", get(openapi::document)),
    ]
}

/// The page at the root, for people.
pub(super) fn home() -> Router {
    Router::new().route(HOME, get(home::page))
}

const HOME: &str = "/";

/// The routes but for the root, ready to serve.
pub(super) fn routes(endpoints: Endpoints) -> Router {
    table()
        .into_iter()
        .filter(|(path, _)| *path != HOME)
        .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
        .with_state(endpoints)
}

async fn token(State(Endpoints { desk, .. }): State<Endpoints>, request: Request) -> Response {
    let notes = notes(&request);
    let answer = async { token::issue(&desk, &Post::read(request).await?).await };
    end(&notes, answer.await.map(|answer| json(&answer)))
}

async fn introspect(State(Endpoints { desk, .. }): State<Endpoints>, request: Request) -> Response {
    let notes = notes(&request);
    let answer = async {
        let post = Post::read(request).await?;
        let caller = authenticate(&desk, &post)?;
        introspect::introspect(&desk, caller.client(), &post)
    };
    end(&notes, answer.await.map(|answer| json(&answer)))
}

async fn revoke(State(Endpoints { desk, .. }): State<Endpoints>, request: Request) -> Response {
    let notes = notes(&request);
    let answer = async {
        let post = Post::read(request).await?;
        let caller = authenticate(&desk, &post)?;
        revoke::revoke(&desk, caller.client(), &post).await
    };
    end(&notes, answer.await.map(|()| (StatusCode::OK, UNCACHED).into_response()))
}

/// The answer to a request over plain HTTP in an overload.
pub(super) fn overloaded() -> Response {
    OAuthError::Overloaded.into_response(&RequestNotes::default())
}

/// The answer to a request over plain HTTP that is given up.
pub(super) fn too_long() -> Response {
    let error = OAuthError::Unavailable("the answer took too long; try again later");
    error.into_response(&RequestNotes::default())
}

fn notes(request: &Request) -> Arc<RequestNotes> {
    request.extensions().get::<Arc<RequestNotes>>().cloned().unwrap_or_default()
}

fn end(notes: &RequestNotes, outcome: Result<Response, OAuthError>) -> Response {
    outcome.unwrap_or_else(|error| error.into_response(notes))
}
