//! The toolstack's own framing of sparse raw images: not HTTP's chunks.
//!
//! ```text
//! offset: u64 le │ length: u32 le │ data …   repeated; the end is a frame with length 0
//! ```

use std::io::{self, Read};

use super::raw::PIECE;
use super::{ImageError, Medium};

const FORMAT: &str = "chunked raw";

/// Reads frames into a disk and returns how many bytes they held. Bytes in no frame stay as they are.
///
/// A stream that ends before the frame of length 0 is an error; what came before it is kept.
pub fn import_chunked(disk: &dyn Medium, mut stream: impl Read) -> Result<u64, ImageError> {
    let size = disk.size()?;
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    loop {
        let (mut offset, mut left) = header(&mut stream, total)?;
        if left == 0 {
            return Ok(total);
        }
        if offset.checked_add(left).is_none_or(|end| end > size) {
            return Err(ImageError::TooLong { size });
        }
        while left > 0 {
            let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let piece = &mut buffer[..piece];
            stream.read_exact(piece).map_err(broken(total))?;
            disk.write_at(offset, piece)?;
            let length = piece.len() as u64;
            (offset, left, total) = (offset + length, left - length, total + length);
        }
    }
}

fn header(stream: &mut impl Read, at: u64) -> Result<(u64, u64), ImageError> {
    let (mut offset, mut length) = ([0; 8], [0; 4]);
    stream.read_exact(&mut offset).map_err(broken(at))?;
    stream.read_exact(&mut length).map_err(broken(at))?;
    Ok((u64::from_le_bytes(offset), u32::from_le_bytes(length).into()))
}

fn broken(at: u64) -> impl Fn(io::Error) -> ImageError {
    move |source| match source.kind() {
        io::ErrorKind::UnexpectedEof => {
            ImageError::malformed(FORMAT, format!("it ends after {at} bytes without a last frame"))
        }
        _ => ImageError::Stream { at, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskDirectory, export_raw};
    use crate::store::DiskId;

    fn frame(offset: u64, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        [&offset.to_le_bytes()[..], &length.to_le_bytes(), data].concat()
    }

    fn import(size: u64, stream: &[u8]) -> (Result<u64, ImageError>, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskDirectory::open(directory.path()).unwrap();
        let disk = store.create(DiskId(uuid::Uuid::new_v4()), size).unwrap();
        let outcome = import_chunked(&disk, stream);
        let mut bytes = Vec::new();
        export_raw(&disk, &mut bytes).unwrap();
        (outcome, bytes)
    }

    #[test]
    fn frames_land_where_they_say() {
        let stream = [frame(6, b"xyz"), frame(0, b"ab"), frame(0, b"")].concat();
        let (outcome, bytes) = import(10, &stream);
        assert_eq!(outcome.unwrap(), 5);
        assert_eq!(bytes, b"ab\0\0\0\0xyz\0");
    }

    #[test]
    fn a_stream_without_its_last_frame_is_an_error_and_keeps_what_came() {
        let whole = [frame(1, b"abc"), frame(0, b"")].concat();
        for cut in 0..whole.len() {
            let (outcome, _) = import(10, &whole[..cut]);
            assert!(matches!(outcome, Err(ImageError::Malformed { .. })), "cut at {cut}");
        }
        assert_eq!(&import(10, &frame(1, b"abc")).1, b"\0abc\0\0\0\0\0\0");
    }

    #[test]
    fn a_frame_past_the_end_is_an_error() {
        for stream in [frame(9, b"ab"), frame(u64::MAX, b"a")] {
            assert!(matches!(import(10, &stream).0, Err(ImageError::TooLong { size: 10 })));
        }
    }
}
