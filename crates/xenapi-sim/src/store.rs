//! Where the bytes of disks are kept.
//!
//! The pool keeps what a disk is called, how large it is and who uses it; a [`DiskStore`] keeps its
//! bytes. Its calls block, so the pool makes them on threads that may. The usual store is
//! [`DiskDirectory`](crate::disk::DiskDirectory).

use std::io;

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
