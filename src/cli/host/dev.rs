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

/// Where the state is unless someone says otherwise; the command line looks for credentials there.
const DIRECTORY: &str = "countersign-dev";
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

/// What to type next, each command on a line of its own that can be pasted as it is, in another terminal of the
/// same directory.
pub(super) fn banner(place: &Place, address: SocketAddr) -> String {
    let program = shell_word(&program());
    let directory = place.directory();
    // The command line finds the default directory by itself.
    let of = |file: &str| match directory == Path::new(DIRECTORY) {
        true => String::new(),
        false => format!(" --credentials {}", shell_word(&directory.join(file))),
    };
    let (demo, operator) = (of(DEMO), of(OPERATOR));
    let file = shell_word(&directory.join(DEMO));
    let url = url(address);
    format!(
        "State is in {}. In another terminal of this directory:\n\n\
         Issue a token, and validate one:\n\
         $ {program} token issue{demo}\n\
         $ {program} token issue{demo} | {program} token validate{demo} -\n\n\
         The same with curl:\n\
         $ secret=$(sed -n 's/^client_secret = \"\\(.*\\)\"/\\1/p' {file})\n\
         $ curl -s -u \"demo:$secret\" -d grant_type=client_credentials {url}/oauth/token\n\n\
         Rotate the signing keys, and see what there is to do:\n\
         $ {program} keys rotate{operator}\n\
         $ {program} --help\n\n",
        directory.display()
    )
}

/// How to call this program from here: by its name where the shell finds it, else by its path from here.
fn program() -> PathBuf {
    let name = Path::new("countersign");
    let Ok(own) = std::env::current_exe() else { return name.to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|directory| directory.join(name));
    if found.any(|file| file.canonicalize().is_ok_and(|file| file == own)) {
        return name.to_owned();
    }
    let here = std::env::current_dir().ok();
    match here.and_then(|here| own.strip_prefix(here).map(Path::to_owned).ok()) {
        Some(path) if path.components().count() > 1 => path,
        Some(path) => Path::new(".").join(path),
        None => own,
    }
}
