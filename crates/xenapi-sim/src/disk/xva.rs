//! XVA images: a VM's metadata and disks in one tar stream.
//!
//! ```text
//! ova.xml │ Ref:7/00000000 │ Ref:7/00000000.xxhash │ Ref:7/00000005 │ … │ Ref:9/00000000 │ …
//! ```
//!
//! A disk is a directory of pieces of 1 MiB. Pieces that are all zero are left out, except the first
//! and the last. Each is followed by its checksum: XXH64 in 16 upper-case hexadecimal digits. What
//! `ova.xml` says is the pool's business.

use std::hash::Hasher;
use std::io::{self, Read, Write};

use twox_hash::XxHash64;

use super::file::is_zero;
use super::{ImageError, Medium};

const FORMAT: &str = "XVA";
const METADATA: &str = "ova.xml";
const CHECKSUM: &str = ".xxhash";
/// Older images have SHA-1 here, which nobody needs any more.
const OLD_CHECKSUM: &str = ".checksum";
const PIECE: u64 = 1 << 20;
/// `ova.xml` of a VM with many snapshots is some 100 KiB.
const LONGEST_METADATA: u64 = 64 << 20;

/// A disk that goes into an image.
pub struct XvaDisk {
    /// The name of its directory: the reference that `ova.xml` has for it.
    pub directory: String,
    /// The disk.
    pub disk: Box<dyn Medium>,
}

/// Who takes an image's parts as they come.
pub trait XvaSink {
    /// Takes `ova.xml`, which comes first, and answers the directories of the disks that must follow.
    fn metadata(&mut self, xml: &[u8]) -> Result<Vec<String>, ImageError>;
    /// The disk for a directory; `None` to pass over its contents.
    fn disk(&mut self, directory: &str) -> Result<Option<Box<dyn Medium>>, ImageError>;
}

/// Writes an image. The disks must not be written to meanwhile.
pub fn export_xva(
    metadata: &[u8],
    disks: &[XvaDisk],
    stream: impl Write,
) -> Result<(), ImageError> {
    let mut archive = tar::Builder::new(stream);
    let mut at = 0;
    append(&mut archive, METADATA, metadata, &mut at)?;
    let mut buffer = vec![0; 1 << 20];
    for XvaDisk { directory, disk } in disks {
        let size = disk.size()?;
        let count = size.div_ceil(PIECE);
        let mut number = 0;
        while number < count {
            let offset = number * PIECE;
            let length = usize::try_from((size - offset).min(PIECE)).unwrap_or(0);
            disk.read_at(offset, &mut buffer[..length])?;
            let piece = &buffer[..length];
            if number == 0 || number + 1 == count || !is_zero(piece) {
                let name = format!("{directory}/{number:08}");
                append(&mut archive, &name, piece, &mut at)?;
                append(
                    &mut archive,
                    &format!("{name}{CHECKSUM}"),
                    checksum(piece).as_bytes(),
                    &mut at,
                )?;
            }
            number = match disk.next_extent(offset + PIECE)? {
                Some(extent) => extent.offset / PIECE,
                None => (count - 1).max(number + 1),
            };
        }
    }
    let end = archive.into_inner().and_then(|mut stream| stream.flush());
    end.map_err(|source| ImageError::Stream { at, source })
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    bytes: &[u8],
    at: &mut u64,
) -> Result<(), ImageError> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    let done = archive.append_data(&mut header, name, bytes);
    done.map_err(|source| ImageError::Stream { at: *at, source })?;
    *at += 512 + (bytes.len() as u64).next_multiple_of(512);
    Ok(())
}

fn checksum(piece: &[u8]) -> String {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(piece);
    format!("{:016X}", hasher.finish())
}

