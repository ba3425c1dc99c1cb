//! Files and directories that only their owner may use.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::path::Path;

/// Makes a directory and those above it, or takes from others what they may do in one that is there.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    keep_private(path, 0o700)
}

/// Opens a file for locking, and makes it if it is not there.
///
/// Not for a database: when any descriptor of it is closed, SQLite loses its locks on it.
pub(crate) fn lock_file(path: &Path) -> io::Result<File> {
    private().write(true).create(true).truncate(false).open(path)
}

/// Makes an empty file unless it is there; one that is there is not opened, see [`lock_file`].
pub(crate) fn ensure_file(path: &Path) -> io::Result<()> {
    match private().write(true).create_new(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => keep_private(path, 0o600),
        Err(error) => Err(error),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(unix)]
fn keep_private(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let present = fs::metadata(path)?.permissions().mode();
    if present & 0o777 & !mode == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn keep_private(path: &Path, _: u32) -> io::Result<()> {
    fs::metadata(path).map(|_| ())
}

/// Whether the path still leads to the file that was opened by it.
#[cfg(unix)]
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let opened = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the path still leads to the file that was opened by it: where files that are open cannot
/// be removed, it does.
#[cfg(not(unix))]
pub(crate) fn is_at(_: &File, path: &Path) -> io::Result<bool> {
    path.try_exists()
}
