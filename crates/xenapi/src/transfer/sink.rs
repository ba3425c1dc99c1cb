//! Writing a stream into a file that has holes where the stream has zeros.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::zeros::next_run;

/// How much is written at once.
const BLOCK: usize = 512 << 10;
/// How many blocks wait to be written.
const DEPTH: usize = 4;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// How long the file is.
    pub length: u64,
    /// How much of it was written; the rest are zeros that need no space.
    pub written: u64,
}

/// Which side failed.
#[derive(Debug)]
pub(super) enum Fault {
    Source(io::Error),
    Sink(io::Error),
}

/// Writes all that can be read to a file, which is emptied before, and leaves holes where there are zeros.
///
/// What is not a regular file is written in full from its position on. The file is written on a thread of
/// the runtime's for blocking work; if the future is dropped, what was written stays.
pub async fn write_sparse(reader: impl AsyncRead + Unpin, file: File) -> io::Result<Saved> {
    write(reader, file).await.map_err(|fault| match fault {
        Fault::Source(error) | Fault::Sink(error) => error,
    })
}

pub(super) async fn write(mut reader: impl AsyncRead + Unpin, file: File) -> Result<Saved, Fault> {
    let (filled, blocks) = channel(DEPTH);
    let (spent, mut empty) = channel(DEPTH + 1);
    let thread = tokio::task::spawn_blocking(move || write_blocks(file, blocks, &spent));
    let mut buffers = 0;
    let source = loop {
        let mut block = match empty.try_recv() {
            Ok(block) => block,
            Err(_) if buffers <= DEPTH => {
                buffers += 1;
                Vec::with_capacity(BLOCK)
            }
            Err(_) => match empty.recv().await {
                Some(block) => block,
                None => break Ok(()),
            },
        };
        match fill(&mut reader, &mut block).await {
            Ok(()) if block.is_empty() => break Ok(()),
            // A writer that has ended tells why below.
            Ok(()) => {
                if filled.send(block).await.is_err() {
                    break Ok(());
                }
            }
            Err(error) => break Err(error),
        }
    };
    drop(filled);
    let written = match thread.await {
        Ok(written) => written,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(io::Error::other(error)),
    };
    source.map_err(Fault::Source)?;
    written.map_err(Fault::Sink)
}

async fn fill(reader: &mut (impl AsyncRead + Unpin), block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    while block.len() < BLOCK
        && reader.take((BLOCK - block.len()) as u64).read_buf(block).await? > 0
    {}
    Ok(())
}

fn write_blocks(
    mut file: File,
    mut blocks: Receiver<Vec<u8>>,
    spent: &Sender<Vec<u8>>,
) -> io::Result<Saved> {
    let holes = file.metadata()?.is_file();
    if holes {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
    }
    let mut saved = Saved::default();
    while let Some(block) = blocks.blocking_recv() {
        if holes {
            let mut place = 0;
            while let Some(run) = next_run(&block, place) {
                place = run.end;
                file.seek(SeekFrom::Start(saved.length + run.start as u64))?;
                file.write_all(&block[run.clone()])?;
                saved.written += run.len() as u64;
            }
        } else {
            file.write_all(&block)?;
            saved.written += block.len() as u64;
        }
        saved.length += block.len() as u64;
        // It only fails when nothing more will come.
        let _ = spent.try_send(block);
    }
    if holes {
        file.set_len(saved.length)?;
    }
    Ok(saved)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::transfer::zeros::CELL;

    async fn saved(bytes: &[u8]) -> (Saved, File) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"what was there before, and longer").unwrap();
        let result = write_sparse(bytes, file.try_clone().unwrap()).await.unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        (result, file)
    }

    #[tokio::test]
    async fn a_file_has_what_the_stream_had_and_no_space_for_its_zeros() {
        let mut bytes = vec![0; 40 * CELL + 100];
        bytes[CELL + 5] = 1;
        bytes[12 * CELL..14 * CELL].fill(2);
        let (saved, mut file) = saved(&bytes).await;
        assert_eq!(saved, Saved { length: bytes.len() as u64, written: 3 * CELL as u64 });
        let mut found = Vec::new();
        file.read_to_end(&mut found).unwrap();
        assert!(found == bytes);
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::MetadataExt as _;
            assert!(file.metadata().unwrap().blocks() * 512 <= 4 * CELL as u64);
        }
    }

    #[tokio::test]
    async fn an_empty_stream_empties_the_file() {
        let (saved, file) = saved(b"").await;
        assert_eq!((saved.length, file.metadata().unwrap().len()), (0, 0));
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_and_a_stream_that_breaks_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let read_only = File::open(&path).unwrap();
        let endless = tokio::io::repeat(1);
        assert!(matches!(write(endless, read_only).await, Err(Fault::Sink(_))));
        let broken = tokio_test_broken();
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(write(broken, file).await, Err(Fault::Source(_))));
    }

    /// Ten bytes and then an error.
    fn tokio_test_broken() -> impl AsyncRead + Unpin {
        struct Broken(bool);
        impl AsyncRead for Broken {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
                buffer: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                if std::mem::replace(&mut self.0, true) {
                    return std::task::Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                buffer.put_slice(&[1; 10]);
                std::task::Poll::Ready(Ok(()))
            }
        }
        Broken(false)
    }
}
