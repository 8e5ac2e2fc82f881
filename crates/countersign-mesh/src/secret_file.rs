//! Files that hold a secret: who may read them beside their owner, and how they are read. One rule for all of them,
//! in the server, the command line and sessions.
//!
//! The owner reads such a file, and nobody else does. If it belongs to root, its group may read it too, and not
//! write it. Kubernetes mounts secrets so for a pod that does not run as root (`fsGroup`), and systemd does.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

/// Why a file is not read.
#[derive(Debug)]
pub enum SecretFileError {
    /// It cannot be read.
    Unreadable(io::Error),
    /// Others than it may be for can read it, or write it; its permissions.
    OpenToOthers(u32),
}

/// The permissions of a file, if others than it may be for have some.
pub fn open_to_others(metadata: &Metadata) -> Option<u32> {
    open_with(metadata.uid(), metadata.mode())
}

fn open_with(owner: u32, mode: u32) -> Option<u32> {
    const ROOT: u32 = 0;
    const GROUP_READS: u32 = 0o040;
    const GROUP_AND_OTHERS: u32 = 0o077;
    let allowed = if owner == ROOT { GROUP_READS } else { 0 };
    (mode & GROUP_AND_OTHERS & !allowed != 0).then_some(mode & 0o7777)
}

/// Opens a file with a secret.
///
/// # Errors
/// When that cannot be done, or others can read it.
pub fn open(path: &Path) -> Result<File, SecretFileError> {
    let file = File::open(path).map_err(SecretFileError::Unreadable)?;
    // Of the open file, not of the path: by now that could lead to another, as `..data` of a mounted secret does.
    let metadata = file.metadata().map_err(SecretFileError::Unreadable)?;
    match open_to_others(&metadata) {
        Some(mode) => Err(SecretFileError::OpenToOthers(mode)),
        None => Ok(file),
    }
}

/// The text of a file with a secret, without a byte order mark. No more than `most` bytes are read.
///
/// # Errors
/// When it cannot be read, is not UTF-8, or others can read it.
pub fn read(path: &Path, most: u64) -> Result<Zeroizing<String>, SecretFileError> {
    text_of(open(path)?, most).map_err(SecretFileError::Unreadable)
}

/// The text of an open file, without a byte order mark. No more than `most` bytes are read.
///
/// # Errors
/// When it cannot be read or is not UTF-8.
pub fn text_of(file: impl Read, most: u64) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    file.take(most).read_to_string(&mut text)?;
    if without_mark(&text).len() < text.len() {
        return Ok(Zeroizing::new(without_mark(&text).to_owned()));
    }
    Ok(text)
}

/// A text without the byte order mark that some editors begin a file with: it is not part of what is in it.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_but_the_owner_and_roots_group_may_read_a_secret() {
        const US: u32 = 1000;
        for closed in [0o400, 0o600, 0o700] {
            assert_eq!(open_with(US, 0o100_000 | closed), None, "{closed:o}");
            assert_eq!(open_with(0, 0o100_000 | closed), None, "{closed:o}");
        }
        for open in [0o440, 0o640, 0o444, 0o644, 0o604, 0o620, 0o610, 0o666] {
            assert_eq!(open_with(US, 0o100_000 | open), Some(open), "{open:o}");
        }
        assert_eq!(open_with(0, 0o100_440), None);
        assert_eq!(open_with(0, 0o100_640), None);
        for open in [0o660, 0o650, 0o644, 0o444, 0o604] {
            assert_eq!(open_with(0, 0o100_000 | open), Some(open), "{open:o}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_not_part_of_a_secret() {
        let text = |bytes: &[u8]| text_of(bytes, 100).expect("it is text").to_string();
        assert_eq!(text(b"\xef\xbb\xbfcsec_hush"), "csec_hush");
        assert_eq!(text(b"csec_hush"), "csec_hush");
        assert_eq!(text(b"\xef\xbb\xbf"), "");
        assert_eq!(text("csec\u{feff}".as_bytes()), "csec\u{feff}", "only at the start");
        assert!(text_of(b"\xff\xfec\0".as_slice(), 100).is_err(), "UTF-16 is no text");
    }
}
