//! Reading an image.

use std::io::{self, Read};

use super::super::{ImageError, Medium};
use super::headers::{DYNAMIC_HEADER, DynamicHeader, FOOTER, Footer, Kind};
use super::{FORMAT, SECTOR, bitmap_sectors};

const NO_BLOCK: u32 = u32::MAX;
/// How much is read at once; holds whole sectors.
const PIECE: usize = 1 << 20;

/// Reads a VHD image into a disk and returns the size that the image says it has.
///
/// A dynamic image replaces what the disk held; a differencing one changes the sectors that it has and
/// leaves the others. The stream must be whole, down to the footer that ends it.
pub fn import_vhd(disk: &dyn Medium, stream: impl Read) -> Result<u64, ImageError> {
    let mut stream = Positioned { stream, at: 0 };
    let footer = Footer::parse(&stream.array::<FOOTER>()?)?;
    let size = disk.size()?;
    if footer.size > size {
        return Err(ImageError::TooLong { size });
    }
    stream.skip_to(footer.header_at)?;
    let header = DynamicHeader::parse(&stream.array::<DYNAMIC_HEADER>()?, &footer)?;
    stream.skip_to(header.table_at)?;
    let blocks = read_table(&mut stream, header.entries)?;

    if footer.kind == Kind::Dynamic {
        disk.clear(0, size)?;
    }
    let mut target = Target { disk, end: footer.size, buffer: Vec::new() };
    for (sector, number) in blocks {
        stream.skip_to(u64::from(sector) * SECTOR)?;
        target.block(&mut stream, u64::from(number), header.block_size)?;
    }
    let end = stream.last_sector()?;
    Footer::parse(&end).map_err(|_| malformed("it does not end with its footer"))?;
    Ok(footer.size)
}

/// The blocks that are there, in the order in which they come: the sector where each starts, and its
/// number.
fn read_table(
    stream: &mut Positioned<impl Read>,
    entries: u32,
) -> Result<Vec<(u32, u32)>, ImageError> {
    let mut blocks = Vec::new();
    for number in 0..entries {
        let sector = u32::from_be_bytes(stream.array()?);
        if sector != NO_BLOCK {
            blocks.push((sector, number));
        }
    }
    blocks.sort_unstable();
    Ok(blocks)
}

/// Where the blocks go.
struct Target<'a> {
    disk: &'a dyn Medium,
    end: u64,
    buffer: Vec<u8>,
}

impl Target<'_> {
    fn block(
        &mut self,
        stream: &mut Positioned<impl Read>,
        number: u64,
        block_size: u32,
    ) -> Result<(), ImageError> {
        let bitmap = usize::try_from(bitmap_sectors(block_size) * SECTOR).unwrap_or(usize::MAX);
        let bitmap = stream.bytes(bitmap)?;
        let start = number * u64::from(block_size);
        let mut done = 0;
        while done < block_size as usize {
            let piece = (block_size as usize - done).min(PIECE);
            self.buffer.resize(piece, 0);
            stream.exact(&mut self.buffer)?;
            self.write_present(&bitmap, start, done)?;
            done += piece;
        }
        Ok(())
    }

    /// Writes the sectors of the buffer that the bitmap names, neighbours together.
    fn write_present(&self, bitmap: &[u8], start: u64, done: usize) -> Result<(), ImageError> {
        let sector = usize::try_from(SECTOR).unwrap_or(1);
        let present = |at: usize| {
            let number = (done + at) / sector;
            at < self.buffer.len() && bitmap[number / 8] & (0x80 >> (number % 8)) != 0
        };
        let mut at = 0;
        while at < self.buffer.len() {
            let first = at;
            while present(at) {
                at += sector;
            }
            let offset = start + (done + first) as u64;
            // The last block reaches past a disk that does not fill it.
            let fits = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
            let run = &self.buffer[first..at];
            self.disk.write_at(offset.min(self.end), &run[..run.len().min(fits)])?;
            at += sector;
        }
        Ok(())
    }
}

fn malformed(reason: impl Into<String>) -> ImageError {
    ImageError::malformed(FORMAT, reason)
}

/// A stream that knows where it is and only goes forward.
struct Positioned<R> {
    stream: R,
    at: u64,
}

impl<R: Read> Positioned<R> {
    fn exact(&mut self, buffer: &mut [u8]) -> Result<(), ImageError> {
        self.stream.read_exact(buffer).map_err(|source| broken(self.at, source))?;
        self.at += buffer.len() as u64;
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ImageError> {
        let mut bytes = [0; N];
        self.exact(&mut bytes).map(|()| bytes)
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, ImageError> {
        let mut bytes = vec![0; length];
        self.exact(&mut bytes).map(|()| bytes)
    }

    fn skip_to(&mut self, target: u64) -> Result<(), ImageError> {
        let Some(distance) = target.checked_sub(self.at) else {
            return Err(malformed(format!("its parts overlap at byte {target}")));
        };
        let skipped = io::copy(&mut self.stream.by_ref().take(distance), &mut io::sink());
        self.at += skipped.map_err(|source| broken(self.at, source))?;
        if self.at == target { Ok(()) } else { Err(malformed(cut_short(self.at))) }
    }

    /// Reads to the end and returns the last sector.
    fn last_sector(&mut self) -> Result<[u8; FOOTER], ImageError> {
        let mut last = self.array::<FOOTER>()?;
        loop {
            let mut next = [0; FOOTER];
            let mut filled = 0;
            while filled < FOOTER {
                match self.stream.read(&mut next[filled..]) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(source) => return Err(broken(self.at, source)),
                }
            }
            self.at += filled as u64;
            if filled < FOOTER {
                return Ok(last);
            }
            last = next;
        }
    }
}

fn cut_short(at: u64) -> String {
    format!("it is cut short after {at} bytes")
}

fn broken(at: u64, source: io::Error) -> ImageError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => malformed(cut_short(at)),
        _ => ImageError::Stream { at, source },
    }
}
