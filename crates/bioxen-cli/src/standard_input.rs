//! The command's standard input, as what the code reads.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::sync::mpsc;

/// Gives each of `count` readers all of standard input, as it comes.
///
/// Needs a runtime. What one reader has not read yet is kept for it, however much that is: were there
/// a bound, a slow reader would hold up the others and spoil the comparison.
pub(crate) fn shared(count: usize) -> Vec<Shared> {
    let (senders, readers): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| mpsc::unbounded_channel())
        .map(|(sender, receiver)| (sender, Shared { receiver, rest: Bytes::new() }))
        .unzip();
    tokio::spawn(distribute(tokio::io::stdin(), senders));
    readers
}

/// Reads until the end, or until no reader is left. An error ends the input, as for any program.
async fn distribute(mut input: impl AsyncRead + Unpin, senders: Vec<mpsc::UnboundedSender<Bytes>>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = input.read(&mut buffer).await {
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        let listening = senders.iter().filter(|sender| sender.send(bytes.clone()).is_ok()).count();
        if listening == 0 {
            return;
        }
    }
}

/// One reader's view of the shared standard input.
pub(crate) struct Shared {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    rest: Bytes,
}

impl AsyncRead for Shared {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            self.rest = ready!(self.receiver.poll_recv(context)).unwrap_or_default();
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[tokio::test]
    async fn every_reader_gets_all_of_the_input() {
        let (senders, mut readers): (Vec<_>, VecDeque<_>) = (0..2)
            .map(|_| mpsc::unbounded_channel())
            .map(|(sender, receiver)| (sender, Shared { receiver, rest: Bytes::new() }))
            .unzip();
        distribute(&b"some input"[..], senders).await;
        for _ in 0..2 {
            let mut text = String::new();
            readers.pop_front().unwrap().read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "some input");
        }
    }
}
