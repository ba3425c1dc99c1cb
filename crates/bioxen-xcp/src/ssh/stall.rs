//! A byte stream that fails when its other end takes nothing, and when its owner has let go of it.
//!
//! The SSH library waits for its socket without a bound while it writes, and asks no questions
//! meanwhile: a guest that is stopped in the middle of an upload would hold us forever.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// Keeps a stream open; when it is dropped the stream fails.
pub(super) struct Hold {
    _gone: oneshot::Sender<()>,
}

/// Why a connection ended: the first reason that is given stays.
#[derive(Clone, Default)]
pub(super) struct Ending(Arc<OnceLock<String>>);

impl Ending {
    pub(super) fn set(&self, reason: impl Into<String>) {
        // A later reason is a consequence of the first.
        let _ = self.0.set(reason.into());
    }

    pub(super) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

pub(super) struct Guarded<S> {
    stream: S,
    /// `None` once its owner has let go.
    released: Option<oneshot::Receiver<()>>,
    bound: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    ending: Ending,
}

impl<S> Guarded<S> {
    /// A stream on which no write waits longer than `bound`.
    pub(super) fn new(stream: S, bound: Duration, ending: Ending) -> (Self, Hold) {
        let (gone, released) = oneshot::channel();
        (
            Self { stream, released: Some(released), bound, stalled: None, ending },
            Hold { _gone: gone },
        )
    }

    fn poll_released(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self
            .released
            .as_mut()
            .is_some_and(|released| Pin::new(released).poll(context).is_pending())
        {
            return Ok(());
        }
        self.released = None;
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Passes on what a write came to, unless it has waited for too long.
    fn watch<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let bound = self.bound;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(bound)));
        ready!(stalled.as_mut().poll(context));
        self.ending.set(format!("it took no data for {bound:?}"));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_released(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BOUND: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails_when_its_time_is_up() {
        let (ours, _theirs) = tokio::io::duplex(10);
        let ending = Ending::default();
        let (mut stream, _hold) = Guarded::new(ours, BOUND, ending.clone());
        let began = tokio::time::Instant::now();
        let error = stream.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), BOUND);
        assert_eq!(ending.get(), Some("it took no data for 15s"));
    }

    #[tokio::test(start_paused = true)]
    async fn slow_progress_is_no_stall() {
        let (ours, mut theirs) = tokio::io::duplex(1);
        let (mut stream, _hold) = Guarded::new(ours, BOUND, Ending::default());
        let reading = async {
            for _ in 0..5 {
                tokio::time::sleep(BOUND / 2).await;
                theirs.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(b"12345"), reading);
        written.unwrap();
    }

    #[tokio::test]
    async fn a_stream_without_an_owner_can_be_read_no_more() {
        let (ours, _theirs) = tokio::io::duplex(10);
        let (mut stream, hold) = Guarded::new(ours, BOUND, Ending::default());
        let reading = tokio::spawn(async move { stream.read_u8().await });
        drop(hold);
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }
}
