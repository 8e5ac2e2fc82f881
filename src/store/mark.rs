//! The high-water mark: a file with the highest epoch that anyone can have been told.
//!
//! The file lies beside the KEK, not beside the database. A backup of the database does not contain it, so a
//! database that is behind the mark is an old copy that was put back.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::store::durable::sync_name;
use crate::store::kek::{Kek, hmac_sha256};
use crate::store::reservation::private_options;
use crate::store::sqlite::error::StoreError;

/// The length of a slot, in bytes. The file has two slots, each a line; the one with the higher epoch counts.
/// They are overwritten in turn: a write that is cut off damages one and leaves the other. This takes one
/// `fdatasync`, a third of the time that writing a new file and renaming it takes.
const SLOT: usize = 256;

/// The mark of one store.
pub(super) struct Mark {
    file: File,
    path: PathBuf,
    key: Zeroizing<[u8; 32]>,
    store_id: [u8; 16],
    epoch: u64,
    /// The slot that the next epoch is written to: 0 or 1.
    slot: u64,
}

impl Mark {
    /// The mark of a store. `None` if the KEK has no directory for marks, or the file does not exist.
    pub(super) fn of_store(kek: &Kek, store_id: &[u8; 16]) -> Result<Option<Self>, StoreError> {
        match kek.epoch_file(store_id) {
            None => Ok(None),
            Some(path) => Self::open(&path, kek, store_id),
        }
    }

    fn open(path: &Path, kek: &Kek, store_id: &[u8; 16]) -> Result<Option<Self>, StoreError> {
        // A mark that can only be read still tells whether the store is an old copy. Raising it fails later,
        // when it has to be raised.
        let opened = private_options().open(path).or_else(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => File::open(path),
            _ => Err(error),
        });
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(path, &error)),
        };
        let mut bytes = Vec::new();
        let most = SLOT as u64 * 2;
        (&mut file).take(most).read_to_end(&mut bytes).map_err(|e| unavailable(path, &e))?;

        let key = kek.derive("countersign epoch mark v1");
        let slots = (0..).zip(bytes.chunks(SLOT));
        let read = slots.filter_map(|(at, slot)| Some((parse(&key, slot)?, at)));
        // The tuples compare by epoch first.
        let ((epoch, of), at) = read.max().ok_or_else(|| StoreError::BadMark(path.to_owned()))?;
        if of != *store_id {
            return Err(StoreError::MarkOfAnother(path.to_owned()));
        }
        // The next write goes to the other slot, so that the newest epoch survives a write that is cut off.
        let (path, slot) = (path.to_owned(), 1 - at);
        Ok(Some(Self { file, path, key, store_id: *store_id, epoch, slot }))
    }

    /// Creates the mark, in a place where there is none.
    pub(super) fn create(
        path: &Path,
        kek: &Kek,
        store_id: &[u8; 16],
        epoch: u64,
    ) -> Result<Self, StoreError> {
        let unavailable = |error: io::Error| unavailable(path, &error);
        let key = kek.derive("countersign epoch mark v1");
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        // A process that was killed here may have left one.
        let _ = fs::remove_file(&beside);
        let mut file = private_options().create_new(true).open(&beside).map_err(unavailable)?;
        let line = line(&key, store_id, epoch);
        file.write_all(&line)
            .and_then(|()| file.write_all(&line))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&beside, path))
            .and_then(|()| sync_name(path))
            .map_err(unavailable)?;
        Ok(Self { file, path: path.to_owned(), key, store_id: *store_id, epoch, slot: 0 })
    }

    /// The highest epoch that anyone can have been told.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The path of its file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Raises the mark and waits until it is on disk. A lower epoch changes nothing: the mark never sinks.
    ///
    /// After an error the mark is what it was, and the next call writes to the same slot again.
    pub(super) fn raise(&mut self, epoch: u64) -> io::Result<()> {
        if epoch <= self.epoch {
            return Ok(());
        }
        let line = line(&self.key, &self.store_id, epoch);
        self.file.write_all_at(&line, self.slot * SLOT as u64)?;
        self.file.sync_data()?;
        (self.epoch, self.slot) = (epoch, 1 - self.slot);
        Ok(())
    }
}

fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::MarkUnavailable(path.to_owned(), error.to_string())
}

/// The content of a slot: a line of text that people can read, padded with spaces.
fn line(key: &[u8; 32], store_id: &[u8; 16], epoch: u64) -> Vec<u8> {
    let proof = hex(&proof(key, store_id, epoch));
    let text = format!("countersign-epoch {epoch} {} {proof}", hex(store_id));
    let mut line = text.into_bytes();
    line.resize(SLOT - 1, b' ');
    line.push(b'\n');
    line
}

