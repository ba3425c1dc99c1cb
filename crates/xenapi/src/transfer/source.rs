//! Where imported bytes come from.
//!
//! ```text
//! stream ── read as it is asked for ──────────────▶ blocks
//! file ──▶ reader thread ──▶ at most DEPTH blocks ──▶ blocks, and holes that are not read
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use super::TransferFailure;

/// How much is read at once. It stays in the caches between being read and being sent.
const BLOCK: usize = 512 << 10;
/// How many blocks are read ahead from a file.
const DEPTH: usize = 4;
/// Room before the bytes of a block, for what comes before them on the wire.
pub(crate) const HEADROOM: usize = 16;
/// What holes are made of. File systems have it so, and disks want it so.
const PAGE: u64 = 4096;

/// Bytes to import, whose number is known before.
///
/// ```
/// use xenapi::Source;
///
/// let seed = Source::bytes(vec![0; 10 << 20]);
/// assert_eq!(seed.length(), 10 << 20);
/// ```
pub struct Source {
    origin: Origin,
    length: u64,
    /// How much has been given out.
    offset: u64,
    block: Block,
}

enum Origin {
    Stream(Pin<Box<dyn AsyncRead + Send>>),
    File(File),
    Reader(Reader),
}

/// A thread that reads a file, and what it has read.
struct Reader {
    ready: Receiver<Message>,
    spent: Sender<Vec<u8>>,
    /// Owned so that the end of the thread is seen; when this is dropped, its channels end it.
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Data { bytes: Vec<u8>, length: usize },
    Hole(u64),
    Failed(io::Error),
}

/// Some bytes of the source, and where they belong.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// What is there, after the headroom.
    bytes: Vec<u8>,
    length: usize,
    pub(crate) offset: u64,
}

impl Block {
    /// The bytes.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[HEADROOM..HEADROOM + self.length]
    }

    /// The length in whole sectors of this size, which zeros fill up.
    pub(crate) fn pad(&mut self, sector: usize) -> usize {
        let padded = self.length.next_multiple_of(sector);
        // There is room: a block is either full, and of whole sectors, or shorter than its buffer.
        self.bytes[HEADROOM + self.length..HEADROOM + padded].fill(0);
        padded
    }

    /// Bytes of the block with something written right before them. What was there must have been used.
    pub(crate) fn framed<const N: usize>(&mut self, run: Range<usize>, frame: [u8; N]) -> &[u8] {
        const { assert!(N <= HEADROOM) };
        let start = HEADROOM + run.start;
        self.bytes[start - N..start].copy_from_slice(&frame);
        &self.bytes[start - N..HEADROOM + run.end]
    }
}

/// What comes next in a source.
#[derive(Debug)]
pub(crate) enum Piece<'a> {
    Data(&'a mut Block),
    /// So many zeros.
    Hole(u64),
}

impl Source {
    /// What is read from a stream. It must have exactly this many bytes, or more, which are left there.
    pub fn stream(reader: impl AsyncRead + Send + 'static, length: u64) -> Self {
        Self::new(Origin::Stream(Box::pin(reader)), length)
    }

