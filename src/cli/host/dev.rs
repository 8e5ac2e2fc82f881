//! `serve --dev`: creates what is missing, and prints what to type next.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use countersign_mesh::claims::{ClientId, Issuer, ScopeSet, Timestamp};

use crate::authority::host::{self, NewClient};
use crate::cli::credentials::{self, shell_word};
use crate::cli::error::Error;
use crate::cli::host::credentials_file;
use crate::cli::host::errors::{no_randomness, store_error};
use crate::cli::host::place::Place;
use crate::client::{GrantRule, Grants, Serves};
use crate::store::{self, Reservation, StoreError};

const DEMO: &str = "demo.toml";
const OPERATOR: &str = "operator.toml";

/// Creates the store with a demo client and an operator, unless it is there.
pub(super) fn prepare(place: &Place, address: SocketAddr, now: Timestamp) -> Result<(), Error> {
    if place.database().exists() {
        return Ok(());
    }
    place.prepare()?;
    match store::reserve(&place.database()) {
        Ok(reservation) => create(place, &reservation, &url(address), now),
        // Another process has just created the store. Opening the store will show whether that process
        // serves it, too.
        Err(StoreError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(store_error(error)),
    }
}

/// Makes the credentials files name the address that is served now. Called only once the store is open:
/// until then another process may be serving it, and the files rightly name that one's address.
pub(super) fn point_credentials(place: &Place, address: SocketAddr) -> Result<(), Error> {
    for file in [DEMO, OPERATOR].map(|name| place.directory().join(name)) {
        if file.exists() {
            credentials::point_to(&file, &url(address))?;
        }
    }
    Ok(())
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn create(
    place: &Place,
    reservation: &Reservation,
    url: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let issuer = Issuer::new(url).expect("an address makes a valid URL");
    let id = |text: &str| ClientId::new(text).expect("the names here are valid");
    let operator =
        NewClient::operator(id("operator"), "The operator", now).map_err(no_randomness)?;
    // The demo client serves the audience that it calls, so that it may validate its own tokens.
    let audience = "demo".parse().expect("a valid audience");
    let rule = GrantRule {
        audience,
        scopes: ScopeSet::parse("demo:read demo:write").expect("valid scopes"),
    };
    let serves = Serves::try_from(vec![rule.audience.clone()]).expect("one audience");
    let grants = Grants::try_from(vec![rule]).expect("one grant with scopes");
    let demo = NewClient::new(id("demo"), "For trying things out", grants, serves, now)
        .map_err(no_randomness)?;

    // There is no store yet, so these files can only be left from a start that was killed: their
    // clients do not exist.
    for name in [DEMO, OPERATOR] {
        let _ = fs::remove_file(place.directory().join(name));
    }
    let kek = place.create_kek()?;
    // The store is created last, so that a store never exists without its key and its credentials
    // files.
    let demo_file = credentials_file(&place.directory().join(DEMO), url, &demo)?;
    let operator_file = credentials_file(&place.directory().join(OPERATOR), url, &operator)?;
    host::init(reservation, &kek, &issuer, &[demo, operator], now).map_err(store_error)?;
    demo_file.keep();
    operator_file.keep();
    Ok(())
}

/// What to type next, each command on a line of its own that can be pasted as it is.
pub(super) fn commands(place: &Place) -> Result<String, Error> {
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map(|path| shell_word(&path)).map_err(|error| {
            Error::failed(
                format!("cannot tell where {} is: {error}", path.display()),
                "try another directory",
            )
        })
    };
    let program = std::env::current_exe().unwrap_or_else(|_| Path::new("countersign").to_owned());
    let program = shell_word(&program);
    let demo = absolute(place.directory().join(DEMO))?;
    let operator = absolute(place.directory().join(OPERATOR))?;
    let issue = format!("{program} token issue --credentials {demo}");
    Ok(format!(
        "\nIssue a token:\n\
         $ {issue}\n\n\
         Issue one and validate it:\n\
         $ {issue} | {program} token validate --credentials {demo} -\n\n\
         Rotate the signing keys:\n\
         $ {program} keys rotate --credentials {operator}\n\n"
    ))
}
