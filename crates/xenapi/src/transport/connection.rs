//! HTTP/1.1 on one connection: one request, then its answer, then perhaps the next.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// How large the head of an answer may be, and how many headers it may have.
const HEAD: usize = 64 << 10;
const HEADERS: usize = 64;

/// An answer of a server.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub(crate) enum ReceiveError {
    Io(io::Error),
    /// It is larger than the limit.
    TooLarge,
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A connection and what has been read from it beyond the last answer.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    read: Vec<u8>,
    reusable: bool,
}

struct Head {
    status: u16,
    content_type: String,
    length: Length,
    keep: bool,
    size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Length {
    Exact(usize),
    Chunked,
    UntilClose,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new(), reusable: true }
    }

    /// Whether another request can go over it.
    pub(crate) fn is_reusable(&self) -> bool {
        self.reusable && self.read.is_empty()
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
    pub(crate) async fn receive(&mut self, limit: usize) -> Result<Response, ReceiveError> {
        let head = loop {
            let head = self.head().await?;
            self.read.drain(..head.size);
            // Answers of the kind "continue" come before the real one.
            if head.status >= 200 {
                break head;
            }
        };
        let body = match head.length {
            Length::Exact(length) => self.exactly(length, limit).await?,
            Length::Chunked => self.chunks(limit).await?,
            Length::UntilClose => self.rest(limit).await?,
        };
        self.reusable = head.keep && head.length != Length::UntilClose;
        Ok(Response { status: head.status, content_type: head.content_type, body })
    }

    async fn head(&mut self) -> Result<Head, ReceiveError> {
        loop {
            if let Some(head) = parse(&self.read)? {
                return Ok(head);
            }
            if self.read.len() > HEAD {
                return Err(invalid("the head of the answer has no end").into());
            }
            self.more().await?;
        }
    }

    /// Reads some bytes; the end of the stream is an error.
    async fn more(&mut self) -> io::Result<()> {
        self.read.reserve(4096);
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn exactly(&mut self, length: usize, limit: usize) -> Result<Vec<u8>, ReceiveError> {
        if length > limit {
            return Err(ReceiveError::TooLarge);
        }
        if self.read.len() >= length {
            let rest = self.read.split_off(length);
            return Ok(std::mem::replace(&mut self.read, rest));
        }
        // In one piece, so that the answer is in memory once. Pages that are never written to cost
        // nothing, should a server announce more than it sends.
        let mut body = vec![0; length];
        let mut filled = self.read.len();
        body[..filled].copy_from_slice(&self.read);
        self.read.clear();
        while filled < length {
            match self.stream.read(&mut body[filled..]).await? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                count => filled += count,
            }
        }
        Ok(body)
    }

    async fn chunks(&mut self, limit: usize) -> Result<Vec<u8>, ReceiveError> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(size)
                .ok()
                .and_then(|size| usize::from_str_radix(size.trim(), 16).ok())
                .ok_or_else(|| invalid("a chunk of the answer has no size"))?;
            if size == 0 {
                // Trailers, up to an empty line.
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            if size > limit - body.len() {
                return Err(ReceiveError::TooLarge);
            }
            body.extend(self.exactly(size, limit).await?);
            if !self.line().await?.is_empty() {
                return Err(invalid("a chunk of the answer has no end").into());
            }
        }
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.read.split_off(end + 2);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.truncate(end);
                return Ok(line);
            }
            if self.read.len() > HEAD {
                return Err(invalid("a line of the answer has no end"));
            }
            self.more().await?;
        }
    }

    async fn rest(&mut self, limit: usize) -> Result<Vec<u8>, ReceiveError> {
        let mut body = std::mem::take(&mut self.read);
        loop {
            if body.len() > limit {
                return Err(ReceiveError::TooLarge);
            }
            body.reserve(4096);
            if self.stream.read_buf(&mut body).await? == 0 {
                return Ok(body);
            }
        }
    }
}

/// The head, where all of it is there.
fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let size = match response.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(&format!("the answer is no HTTP: {error}"))),
    };
    let header = |name: &str| {
        let mut found =
            response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let status = response.code.unwrap_or_default();
    let length = if matches!(status, 100..=199 | 204 | 304) {
        Length::Exact(0)
    } else if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    {
        Length::Chunked
    } else {
        match header("content-length") {
            Some(length) => {
                let length =
                    length.parse().map_err(|_| invalid("the length of the answer is no number"))?;
                Length::Exact(length)
            }
            None => Length::UntilClose,
        }
    };
    let keep = match header("connection") {
        Some(value) if value.eq_ignore_ascii_case("close") => false,
        Some(value) if value.eq_ignore_ascii_case("keep-alive") => true,
        _ => response.version == Some(1),
    };
    let content_type = header("content-type").unwrap_or_default().to_ascii_lowercase();
    Ok(Some(Head { status, content_type, length, keep, size }))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1000;

    /// What a client makes of these bytes, when the server closes the connection after them.
    async fn receive(bytes: &[u8]) -> Result<(Response, bool), ReceiveError> {
        let stream = tokio_test_stream(bytes);
        let mut connection = Connection::new(stream);
        let response = connection.receive(LIMIT).await?;
        Ok((response, connection.is_reusable()))
    }

    fn tokio_test_stream(bytes: &[u8]) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
        tokio::io::join(io::Cursor::new(bytes.to_vec()), tokio::io::sink())
    }

    #[tokio::test]
    async fn an_answer_with_a_length_leaves_the_connection_usable() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON\r\ncontent-length: 2\r\n\r\n{}";
        let (response, reusable) = receive(bytes).await.unwrap();
        assert_eq!((response.status, response.body.as_slice()), (200, b"{}".as_slice()));
        assert_eq!(response.content_type, "application/json");
        assert!(reusable);
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_anywhere_is_an_error() {
        let whole: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n",
        ];
        for bytes in whole {
            assert_eq!(receive(bytes).await.unwrap().0.body, b"hello");
            for cut in 0..bytes.len() {
                let error = receive(&bytes[..cut]).await.unwrap_err();
                assert!(matches!(error, ReceiveError::Io(_)), "{cut}");
            }
        }
    }

    #[tokio::test]
    async fn without_a_length_the_answer_lasts_until_the_end() {
        let (response, reusable) = receive(b"HTTP/1.0 404 Not Found\r\n\r\ngone").await.unwrap();
        assert_eq!((response.status, response.body.as_slice()), (404, b"gone".as_slice()));
        assert!(!reusable);
    }

    #[tokio::test]
    async fn oversized_answers_are_refused_before_they_are_read() {
        for bytes in [
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n".to_vec(),
            [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; LIMIT + 1]].concat(),
        ] {
            assert!(matches!(receive(&bytes).await, Err(ReceiveError::TooLarge)));
        }
    }

    #[tokio::test]
    async fn what_is_no_http_is_refused() {
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &vec![b'x'; 2 * HEAD]].concat();
        for bytes in [
            b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(),
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            &endless,
        ] {
            assert!(matches!(receive(bytes).await, Err(ReceiveError::Io(_))));
        }
    }
}
