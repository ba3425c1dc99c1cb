//! HTTP/1.1 on one connection: requests go out, and their answers come back in the same order.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::answers::{Answers, ReceiveError, Response};

/// A connection and what has been read from it beyond the last answer.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    answers: Answers,
    reusable: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Over this stream, for answers whose bodies have no more bytes than the limit.
    pub(crate) fn new(stream: S, limit: usize) -> Self {
        Self { stream, answers: Answers::new(limit), reusable: true }
    }

    /// Whether another request can go over it.
    pub(crate) fn is_reusable(&self) -> bool {
        self.reusable && self.answers.is_empty()
    }

    /// Whether the server has not closed it, as far as is known at this moment. Called on a connection
    /// that waits for nothing: anything to read is the end, or something nobody asked for.
    pub(crate) fn is_open(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        matches!(Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer), Poll::Pending)
    }

    /// Sends all of a request.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.reusable = false;
        self.stream.write_all(request).await?;
        self.stream.flush().await
    }

    /// Reads the answer to what was sent.
    pub(crate) async fn receive(&mut self) -> Result<Response, ReceiveError> {
        std::future::poll_fn(|context| self.poll_receive(context)).await
    }

    /// Sends what it can of these bytes, and reads the next answer.
    ///
    /// What breaks in sending shows in reading too, after the answers that came before it.
    pub(super) fn poll_exchange(
        &mut self,
        context: &mut Context<'_>,
        requests: &mut BytesMut,
    ) -> Poll<Result<Response, ReceiveError>> {
        if let Poll::Ready(Err(_)) = self.poll_send(context, requests) {
            requests.clear();
        }
        self.poll_receive(context)
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        requests: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        while !requests.is_empty() {
            self.reusable = false;
            match ready!(Pin::new(&mut self.stream).poll_write(context, requests))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => requests.advance(count),
            }
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<Response, ReceiveError>> {
        loop {
            if let Some(response) = self.answers.next()? {
                self.reusable = response.keep;
                return Poll::Ready(Ok(response));
            }
            let mut room = self.answers.room();
            match ready!(pin!(self.stream.read_buf(&mut room)).poll(context))? {
                0 => return Poll::Ready(self.answers.end().map_err(ReceiveError::Io)),
                count => self.answers.filled(count),
            }
        }
    }
}