/// Reads an image and hands its parts to `sink`.
///
/// A wrong checksum, a piece that does not fit its disk, a disk that does not come in full or a missing
/// `ova.xml` fail; what was written by then stays written.
pub fn import_xva(stream: impl Read, sink: &mut impl XvaSink) -> Result<(), ImageError> {
    let mut archive = tar::Archive::new(stream);
    let mut entries = archive.entries().map_err(broken)?;
    let mut piece = Vec::new();
    let first = read_entry(entries.next(), LONGEST_METADATA, &mut piece)?;
    match first.as_deref() {
        Some(METADATA) => {}
        Some(name) => {
            return Err(malformed(format!("it starts with `{name}`, not with `{METADATA}`")));
        }
        None => return Err(malformed("it is empty")),
    }
    let mut incoming = Incoming { missing: sink.metadata(&piece)?, current: None, sum: None };
    while let Some(name) = read_entry(entries.next(), PIECE, &mut piece)? {
        if let Some(of) = name.strip_suffix(CHECKSUM) {
            verify(of, &piece, incoming.sum.take())?;
        } else if !name.ends_with(OLD_CHECKSUM) {
            incoming.take(&name, &piece, sink)?;
        }
    }
    incoming.finish_disk()?;
    match incoming.missing.first() {
        Some(directory) => Err(malformed(format!("the disk `{directory}` is missing"))),
        None => Ok(()),
    }
}

/// Reads the next entry into `piece` and returns its name; `None` behind the last.
fn read_entry<R: Read>(
    entry: Option<io::Result<tar::Entry<'_, R>>>,
    longest: u64,
    piece: &mut Vec<u8>,
) -> Result<Option<String>, ImageError> {
    let Some(mut entry) = entry.transpose().map_err(broken)? else { return Ok(None) };
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    if entry.size() > longest {
        return Err(malformed(format!("`{name}` has {} bytes", entry.size())));
    }
    piece.clear();
    entry.read_to_end(piece).map_err(broken)?;
    Ok(Some(name))
}

/// What is known of the disks while their pieces come.
struct Incoming {
    /// The directories that have not begun.
    missing: Vec<String>,
    current: Option<Current>,
    /// The last piece's name and checksum.
    sum: Option<(String, String)>,
}

/// The disk whose pieces are coming.
struct Current {
    directory: String,
    disk: Option<Box<dyn Medium>>,
    /// Where the last piece ended.
    end: u64,
}

impl Incoming {
    fn take(
        &mut self,
        name: &str,
        piece: &[u8],
        sink: &mut impl XvaSink,
    ) -> Result<(), ImageError> {
        let (directory, number) = place(name)?;
        if self.current.as_ref().is_none_or(|current| current.directory != directory) {
            self.finish_disk()?;
            self.missing.retain(|missing| missing != directory);
            let disk = sink.disk(directory)?;
            self.current = Some(Current { directory: directory.to_owned(), disk, end: 0 });
        }
        if let Some(current) = &mut self.current {
            if let Some(disk) = &current.disk {
                disk.write_at(number * PIECE, piece)?;
            }
            current.end = number * PIECE + piece.len() as u64;
        }
        self.sum = Some((name.to_owned(), checksum(piece)));
        Ok(())
    }

    /// The last piece is always there: without it the image was cut.
    fn finish_disk(&mut self) -> Result<(), ImageError> {
        if let Some(Current { directory, disk: Some(disk), end }) = self.current.take()
            && end < disk.size()?
        {
            return Err(malformed(format!("the disk `{directory}` ends after {end} bytes")));
        }
        Ok(())
    }
}

/// The directory and the number of a piece.
fn place(name: &str) -> Result<(&str, u64), ImageError> {
    let parts = name.rsplit_once('/').and_then(|(directory, number)| {
        // Numbers that no disk has would overflow the offset.
        let number: u64 = number.parse().ok().filter(|number| u32::try_from(*number).is_ok())?;
        Some((directory, number))
    });
    parts.ok_or_else(|| malformed(format!("it holds `{name}`, which is no piece of a disk")))
}

fn verify(of: &str, found: &[u8], expected: Option<(String, String)>) -> Result<(), ImageError> {
    match expected {
        Some((name, sum)) if name == of => {
            if found.eq_ignore_ascii_case(sum.as_bytes()) {
                Ok(())
            } else {
                Err(malformed(format!("the checksum of `{of}` is wrong")))
            }
        }
        Some(_) | None => Err(malformed(format!("there is a checksum of `{of}` without it"))),
    }
}