    /// All of a file or a block device. Holes in it are not read.
    ///
    /// The file is read on a thread of the runtime's for blocking work, from its start whatever its
    /// position.
    pub fn file(mut file: File) -> io::Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        Ok(Self::new(Origin::File(file), length))
    }

    /// Bytes that are in memory.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let length = bytes.len() as u64;
        Self::stream(io::Cursor::new(bytes), length)
    }

    fn new(origin: Origin, length: u64) -> Self {
        Self { origin, length, offset: 0, block: Block::default() }
    }

    /// How many bytes there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next piece, which begins where the one before it ended.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece<'_>>, TransferFailure> {
        if self.offset == self.length {
            return Ok(None);
        }
        if let Origin::File(file) = &self.origin {
            let file = file.try_clone().map_err(TransferFailure::Source)?;
            self.origin = Origin::Reader(Reader::start(file, self.length));
        }
        let hole = match &mut self.origin {
            Origin::Stream(stream) => {
                fill(stream.as_mut(), &mut self.block, self.length - self.offset).await.map_err(
                    |error| match error {
                        Fill::Failed(error) => TransferFailure::Source(error),
                        Fill::Ended(count) => TransferFailure::SourceTooShort {
                            found: self.offset + count as u64,
                            expected: self.length,
                        },
                    },
                )?;
                None
            }
            Origin::Reader(reader) => reader.next(&mut self.block).await.map_err(|error| {
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    let (found, expected) = (self.offset, self.length);
                    TransferFailure::SourceTooShort { found, expected }
                } else {
                    TransferFailure::Source(error)
                }
            })?,
            Origin::File(_) => None,
        };
        if let Some(length) = hole {
            self.offset += length;
            return Ok(Some(Piece::Hole(length)));
        }
        self.block.offset = self.offset;
        self.offset += self.block.length as u64;
        Ok(Some(Piece::Data(&mut self.block)))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("length", &self.length).finish_non_exhaustive()
    }
}

enum Fill {
    Failed(io::Error),
    Ended(usize),
}

/// Reads a whole block, or what is left of the source.
async fn fill(
    mut stream: Pin<&mut (dyn AsyncRead + Send)>,
    block: &mut Block,
    left: u64,
) -> Result<(), Fill> {
    block.bytes.resize(HEADROOM + BLOCK, 0);
    block.length = 0;
    let whole = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
    while block.length < whole {
        let room = &mut block.bytes[HEADROOM + block.length..HEADROOM + whole];
        match stream.read(room).await.map_err(Fill::Failed)? {
            0 => return Err(Fill::Ended(block.length)),
            count => block.length += count,
        }
    }
    Ok(())
}

impl Reader {
    fn start(file: File, length: u64) -> Self {
        let (found, ready) = channel(DEPTH);
        let (spent, empty) = channel(DEPTH);
        let thread = tokio::task::spawn_blocking(move || read(&file, length, &found, empty));
        Self { ready, spent, thread: Some(thread) }
    }

    /// Puts what was read into the block, or says how long a hole is.
    async fn next(&mut self, block: &mut Block) -> io::Result<Option<u64>> {
        let used = std::mem::take(&mut block.bytes);
        if !used.is_empty() {
            // It only fails when the thread has ended, which has no use for it.
            let _ = self.spent.try_send(used);
        }
        match self.ready.recv().await {
            Some(Message::Data { bytes, length }) => {
                (block.bytes, block.length) = (bytes, length);
                Ok(None)
            }
            Some(Message::Hole(length)) => Ok(Some(length)),
            Some(Message::Failed(error)) => Err(error),
            None => {
                if let Some(thread) = self.thread.take()
                    && let Err(error) = thread.await
                    && error.is_panic()
                {
                    std::panic::resume_unwind(error.into_panic());
                }
                Err(io::Error::other("the thread that reads the file has ended"))
            }
        }
    }
}

/// Reads the file until its end, or until nobody wants it.
fn read(file: &File, length: u64, found: &Sender<Message>, empty: Receiver<Vec<u8>>) {
    if let Err(error) = (Reading { file, found, empty, buffers: 0 }).all(length) {
        // Where nobody is left to hear of it, nothing is lost.
        let _ = found.blocking_send(Message::Failed(error));
    }
}

struct Reading<'a> {
    file: &'a File,
    found: &'a Sender<Message>,
    empty: Receiver<Vec<u8>>,
    /// How many there are, here or elsewhere.
    buffers: usize,
}

