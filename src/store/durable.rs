//! Making sure that a file is on disk under its name.

use std::fs::File;
use std::io;
use std::path::Path;

/// Waits until a file that was made or renamed has its name on disk, too: syncing the file itself
/// does not promise that.
///
/// # Errors
/// When the disk fails. A directory that cannot be synced, because we may not read it or its file system syncs none, is
/// no error.
pub fn sync_name(path: &Path) -> io::Result<()> {
    // A name without a directory is in this one.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match File::open(parent.unwrap_or(Path::new("."))).and_then(|parent| parent.sync_all()) {
        // We may write to the directory but not read it, or the file system syncs no directories.
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
    fn a_name_is_synced_wherever_it_is_and_an_error_is_told() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("file");
        for path in [&file, Path::new("Cargo.toml"), Path::new("/")] {
            sync_name(path).expect("its directory is there");
        }
        assert!(sync_name(&file.join("file")).is_err());
    }
}
