//! Where the bytes of disks are kept.
//!
//! The pool keeps what a disk is called, how large it is and who uses it; a [`DiskStore`] keeps its
//! bytes. Its calls block, so the pool makes them on threads that may.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Which disk: the uuid of its VDI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub Uuid);

/// Keeps the bytes of disks. A disk that was created and never written reads as zeros.
pub trait DiskStore: Send + Sync + 'static {
    /// Makes an empty disk of `size` bytes, or does nothing where there is one already.
    fn create(&self, disk: DiskId, size: u64) -> io::Result<()>;

    /// Makes `to` a copy of `from` with the same size; later writes to one leave the other alone.
    fn clone_disk(&self, from: DiskId, to: DiskId) -> io::Result<()>;

    /// Makes a disk larger; what is new reads as zeros.
    fn resize(&self, disk: DiskId, size: u64) -> io::Result<()>;

    /// Fills `buffer` with what is at `offset`; past the last byte written are zeros.
    fn read_at(&self, disk: DiskId, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes `bytes` at `offset`.
    fn write_at(&self, disk: DiskId, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// The first byte at or behind `from` that may hold something else than zero, as far as the store
    /// knows; nothing when only zeros follow.
    fn next_data(&self, _disk: DiskId, from: u64) -> io::Result<Option<u64>> {
        Ok(Some(from))
    }

    /// How many bytes the disk takes up where it is kept.
    fn used(&self, disk: DiskId) -> io::Result<u64>;

    /// Forgets a disk. Destroying one that is not there succeeds.
    fn destroy(&self, disk: DiskId) -> io::Result<()>;
}

/// Disks as sparse files in one directory. A file appears with the first write.
#[derive(Debug)]
pub struct SparseFiles {
    directory: PathBuf,
    temporary: bool,
}

impl SparseFiles {
    /// Keeps disks in this directory, which is made when it is first needed.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), temporary: false }
    }

    /// Keeps disks in this directory and removes it at the end.
    pub fn temporary(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), temporary: true }
    }

    /// Where the disks are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, disk: DiskId) -> PathBuf {
        self.directory.join(format!("{}.raw", disk.0.hyphenated()))
    }

    fn open(&self, disk: DiskId) -> io::Result<Option<File>> {
        match File::open(self.path(disk)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for SparseFiles {
    fn drop(&mut self) {
        if self.temporary && self.directory.exists() {
            // Nobody is left to be told, and what stays is in a temporary directory.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

impl DiskStore for SparseFiles {
    fn create(&self, _disk: DiskId, _size: u64) -> io::Result<()> {
        Ok(())
    }

    fn clone_disk(&self, from: DiskId, to: DiskId) -> io::Result<()> {
        let Some(source) = self.open(from)? else { return Ok(()) };
        let target = File::create(self.path(to))?;
        copy_data(&source, &target)
    }

    fn resize(&self, _disk: DiskId, _size: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, disk: DiskId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        if let Some(file) = self.open(disk)? {
            while filled < buffer.len() {
                match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
                    0 => break,
                    count => filled += count,
                }
            }
        }
        buffer[filled..].fill(0);
        Ok(())
    }

    fn write_at(&self, disk: DiskId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        let path = self.path(disk);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        file.write_all_at(bytes, offset)
    }

    fn used(&self, disk: DiskId) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        match self.open(disk)? {
            Some(file) => Ok(file.metadata()?.blocks() * 512),
            None => Ok(0),
        }
    }

    fn destroy(&self, disk: DiskId) -> io::Result<()> {
        match std::fs::remove_file(self.path(disk)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Copies what is not zero, so that the copy is as sparse as can be.
fn copy_data(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < length {
        let count = source.read_at(&mut buffer, offset)?;
        if count == 0 {
            break;
        }
        if buffer[..count].iter().any(|byte| *byte != 0) {
            target.write_all_at(&buffer[..count], offset)?;
        }
        offset += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_keeps_its_bytes_when_the_original_changes() {
        let directory = tempfile::tempdir().unwrap();
        let store = SparseFiles::at(directory.path().join("disks"));
        let (one, two) = (DiskId(Uuid::from_u128(1)), DiskId(Uuid::from_u128(2)));
        store.write_at(one, 1 << 20, b"first").unwrap();
        store.clone_disk(one, two).unwrap();
        store.write_at(one, 1 << 20, b"other").unwrap();
        let mut read = [1; 7];
        store.read_at(two, (1 << 20) - 1, &mut read).unwrap();
        assert_eq!(&read, b"\0first\0");
        store.destroy(two).unwrap();
        store.destroy(two).unwrap();
        store.read_at(two, 1 << 20, &mut read).unwrap();
        assert_eq!(read, [0; 7]);
    }
}
