//! What goes wrong on the host, and what to do next.

use crate::authority::host::HostError;
use crate::cli::error::Error;
use crate::store::StoreError;

pub(super) fn host_error(error: HostError) -> Error {
    match error {
        HostError::Store(error) => store_error(error),
        HostError::ClientExists(id) => Error::refused(
            format!("there is a client {id} already"),
            "choose another with --operator-id",
        ),
        HostError::ClockBehind(error) => Error::failed(error.to_string(), "nothing was changed"),
    }
}

pub(super) fn store_error(error: StoreError) -> Error {
    let next = match &error {
        StoreError::WrongKek => "name the right one with --kek-file or COUNTERSIGN_KEK",
        StoreError::AlreadyExists(_) | StoreError::NotOurs(_) => {
            "name another directory with --data-dir"
        }
        StoreError::PutBack { .. } => {
            "run `countersign restore`, which begins anew with other keys"
        }
        StoreError::MarkOfAnother(_) => {
            "give it the name that it had, or name another directory with --epoch-dir"
        }
        StoreError::BadMark(_) => {
            "make sure that the store is the latest, then remove this file; with an old copy, run `countersign restore`"
        }
        StoreError::MarkUnavailable(..) => "name a directory that can be written with --epoch-dir",
        StoreError::InUse(_) => "or, while a server runs, use the commands that speak to it",
        StoreError::NotFound(_) => {
            "name the directory of a store with --data-dir, or make one with `countersign init`"
        }
        StoreError::TooNew { .. } => "run the version of countersign that wrote it, or a later one",
        StoreError::BadSealedKey(_) | StoreError::BadKeyRing => {
            "the database was written to by something else; put back a backup with `countersign restore --from`"
        }
        StoreError::Corrupt(_) => {
            "put back a backup with `countersign restore --from`; `countersign audit verify` tells more"
        }
        StoreError::Unavailable(_) => "nothing was changed; put that right and try again",
    };
    Error::failed(error.to_string(), next)
}

pub(super) fn no_randomness(error: getrandom::Error) -> Error {
    Error::failed(format!("the system has no randomness to give: {error}"), "try again")
}