impl Reading<'_> {
    fn all(&mut self, length: u64) -> io::Result<()> {
        let mut offset = 0;
        while offset < length {
            let data = extent(self.file, offset, length)?;
            if data.start > offset && !self.tell(Message::Hole(data.start - offset)) {
                return Ok(());
            }
            offset = data.start;
            self.file.seek(SeekFrom::Start(offset))?;
            while offset < data.end {
                let size = usize::try_from(data.end - offset).unwrap_or(BLOCK).min(BLOCK);
                let Some(bytes) = self.block(size)? else { return Ok(()) };
                if !self.tell(Message::Data { bytes, length: size }) {
                    return Ok(());
                }
                offset += size as u64;
            }
        }
        Ok(())
    }

    /// Whether anybody still listens.
    fn tell(&self, message: Message) -> bool {
        self.found.blocking_send(message).is_ok()
    }

    /// Reads at the file's position into a buffer that is free, or will be.
    fn block(&mut self, size: usize) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = match self.empty.try_recv() {
            Ok(bytes) => bytes,
            Err(_) if self.buffers < DEPTH => {
                self.buffers += 1;
                vec![0; HEADROOM + BLOCK]
            }
            Err(_) => match self.empty.blocking_recv() {
                Some(bytes) => bytes,
                None => return Ok(None),
            },
        };
        self.file.read_exact(&mut bytes[HEADROOM..HEADROOM + size])?;
        Ok(Some(bytes))
    }
}

/// The next stretch of data, in whole pages; empty and at the end where there is none.
fn extent(mut file: &File, offset: u64, length: u64) -> io::Result<Range<u64>> {
    let Some(data) = seek_data(file, offset, length)? else {
        // What is not there any more is no hole.
        if file.seek(SeekFrom::End(0))? < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        return Ok(length..length);
    };
    // Never back into what is through, should a file system have smaller pages.
    let start = (data.start / PAGE * PAGE).max(offset);
    let end = data.end.checked_next_multiple_of(PAGE).unwrap_or(length).min(length);
    Ok(start..end)
}

#[cfg(target_os = "linux")]
fn seek_data(file: &File, offset: u64, length: u64) -> io::Result<Option<Range<u64>>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;

    let start = match seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        // There is no more data.
        Err(Errno::NXIO) => return Ok(None),
        // It is no kind of file that has holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::SPIPE) => return Ok(Some(offset..length)),
        Err(error) => return Err(error.into()),
    };
    let end = seek(file, SeekFrom::Hole(start))?;
    // The file can have grown since its length was taken.
    Ok((start < length).then_some(start..end.min(length)))
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "it can fail where holes can be found")]
fn seek_data(_file: &File, offset: u64, length: u64) -> io::Result<Option<Range<u64>>> {
    Ok(Some(offset..length))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// Everything in a source: how long each piece is, and whether it is data.
    async fn pieces(mut source: Source) -> Result<Vec<(u64, bool)>, TransferFailure> {
        let mut found = Vec::new();
        while let Some(piece) = source.next().await? {
            found.push(match piece {
                Piece::Data(block) => (block.data().len() as u64, true),
                Piece::Hole(length) => (length, false),
            });
        }
        Ok(found)
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn holes_of_a_file_are_not_read() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        file.seek(SeekFrom::Start(1 << 30)).unwrap();
        file.write_all(&vec![1; 100_000]).unwrap();
        let found = pieces(Source::file(file).unwrap()).await.unwrap();
        assert_eq!(found.iter().map(|(length, _)| length).sum::<u64>(), 1 << 40);
        let data: u64 = found.iter().filter(|(_, data)| *data).map(|(length, _)| length).sum();
        assert!((100_000..200_000).contains(&data), "{found:?}");
    }

    #[tokio::test]
    async fn a_file_that_shrinks_while_it_is_read_is_too_short() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 4 * BLOCK]).unwrap();
        let source = Source::file(file.try_clone().unwrap()).unwrap();
        file.set_len(BLOCK as u64 + 10).unwrap();
        match pieces(source).await {
            Err(TransferFailure::SourceTooShort { expected, .. }) => {
                assert_eq!(expected, 4 * BLOCK as u64);
            }
            result => panic!("{result:?}"),
        }
    }

    #[tokio::test]
    async fn no_more_of_a_stream_is_read_than_was_announced() {
        let source = Source::stream(tokio::io::repeat(1), BLOCK as u64 + 5);
        assert_eq!(pieces(source).await.unwrap(), [(BLOCK as u64, true), (5, true)]);
        assert_eq!(pieces(Source::bytes(vec![])).await.unwrap(), []);
    }
}
