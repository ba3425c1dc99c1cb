//! One disk: a sparse file that is read and written at offsets.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::DiskError;

/// The unit in which zeros are looked for and left out.
const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A part of a disk that takes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

impl Extent {
    /// The first byte behind it.
    pub fn end(self) -> u64 {
        self.offset + self.length
    }
}

/// An open disk. Clones refer to the same one, from any thread.
#[derive(Clone, Debug)]
pub struct Disk {
    file: Arc<File>,
}

impl Disk {
    pub(super) fn new(file: File) -> Self {
        Self { file: Arc::new(file) }
    }

    /// Its size in bytes, holes included.
    pub fn size(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(access("measure"))?.len())
    }

    /// The room that it takes, in bytes.
    pub fn allocated(&self) -> Result<u64, DiskError> {
        Ok(self.file.metadata().map_err(access("measure"))?.blocks() * 512)
    }

    /// Fills `buffer` from `offset` on. Holes read as zeros.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.check_range(offset, buffer.len())?;
        self.file.read_exact_at(buffer, offset).map_err(access("read"))
    }

    /// Writes `bytes` at `offset`. Whole blocks of zeros become holes.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check_range(offset, bytes.len())?;
        for run in Runs::new(offset, bytes) {
            match run {
                Run::Data { offset, bytes } => {
                    self.file.write_all_at(bytes, offset).map_err(access("write"))?;
                }
                Run::Zeros { offset, length } => self.clear(offset, length)?,
            }
        }
        Ok(())
    }

    /// Makes a part read as zeros, and gives its room back.
    pub fn clear(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&*self.file, punch, offset, length) {
            Ok(()) => Ok(()),
            // Not every file system makes holes.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(offset, length),
            Err(error) => Err(access("clear")(error.into())),
        }
    }

    fn write_zeros(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        for start in (0..length).step_by(BLOCK) {
            let piece = usize::try_from((length - start).min(BLOCK as u64)).unwrap_or(BLOCK);
            self.file.write_all_at(&ZEROS[..piece], offset + start).map_err(access("clear"))?;
        }
        Ok(())
    }

    /// The first part at or behind `from` that takes room; `None` when only zeros follow.
    pub fn next_extent(&self, from: u64) -> Result<Option<Extent>, DiskError> {
        let size = self.size()?;
        if from >= size {
            return Ok(None);
        }
        let start = match seek(&*self.file, SeekFrom::Data(from)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // A file system without holes: all of it takes room.
            Err(Errno::INVAL) => return Ok(Some(Extent { offset: from, length: size - from })),
            Err(error) => return Err(access("look through")(error.into())),
        };
        let end = seek(&*self.file, SeekFrom::Hole(start))
            .map_err(|error| access("look through")(error.into()))?;
        // It may have been written to between the two.
        Ok((end > start).then_some(Extent { offset: start, length: end - start }))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    fn check_range(&self, offset: u64, length: usize) -> Result<(), DiskError> {
        let size = self.size()?;
        let end = offset.saturating_add(length as u64);
        if end > size { Err(DiskError::OutOfRange { offset, end, size }) } else { Ok(()) }
    }
}

fn access(action: &'static str) -> impl Fn(io::Error) -> DiskError {
    move |source| DiskError::Access { action, source }
}

/// Whether all of it is zero.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// A stretch of what is being written.
#[derive(Debug, PartialEq, Eq)]
enum Run<'a> {
    Data { offset: u64, bytes: &'a [u8] },
    Zeros { offset: u64, length: u64 },
}

/// Cuts what is being written into stretches of data and of zeros. Only whole blocks, as they lie on
/// the disk, count as zeros: a hole cannot be smaller.
struct Runs<'a> {
    offset: u64,
    rest: &'a [u8],
}

impl<'a> Runs<'a> {
    fn new(offset: u64, rest: &'a [u8]) -> Self {
        Self { offset, rest }
    }

    /// How many bytes from `at` on lie in the same block of the disk.
    fn piece(&self, at: usize) -> usize {
        let within = (self.offset + at as u64) % BLOCK as u64;
        (BLOCK - usize::try_from(within).unwrap_or(0)).min(self.rest.len() - at)
    }

    fn is_zero_block(&self, at: usize) -> bool {
        let piece = self.piece(at);
        piece == BLOCK && self.rest[at..at + piece] == ZEROS
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let zeros = self.is_zero_block(0);
        let mut length = self.piece(0);
        while length < self.rest.len() && self.is_zero_block(length) == zeros {
            length += self.piece(length);
        }
        let (run, rest) = self.rest.split_at(length);
        let offset = self.offset;
        self.rest = rest;
        self.offset += length as u64;
        Some(if zeros {
            Run::Zeros { offset, length: length as u64 }
        } else {
            Run::Data { offset, bytes: run }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_of_zeros_are_left_out() {
        let mut bytes = vec![1; 3 * BLOCK];
        bytes[10..2 * BLOCK].fill(0);
        let runs: Vec<Run<'_>> = Runs::new(0, &bytes).collect();
        let block = BLOCK as u64;
        assert_eq!(runs[0], Run::Data { offset: 0, bytes: &bytes[..BLOCK] });
        assert_eq!(runs[1], Run::Zeros { offset: block, length: block });
        assert_eq!(runs[2], Run::Data { offset: 2 * block, bytes: &bytes[2 * BLOCK..] });
        assert_eq!(runs.len(), 3);
    }

    #[test]
    fn zeros_that_fill_no_block_of_the_disk_are_data() {
        let bytes = vec![0; BLOCK + 10];
        let runs: Vec<Run<'_>> = Runs::new(5, &bytes).collect();
        assert_eq!(runs, [Run::Data { offset: 5, bytes: &bytes }]);
    }
}
