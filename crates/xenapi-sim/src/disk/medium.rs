//! What images are read into and written from.

use std::io;
use std::sync::Arc;

use super::DiskError;
use super::file::{Disk, Extent, is_zero};
use crate::store::{DiskId, DiskStore};

const PIECE: u64 = 1 << 20;

/// Bytes at offsets: a file ([`Disk`]), or a disk of whatever store a pool has ([`StoredDisk`]).
pub trait Medium: Send + Sync {
    /// The size in bytes.
    fn size(&self) -> Result<u64, DiskError>;
    /// Fills `buffer` from `offset` on.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;
    /// Writes `bytes` at `offset`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Makes a part read as zeros.
    fn clear(&self, offset: u64, length: u64) -> Result<(), DiskError>;
    /// The first part at or behind `from` that may hold something else than zeros.
    fn next_extent(&self, from: u64) -> Result<Option<Extent>, DiskError>;
}

impl Medium for Disk {
    fn size(&self) -> Result<u64, DiskError> {
        self.size()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.write_at(offset, bytes)
    }
    fn clear(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.clear(offset, length)
    }
    fn next_extent(&self, from: u64) -> Result<Option<Extent>, DiskError> {
        self.next_extent(from)
    }
}

/// A disk in a store, with the size that its pool knows.
#[derive(Clone)]
pub struct StoredDisk {
    store: Arc<dyn DiskStore>,
    disk: DiskId,
    size: u64,
}

impl StoredDisk {
    /// The disk of this name.
    pub fn new(store: Arc<dyn DiskStore>, disk: DiskId, size: u64) -> Self {
        Self { store, disk, size }
    }

    fn check_range(&self, offset: u64, length: usize) -> Result<(), DiskError> {
        let end = offset.saturating_add(length as u64);
        let size = self.size;
        if end > size { Err(DiskError::OutOfRange { offset, end, size }) } else { Ok(()) }
    }

    /// The pieces that cover a part: where each starts, and its length.
    fn pieces(offset: u64, end: u64) -> impl Iterator<Item = (u64, usize)> {
        let starts = std::iter::successors(Some(offset), |start| Some((start / PIECE + 1) * PIECE));
        starts.take_while(move |start| *start < end).map(move |start| {
            let length = (PIECE - start % PIECE).min(end - start);
            (start, usize::try_from(length).unwrap_or(0))
        })
    }
}

impl std::fmt::Debug for StoredDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredDisk")
            .field("disk", &self.disk)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

fn access(action: &'static str) -> impl Fn(io::Error) -> DiskError {
    move |source| DiskError::Access { action, source }
}

impl Medium for StoredDisk {
    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.size)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.check_range(offset, buffer.len())?;
        self.store.read_at(self.disk, offset, buffer).map_err(access("read"))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check_range(offset, bytes.len())?;
        self.store.write_at(self.disk, offset, bytes).map_err(access("write"))
    }

    fn clear(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let mut piece = Vec::new();
        while let Some(extent) = self.next_extent(offset)?.filter(|it| it.offset < offset + length)
        {
            let end = extent.end().min(offset + length);
            for (start, length) in Self::pieces(extent.offset, end) {
                piece.resize(length, 0);
                piece.fill(0);
                self.write_at(start, &piece)?;
            }
            if end == offset + length {
                break;
            }
        }
        Ok(())
    }

    /// Asks the store, and else looks for itself.
    fn next_extent(&self, from: u64) -> Result<Option<Extent>, DiskError> {
        let known = self.store.next_data(self.disk, from).map_err(access("look through"))?;
        let Some(start) = known.filter(|start| *start < self.size) else { return Ok(None) };
        let mut piece = Vec::new();
        for (offset, length) in Self::pieces(start, self.size) {
            piece.resize(length, 0);
            self.read_at(offset, &mut piece)?;
            if !is_zero(&piece) {
                return Ok(Some(Extent { offset, length: length as u64 }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskDirectory;
    use uuid::Uuid;

    /// A store that says of no part of a disk that it is empty.
    struct WithoutHoles(DiskDirectory);

    impl DiskStore for WithoutHoles {
        fn create(&self, disk: DiskId, size: u64) -> io::Result<()> {
            DiskStore::create(&self.0, disk, size)
        }
        fn clone_disk(&self, from: DiskId, to: DiskId) -> io::Result<()> {
            DiskStore::clone_disk(&self.0, from, to)
        }
        fn resize(&self, disk: DiskId, size: u64) -> io::Result<()> {
            DiskStore::resize(&self.0, disk, size)
        }
        fn read_at(&self, disk: DiskId, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.0.read_at(disk, offset, buffer)
        }
        fn write_at(&self, disk: DiskId, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_at(disk, offset, bytes)
        }
        fn used(&self, disk: DiskId) -> io::Result<u64> {
            self.0.used(disk)
        }
        fn destroy(&self, disk: DiskId) -> io::Result<()> {
            self.0.destroy(disk)
        }
    }

    #[test]
    fn data_is_found_on_a_store_that_knows_no_holes() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(WithoutHoles(DiskDirectory::open(directory.path()).unwrap()));
        let disk = StoredDisk::new(store, DiskId(Uuid::from_u128(1)), 10 << 20);
        assert_eq!(disk.next_extent(0).unwrap(), None);
        disk.write_at((5 << 20) + 17, b"x").unwrap();
        let found = disk.next_extent(100).unwrap().unwrap();
        assert_eq!(found, Extent { offset: 5 << 20, length: 1 << 20 });
        assert_eq!(disk.next_extent(found.end()).unwrap(), None);
        assert!(disk.write_at((10 << 20) - 1, b"xy").is_err());
        disk.clear(0, 10 << 20).unwrap();
        assert_eq!(disk.next_extent(0).unwrap(), None);
    }
}
