//! The bytes of a connection: requests that have come, answers that have not gone yet.
//!
//! Answers gather as long as the next is ready at once. They go before anything is waited for, be it the
//! next request, or the work that a request takes.

use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Stream;

/// How much is read at once, and so how many requests: a client may send some before it reads answers.
const READ: usize = 16 * 1024;
/// How many bytes of answers may gather.
const GATHERED: usize = 64 * 1024;
/// How much of later requests is read while one is being answered.
const AHEAD: usize = 512 * 1024;

/// A connection with what has been read of it and not been used, and what is to be sent.
pub(super) struct Link {
    stream: Box<dyn Stream>,
    /// What came and was not used yet.
    pub(super) read: BytesMut,
    unsent: Vec<u8>,
}

impl Link {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, read: BytesMut::new(), unsent: Vec::new() }
    }

    /// Sends what there is and waits for more to read. False at the end of the stream.
    pub(super) async fn more(&mut self) -> io::Result<bool> {
        self.flush().await?;
        self.read_some().await
    }

    async fn read_some(&mut self) -> io::Result<bool> {
        self.read.reserve(READ);
        Ok(self.stream.read_buf(&mut self.read).await? > 0)
    }

    /// Sends these bytes with or before whatever comes next.
    pub(super) async fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        write(&mut self.unsent);
        if self.unsent.len() < GATHERED { Ok(()) } else { self.flush().await }
    }

    /// Sends these bytes now: many, of which no copy is wanted.
    pub(super) async fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush().await?;
        self.stream.write_all(bytes).await
    }

    /// Sends all that there is.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if !self.unsent.is_empty() {
            self.stream.write_all(&self.unsent).await?;
            self.unsent.clear();
            self.stream.flush().await?;
        }
        Ok(())
    }

    /// Sends all that there is, and ends the connection.
    pub(super) async fn shut(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await
    }

    /// The stream by itself, and what was read of it too much.
    pub(super) async fn into_parts(mut self) -> io::Result<(Box<dyn Stream>, Vec<u8>)> {
        self.flush().await?;
        Ok((self.stream, self.read.to_vec()))
    }

    /// Does some work, with nothing held back that was ready before it. Nothing where the client went
    /// meanwhile, if the work is for nobody then.
    pub(super) async fn beside<T>(
        &mut self,
        work: impl Future<Output = T>,
        for_nobody: bool,
    ) -> io::Result<Option<T>> {
        let mut work = pin!(work);
        let at_once = std::future::poll_fn(|context| Poll::Ready(work.as_mut().poll(context)));
        if let Poll::Ready(done) = at_once.await {
            return Ok(Some(done));
        }
        self.flush().await?;
        if !for_nobody {
            return Ok(Some(work.await));
        }
        tokio::select! {
            done = &mut work => Ok(Some(done)),
            gone = self.until_gone() => gone.map(|()| None),
        }
    }

    /// Reads ahead until the client has gone.
    async fn until_gone(&mut self) -> io::Result<()> {
        while self.read.len() < AHEAD {
            if !self.read_some().await? {
                return Ok(());
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{DuplexStream, duplex};
    use tokio::time::{sleep, timeout};

    use super::*;

    fn link() -> (DuplexStream, Link) {
        let (client, server) = duplex(1 << 20);
        (client, Link::new(Box::new(server)))
    }

    async fn received(client: &mut DuplexStream) -> Vec<u8> {
        let mut bytes = vec![0; 100];
        let moment = Duration::from_millis(1);
        let read = timeout(moment, client.read(&mut bytes)).await;
        bytes.truncate(read.map_or(0, Result::unwrap));
        bytes
    }

    async fn say(link: &mut Link, text: &[u8]) {
        link.send(|out| out.extend_from_slice(text)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn answers_gather_while_the_next_is_ready_at_once() {
        let (mut client, mut link) = link();
        say(&mut link, b"one ").await;
        assert_eq!(link.beside(async { 2 }, true).await.unwrap(), Some(2));
        say(&mut link, b"two").await;
        assert_eq!(received(&mut client).await, b"");
        client.write_all(b"next").await.unwrap();
        assert!(link.more().await.unwrap());
        assert_eq!(received(&mut client).await, b"one two");
        assert_eq!(&link.read[..], b"next");
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_waits_for_the_next_request_or_for_work() {
        let (mut client, mut link) = link();
        say(&mut link, b"one").await;
        let work = async {
            link.beside(sleep(Duration::from_secs(1)), false).await.unwrap();
            say(&mut link, b"two").await;
            link.more().await.unwrap()
        };
        let client = async {
            assert_eq!(received(&mut client).await, b"one");
            sleep(Duration::from_secs(2)).await;
            assert_eq!(received(&mut client).await, b"two");
            drop(client);
        };
        assert_eq!(tokio::join!(work, client), (false, ()));
    }

    #[tokio::test(start_paused = true)]
    async fn many_answers_go_before_they_fill_the_memory() {
        let (mut client, mut link) = link();
        for _ in 0..GATHERED / 4 {
            say(&mut link, b"more").await;
        }
        assert_eq!(received(&mut client).await.len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn work_for_nobody_ends_when_the_client_goes_and_other_work_does_not() {
        let (client, mut link) = link();
        drop(client);
        let long = || async {
            sleep(Duration::from_secs(50)).await;
            "done"
        };
        let start = tokio::time::Instant::now();
        assert_eq!(link.beside(long(), true).await.unwrap(), None);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(link.beside(long(), false).await.unwrap(), Some("done"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_there_is_work_is_kept() {
        let (mut client, mut link) = link();
        client.write_all(b"next").await.unwrap();
        link.beside(sleep(Duration::from_secs(1)), true).await.unwrap().unwrap();
        assert_eq!(&link.read[..], b"next");
    }
}
