//! Whether the server is up, for whatever starts and watches processes.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use crate::server::oauth::answer::json;
use crate::server::oauth::endpoints::Endpoints;

#[derive(Serialize)]
struct Body {
    status: &'static str,
}

/// `GET /health/live`: the process serves.
pub(super) async fn live() -> Response {
    json(&Body { status: "live" })
}

/// `GET /health/ready`: the process can issue tokens, and goes on to serve.
pub(super) async fn ready(State(endpoints): State<Endpoints>) -> Response {
    let (authority, now) = (&endpoints.desk.authority, endpoints.desk.clock.now());
    if endpoints.is_stopping() {
        unready("stopping")
    } else if authority.can_issue(now) || authority.renew_lease(now).await {
        json(&Body { status: "ready" })
    } else {
        unready("store_unavailable")
    }
}

fn unready(status: &'static str) -> Response {
    let mut response = json(&Body { status });
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use countersign_mesh::claims::Clock;
    use tokio::sync::watch;

    use super::*;
    use crate::authority::{Authority, Settings, host};
    use crate::server::desk::Desk;
    use crate::server::limits::{LimitSettings, Limits};
    use crate::store::{self, Kek};

    fn desk(directory: &Path) -> Desk {
        let clock = Clock::system();
        let path = directory.join("countersign.db");
        let kek = Kek::generate().expect("randomness");
        let issuer = "https://issuer.test".parse().expect("an issuer");
        let place = store::reserve(&path).expect("nothing is there");
        host::init(&place, &kek, &issuer, &[], clock.now()).expect("a fresh store");
        drop(place);
        let authority = Authority::open(&path, kek, Settings::default(), &clock).expect("it opens");
        let limits = Arc::new(Limits::new(&LimitSettings::default()));
        Desk { authority: Arc::new(authority), clock, limits }
    }

    /// Not tested over the wire: a server that stops takes no more connections.
    #[tokio::test]
    async fn a_server_that_stops_is_live_and_not_ready() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (stopping, stopped) = watch::channel(());
        let endpoints = Endpoints::new(desk(directory.path()), false, stopped);
        assert_eq!(ready(State(endpoints.clone())).await.status(), StatusCode::OK);
        drop(stopping);
        assert_eq!(ready(State(endpoints)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(live().await.status(), StatusCode::OK);
    }
}