fn malformed(reason: impl Into<String>) -> ImageError {
    ImageError::malformed(FORMAT, reason)
}

/// The tar reader's failures: most are about what it read.
fn broken(source: io::Error) -> ImageError {
    match source.kind() {
        io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            malformed(source.to_string())
        }
        _ => ImageError::Stream { at: 0, source },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::disk::Disk;
    use crate::disk::{DiskDirectory, export_raw};
    use crate::store::DiskId;

    struct Sink<'a> {
        store: &'a DiskDirectory,
        metadata: Vec<u8>,
        disks: HashMap<String, Disk>,
        size: u64,
    }

    impl XvaSink for Sink<'_> {
        fn metadata(&mut self, xml: &[u8]) -> Result<Vec<String>, ImageError> {
            self.metadata = xml.to_vec();
            Ok(vec!["Ref:7".into()])
        }
        fn disk(&mut self, directory: &str) -> Result<Option<Box<dyn Medium>>, ImageError> {
            let disk = self.store.create(DiskId(uuid::Uuid::new_v4()), self.size)?;
            self.disks.insert(directory.to_owned(), disk.clone());
            Ok(Some(Box::new(disk)))
        }
    }

    fn raw(disk: &Disk) -> Vec<u8> {
        let mut bytes = Vec::new();
        export_raw(disk, &mut bytes).unwrap();
        bytes
    }

    fn image(store: &DiskDirectory, size: u64) -> (Disk, Vec<u8>) {
        let disk = store.create(DiskId(uuid::Uuid::new_v4()), size).unwrap();
        disk.write_at(5 * PIECE + 17, b"in the middle").unwrap();
        let mut image = Vec::new();
        let disks = [XvaDisk { directory: "Ref:7".into(), disk: Box::new(disk.clone()) }];
        export_xva(b"<ova/>", &disks, &mut image).unwrap();
        (disk, image)
    }

    #[test]
    fn a_vm_survives_a_round_trip() {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskDirectory::open(directory.path()).unwrap();
        let size = 9 * PIECE + 512;
        let (disk, image) = image(&store, size);
        let mut sink = Sink { store: &store, metadata: vec![], disks: HashMap::new(), size };
        import_xva(&*image, &mut sink).unwrap();
        assert_eq!(sink.metadata, b"<ova/>");
        assert!(raw(&sink.disks["Ref:7"]) == raw(&disk));
    }

    #[test]
    fn the_image_holds_the_first_and_last_piece_and_those_with_data() {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskDirectory::open(directory.path()).unwrap();
        let (_, image) = image(&store, 9 * PIECE);
        let mut archive = tar::Archive::new(&*image);
        let names: Vec<String> = (archive.entries().unwrap())
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        let pieces = ["00000000", "00000005", "00000008"];
        let pieces =
            pieces.iter().flat_map(|n| [format!("Ref:7/{n}"), format!("Ref:7/{n}.xxhash")]);
        assert_eq!(names, ["ova.xml".to_owned()].into_iter().chain(pieces).collect::<Vec<_>>());
    }

    #[test]
    fn a_changed_or_cut_image_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskDirectory::open(directory.path()).unwrap();
        let size = 6 * PIECE;
        let (_, image) = image(&store, size);
        let mut changed = image.clone();
        let at = changed.windows(13).position(|bytes| bytes == b"in the middle").unwrap();
        changed[at] ^= 1;
        for bad in [&changed[..], &image[..1024], &image[..image.len() / 2], b"", b"<html>"] {
            let mut sink = Sink { store: &store, metadata: vec![], disks: HashMap::new(), size };
            let error = import_xva(bad, &mut sink).unwrap_err();
            assert!(matches!(error, ImageError::Malformed { .. }), "{error}");
        }
    }

    #[test]
    fn a_disk_smaller_than_its_image_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskDirectory::open(directory.path()).unwrap();
        let (_, image) = image(&store, 6 * PIECE);
        let mut sink = Sink { store: &store, metadata: vec![], disks: HashMap::new(), size: PIECE };
        assert!(matches!(import_xva(&*image, &mut sink), Err(ImageError::Disk(_))));
    }
}