/// The epoch and the store id in a slot. `None` if the slot is damaged or was written with another key.
fn parse(key: &[u8; 32], slot: &[u8]) -> Option<(u64, [u8; 16])> {
    let mut words = std::str::from_utf8(slot).ok()?.split_whitespace();
    if words.next()? != "countersign-epoch" {
        return None;
    }
    let epoch: u64 = words.next()?.parse().ok()?;
    let id = u128::from_str_radix(words.next()?, 16).ok()?.to_be_bytes();
    let proven: bool =
        hex(&proof(key, &id, epoch)).as_bytes().ct_eq(words.next()?.as_bytes()).into();
    proven.then_some((epoch, id))
}

fn proof(key: &[u8; 32], store_id: &[u8; 16], epoch: u64) -> [u8; 32] {
    hmac_sha256(key, &[store_id, &epoch.to_be_bytes()])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: [u8; 16] = [7; 16];

    fn kek() -> Kek {
        Kek::generate().expect("the system has randomness")
    }

    #[test]
    fn a_mark_rises_and_never_sinks() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, kek) = (directory.path().join("mark"), kek());
        assert!(Mark::open(&path, &kek, &STORE).expect("a missing file is no error").is_none());
        let mut mark = Mark::create(&path, &kek, &STORE, 5).expect("the file is writable");
        for epoch in [6, 4, 7, 1 << 32, 8] {
            mark.raise(epoch).expect("the file is writable");
            let read = Mark::open(&path, &kek, &STORE)
                .expect("the mark is intact")
                .expect("the file exists");
            assert_eq!((mark.epoch(), read.epoch()), (mark.epoch().max(epoch), mark.epoch()));
        }
        let mut again =
            Mark::open(&path, &kek, &STORE).expect("the mark is intact").expect("the file exists");
        again.raise((1 << 32) + 1).expect("the file is writable");
        let read =
            Mark::open(&path, &kek, &STORE).expect("the mark is intact").expect("the file exists");
        assert_eq!(read.epoch(), (1 << 32) + 1);
    }

    #[test]
    fn raising_a_mark_that_cannot_be_written_fails_and_leaves_it_unchanged() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, kek) = (directory.path().join("mark"), kek());
        let mut mark = Mark::create(&path, &kek, &STORE, 5).expect("the file is writable");
        mark.file = File::open(&path).expect("the file exists");
        assert!(mark.raise(6).is_err());
        assert_eq!(mark.epoch(), 5, "the next batch tries again");
        mark.file = private_options().open(&path).expect("the file exists");
        mark.raise(6).expect("the file is writable");
        let read =
            Mark::open(&path, &kek, &STORE).expect("the mark is intact").expect("the file exists");
        assert_eq!(read.epoch(), 6);
    }

    #[test]
    fn a_write_that_is_cut_off_leaves_the_previous_mark() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, kek) = (directory.path().join("mark"), kek());
        let mut mark = Mark::create(&path, &kek, &STORE, 5).expect("the file is writable");
        mark.raise(6).expect("the file is writable");
        mark.raise(7).expect("the file is writable");
        let mut bytes = fs::read(&path).expect("the file exists");
        let newest = bytes
            .windows(19)
            .position(|w| w == b"countersign-epoch 7")
            .expect("a slot has epoch 7");
        bytes[newest + 30..newest + 100].fill(0);
        fs::write(&path, &bytes).expect("the file is writable");
        let read =
            Mark::open(&path, &kek, &STORE).expect("one slot is intact").expect("the file exists");
        assert_eq!(read.epoch(), 6);

        fs::write(&path, b"").expect("the file is writable");
        let error = Mark::open(&path, &kek, &STORE).err();
        assert_eq!(error, Some(StoreError::BadMark(path)));
    }

    #[test]
    fn a_mark_of_another_store_another_kek_or_with_a_changed_epoch_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (path, kek) = (directory.path().join("mark"), kek());
        Mark::create(&path, &kek, &STORE, 5).expect("the file is writable");
        let error = |kek: &Kek, store: &[u8; 16]| Mark::open(&path, kek, store).err();
        assert_eq!(error(&kek, &[8; 16]), Some(StoreError::MarkOfAnother(path.clone())));
        assert_eq!(error(&self::kek(), &STORE), Some(StoreError::BadMark(path.clone())));

        let text = fs::read_to_string(&path).expect("the file exists");
        fs::write(&path, text.replace("epoch 5 ", "epoch 1 ")).expect("the file is writable");
        assert_eq!(error(&kek, &STORE), Some(StoreError::BadMark(path.clone())));
    }
}
