//! Making sure that a file's name survives a power cut, and not only its content.

use std::fs::File;
use std::io;
use std::path::Path;

/// Waits until the name of a file that was created or renamed is on disk. Syncing the file itself does not
/// guarantee that; syncing its directory does.
///
/// # Errors
/// When the directory does not exist or the disk fails. It is no error if the directory cannot be opened for
/// lack of permission, or the file system does not support syncing a directory.
pub fn sync_name(path: &Path) -> io::Result<()> {
    // A path of one component lies in the working directory.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match File::open(parent.unwrap_or(Path::new("."))).and_then(|parent| parent.sync_all()) {
        // We may write to this directory but not read it, or its file system cannot sync directories.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_synced_in_any_directory_and_a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("file");
        for path in [&file, Path::new("Cargo.toml"), Path::new("/")] {
            sync_name(path).expect("its directory exists");
        }
        assert!(sync_name(&file.join("file")).is_err());
    }
}
