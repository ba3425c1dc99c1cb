//! A bounded byte pipe between an async connection and a thread that blocks.
//!
//! Image formats are plain readers and writers; connections are async. The pipe holds a few pieces, so
//! that a slow side slows the other down.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

/// Pieces that may wait in the pipe.
const WAITING: usize = 4;
/// Pieces are gathered up to this size before they go in.
const PIECE: usize = 256 * 1024;

/// Makes a pipe: what is written at one end is read at the other.
pub fn body_pipe() -> (BodyWriter, BodyReader) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (
        BodyWriter { sender, gathered: Vec::new() },
        BodyReader { receiver, current: Bytes::new(), failed: false },
    )
}

/// The end that is written to. Dropping it ends the stream; [`fail`](Self::fail) breaks it.
#[derive(Debug)]
pub struct BodyWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
}

impl BodyWriter {
    /// Puts a piece in, waiting for room; fails when the reader is gone.
    pub async fn send(&self, piece: Bytes) -> io::Result<()> {
        self.sender.send(Ok(piece)).await.map_err(|_| gone())
    }

    /// Breaks the stream: the reader gets this error after what was written before.
    pub async fn fail(self, error: io::Error) {
        // A reader that is gone needs no telling.
        let _ = self.sender.send(Err(error)).await;
    }

    fn push(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.gathered));
        self.sender.blocking_send(Ok(piece)).map_err(|_| gone())
    }
}

/// Blocks while the pipe is full: not for use in async code.
impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE {
            self.push()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() { Ok(()) } else { self.push() }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the reader is gone")
}

/// The end that is read from.
#[derive(Debug)]
pub struct BodyReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    failed: bool,
}

impl BodyReader {
    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        if self.current.is_empty() {
            self.receiver.recv().await
        } else {
            Some(Ok(std::mem::take(&mut self.current)))
        }
    }
}

/// Blocks while the pipe is empty: not for use in async code.
impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(error)) => {
                    self.failed = true;
                    return Err(error);
                }
                None if self.failed => return Err(io::ErrorKind::ConnectionReset.into()),
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_in_comes_out_in_order_and_then_it_ends() {
        let (mut writer, mut reader) = body_pipe();
        let written = tokio::task::spawn_blocking(move || {
            for number in 0..100_000_u32 {
                writer.write_all(&number.to_le_bytes())?;
            }
            writer.flush()
        });
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        written.await.unwrap().unwrap();
        let expected: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        assert!(read.await.unwrap().unwrap() == expected);
    }

    #[tokio::test]
    async fn a_broken_stream_is_not_taken_for_an_ended_one() {
        let (writer, mut reader) = body_pipe();
        writer.send(Bytes::from_static(b"abc")).await.unwrap();
        writer.fail(io::ErrorKind::ConnectionReset.into()).await;
        let outcome = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            let first = reader.read_to_end(&mut bytes);
            (bytes, first, reader.read(&mut [0]))
        });
        let (bytes, first, second) = outcome.await.unwrap();
        assert_eq!(bytes, b"abc");
        assert_eq!(first.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
