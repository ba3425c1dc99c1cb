//! Writing an image.

use std::io::{self, Write};

use uuid::Uuid;

use super::super::file::is_zero;
use super::super::{DiskError, ImageError, Medium};
use super::headers::{BLOCK_SIZE, DYNAMIC_HEADER, DynamicHeader, FOOTER, Footer, Kind};
use super::{SECTOR, bitmap_sectors};

const BLOCK: u64 = BLOCK_SIZE as u64;
const NO_BLOCK: u32 = u32::MAX;
const TABLE_AT: u64 = (FOOTER + DYNAMIC_HEADER) as u64;

/// Writes a disk as a dynamic VHD image; with `base`, as a differencing one that holds the sectors in
/// which the disk differs from `base`. Returns the bytes written.
///
/// The disk must not be written to meanwhile.
pub fn export_vhd(
    disk: &dyn Medium,
    base: Option<&dyn Medium>,
    stream: impl Write,
) -> Result<u64, ImageError> {
    let size = disk.size()?.next_multiple_of(SECTOR);
    let present = present_blocks(disk, base, size)?;
    let kind = if base.is_some() { Kind::Differencing } else { Kind::Dynamic };
    let unique_id = *Uuid::new_v4().as_bytes();
    let footer = Footer { kind, size, header_at: FOOTER as u64, unique_id }.to_bytes();
    let header = DynamicHeader {
        table_at: TABLE_AT,
        entries: u32::try_from(present.len()).unwrap_or(NO_BLOCK),
        block_size: BLOCK_SIZE,
        parent_id: [0; 16],
    };

    let mut out = Counted { stream, written: 0 };
    out.put(&footer)?;
    out.put(&header.to_bytes())?;
    out.put(&table(&present))?;
    let mut block = Block::default();
    for (number, _) in present.iter().enumerate().filter(|(_, present)| **present) {
        block.load(disk, base, number as u64 * BLOCK)?;
        out.put(&block.bitmap)?;
        out.put(&block.data)?;
    }
    out.put(&footer)?;
    out.stream.flush().map_err(|source| ImageError::Stream { at: out.written, source })?;
    Ok(out.written)
}

/// Which blocks the image will hold.
fn present_blocks(
    disk: &dyn Medium,
    base: Option<&dyn Medium>,
    size: u64,
) -> Result<Vec<bool>, DiskError> {
    let count = usize::try_from(size.div_ceil(BLOCK)).unwrap_or(usize::MAX);
    let mut present = vec![false; count];
    mark_data(disk, &mut present)?;
    if let Some(base) = base {
        // What is a hole now may have been data then.
        mark_data(base, &mut present)?;
        let mut block = Block::default();
        for (number, present) in present.iter_mut().enumerate().filter(|(_, present)| **present) {
            block.load(disk, Some(base), number as u64 * BLOCK)?;
            *present = !is_zero(&block.bitmap);
        }
    }
    Ok(present)
}

fn mark_data(disk: &dyn Medium, present: &mut [bool]) -> Result<(), DiskError> {
    let mut at = 0;
    while let Some(extent) = disk.next_extent(at)? {
        for number in extent.offset / BLOCK..extent.end().div_ceil(BLOCK) {
            if let Some(block) = usize::try_from(number).ok().and_then(|n| present.get_mut(n)) {
                *block = true;
            }
        }
        at = extent.end().next_multiple_of(BLOCK);
    }
    Ok(())
}

/// The table, padded to whole sectors.
fn table(present: &[bool]) -> Vec<u8> {
    let length = (present.len() as u64 * 4).next_multiple_of(SECTOR);
    let block_sectors = bitmap_sectors(BLOCK_SIZE) + BLOCK / SECTOR;
    let mut next = (TABLE_AT + length) / SECTOR;
    let mut table = Vec::new();
    for present in present {
        let entry = if *present { u32::try_from(next).unwrap_or(NO_BLOCK) } else { NO_BLOCK };
        table.extend_from_slice(&entry.to_be_bytes());
        next += if *present { block_sectors } else { 0 };
    }
    table.resize(usize::try_from(length).unwrap_or(table.len()), 0xff);
    table
}

/// One block with its bitmap.
#[derive(Default)]
struct Block {
    bitmap: Vec<u8>,
    data: Vec<u8>,
    base: Vec<u8>,
}

impl Block {
    /// Reads the block at `offset` and notes which of its sectors belong into the image.
    fn load(
        &mut self,
        disk: &dyn Medium,
        base: Option<&dyn Medium>,
        offset: u64,
    ) -> Result<(), DiskError> {
        read_padded(disk, offset, &mut self.data)?;
        self.base.clear();
        match base {
            Some(base) => read_padded(base, offset, &mut self.base)?,
            None => self.base.resize(self.data.len(), 0),
        }
        self.bitmap.clear();
        let bitmap = bitmap_sectors(BLOCK_SIZE) * SECTOR;
        self.bitmap.resize(usize::try_from(bitmap).unwrap_or(0), 0);
        let sector = usize::try_from(SECTOR).unwrap_or(1);
        let pairs = self.data.chunks(sector).zip(self.base.chunks(sector));
        for (number, _) in pairs.enumerate().filter(|(_, (now, then))| now != then) {
            self.bitmap[number / 8] |= 0x80 >> (number % 8);
        }
        Ok(())
    }
}

/// Reads a whole block; what lies behind the disk's end is zero.
fn read_padded(disk: &dyn Medium, offset: u64, buffer: &mut Vec<u8>) -> Result<(), DiskError> {
    let length = disk.size()?.saturating_sub(offset).min(BLOCK);
    buffer.clear();
    buffer.resize(BLOCK_SIZE as usize, 0);
    disk.read_at(offset, &mut buffer[..usize::try_from(length).unwrap_or(0)])
}

struct Counted<W> {
    stream: W,
    written: u64,
}

impl<W: Write> Counted<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let done: io::Result<()> = self.stream.write_all(bytes);
        done.map_err(|source| ImageError::Stream { at: self.written, source })?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}
