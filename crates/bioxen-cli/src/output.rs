//! The command's own standard output and standard error.
//!
//! Results go to standard output, byte for byte and flushed; a reader that went away is a failure of
//! its own, because other tools end quietly then.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd;

use bioxen::{Chunk, Stream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncWriteExt as _, Stderr, Stdout};

use crate::failure::Failure;

/// Bytes that a pipe takes at once if it takes any (`PIPE_BUF`).
const TAKEN_AT_ONCE: usize = 4096;

/// Writes to standard output and flushes it. For commands without a runtime.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::output)
}

/// Both output streams, written to without holding up the runtime when the reader is slow.
pub(crate) struct Output {
    stdout: Stdout,
    stderr: Stderr,
    /// Whether a message of our own would begin in the middle of the script's last line.
    mid_line: bool,
}

impl Output {
    /// The streams of this process.
    pub(crate) fn new() -> Self {
        Self { stdout: tokio::io::stdout(), stderr: tokio::io::stderr(), mid_line: false }
    }

    /// Passes on what a script wrote.
    pub(crate) async fn pass_on(&mut self, chunk: &Chunk) -> Result<(), Failure> {
        self.write(chunk.stream, &chunk.data).await
    }

    /// Writes all of `bytes` and flushes the stream.
    pub(crate) async fn write(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Failure> {
        let Some(last) = bytes.last() else { return Ok(()) };
        match stream {
            // Saves starting the thread that waits for slow readers, and most runs print little.
            Stream::Stdout if bytes.len() <= TAKEN_AT_ONCE && is_ready(&io::stdout()) => {
                print(bytes)?;
            }
            Stream::Stdout => {
                self.stdout.write_all(bytes).await.map_err(Failure::output)?;
                self.stdout.flush().await.map_err(Failure::output)?;
            }
            Stream::Stderr => {
                // Nobody can be told that standard error is gone.
                let _ = self.stderr.write_all(bytes).await;
                let _ = self.stderr.flush().await;
            }
        }
        if stream == Stream::Stderr || io::stdout().is_terminal() {
            self.mid_line = *last != b'\n';
        }
        Ok(())
    }

    /// Notes that Ctrl-C was pressed, which a terminal shows as `^C`.
    pub(crate) fn note_echoed_key(&mut self) {
        self.mid_line |= io::stdin().is_terminal() && io::stderr().is_terminal();
    }

    /// Ends a line that the script left open, so that a message begins on its own.
    pub(crate) fn finish_line(&mut self) {
        if std::mem::take(&mut self.mid_line) {
            let _ = io::stderr().write_all(b"\n");
        }
    }
}

/// Whether a write would not wait for a reader.
fn is_ready(stream: &impl AsFd) -> bool {
    let mut streams = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut streams, PollTimeout::ZERO), Ok(1..))
}
