//! Raw images: the disk's bytes as they are.

use std::io::{Read, Write};

use super::file::Disk;
use super::{DiskError, ImageError, Medium};

/// How much is moved at once.
pub(super) const PIECE: usize = 1 << 20;

/// Reads a raw image into a disk and returns how many bytes it had.
///
/// One that is shorter than the disk leaves the rest as it is. One that is longer fails, with the disk
/// filled by then. What arrived before a broken stream is kept.
pub fn import_raw(disk: &dyn Medium, mut stream: impl Read) -> Result<u64, ImageError> {
    let size = disk.size()?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    loop {
        let (read, end) = fill(&mut stream, &mut buffer);
        if read as u64 > size - at {
            let fits = usize::try_from(size - at).unwrap_or(read).min(read);
            disk.write_at(at, &buffer[..fits])?;
            return Err(ImageError::TooLong { size });
        }
        disk.write_at(at, &buffer[..read])?;
        at += read as u64;
        match end {
            End::More => {}
            End::Done => return Ok(at),
            End::Broken(source) => return Err(ImageError::Stream { at, source }),
        }
    }
}

/// Writes a disk as a raw image: all of its bytes, holes as zeros.
pub fn export_raw(disk: &dyn Medium, mut stream: impl Write) -> Result<u64, ImageError> {
    let size = disk.size()?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < size {
        let data = disk.next_extent(at)?;
        let piece = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        let piece = &mut buffer[..piece];
        if data.is_some_and(|extent| extent.offset < at + piece.len() as u64) {
            disk.read_at(at, piece)?;
        } else {
            piece.fill(0);
        }
        stream.write_all(piece).map_err(|source| ImageError::Stream { at, source })?;
        at += piece.len() as u64;
    }
    stream.flush().map_err(|source| ImageError::Stream { at, source })?;
    Ok(size)
}

/// Copies what takes room in one disk to the same places of another.
pub(super) fn copy_extents(from: &Disk, to: &Disk) -> Result<(), DiskError> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while let Some(extent) = from.next_extent(at)? {
        at = extent.offset;
        while at < extent.end() {
            let piece = usize::try_from(extent.end() - at).unwrap_or(PIECE).min(PIECE);
            from.read_at(at, &mut buffer[..piece])?;
            to.write_at(at, &buffer[..piece])?;
            at += piece as u64;
        }
    }
    Ok(())
}

/// How a read went on.
enum End {
    More,
    Done,
    Broken(std::io::Error),
}

/// Reads until the buffer is full or nothing follows: what came before a failure counts.
fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> (usize, End) {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return (filled, End::Done),
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, End::Broken(error)),
        }
    }
    (filled, End::More)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskDirectory;
    use crate::store::DiskId;

    fn disk(size: u64) -> (tempfile::TempDir, Disk) {
        let directory = tempfile::tempdir().unwrap();
        let disk = DiskDirectory::open(directory.path())
            .unwrap()
            .create(DiskId(uuid::Uuid::new_v4()), size);
        (directory, disk.unwrap())
    }

    #[test]
    fn an_image_shorter_than_the_disk_leaves_the_rest_as_it_was() {
        let (_directory, disk) = disk(10);
        disk.write_at(0, b"0123456789").unwrap();
        assert_eq!(import_raw(&disk, &b"abc"[..]).unwrap(), 3);
        let mut out = Vec::new();
        assert_eq!(export_raw(&disk, &mut out).unwrap(), 10);
        assert_eq!(out, b"abc3456789");
    }

    #[test]
    fn an_image_longer_than_the_disk_is_an_error() {
        let (_directory, disk) = disk(4);
        let error = import_raw(&disk, &b"abcdef"[..]).unwrap_err();
        assert!(matches!(error, ImageError::TooLong { size: 4 }), "{error}");
    }

    #[test]
    fn what_came_before_a_stream_broke_is_kept() {
        struct Broken(bool);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
                buffer[..3].copy_from_slice(b"abc");
                Ok(3)
            }
        }
        let (_directory, disk) = disk(6);
        let error = import_raw(&disk, Broken(false)).unwrap_err();
        assert!(matches!(error, ImageError::Stream { at: 3, .. }), "{error}");
        let mut out = Vec::new();
        export_raw(&disk, &mut out).unwrap();
        assert_eq!(out, b"abc\0\0\0");
    }

    #[test]
    fn a_sparse_image_stays_sparse() {
        let (_directory, disk) = disk(64 << 20);
        let mut image = vec![0; 64 << 20];
        image[30 << 20..][..5].copy_from_slice(b"hello");
        import_raw(&disk, &*image).unwrap();
        assert_eq!(disk.allocated().unwrap(), 4096);
        let mut out = Vec::new();
        export_raw(&disk, &mut out).unwrap();
        assert!(out == image);
    }
}
