//! HTTP by hand, for what a call is not: answers that come before the request is over, bodies that end
//! with the connection, and connections that become something else.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::secrecy::Secret;
use crate::transport::{Endpoint, LARGEST_HEAD, header, read_head};

/// How much of a page that says what is wrong is read.
const PAGE: u64 = 4096;

/// What is asked for: a path, and parameters that are written so that they stay one each.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target(String);

impl Target {
    pub(crate) fn new(path: &'static str) -> Self {
        Self(path.to_owned())
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            // References have colons, which may stand in a query as they are.
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':') {
                self.0.push(char::from(byte));
            } else {
                self.0.push('%');
                for digit in [byte >> 4, byte & 15] {
                    let digit = char::from_digit(digit.into(), 16).expect("it is below 16");
                    self.0.push(digit.to_ascii_uppercase());
                }
            }
        }
        self
    }
}

/// A request without its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// The method and the version: servers want 1.0 for some.
    pub(crate) line: (&'static str, &'static str),
    pub(crate) target: &'a Target,
    /// How long the body is, where there is one. It is never sent in pieces: servers refuse that.
    pub(crate) length: Option<u64>,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(target: &'a Target) -> Self {
        Self { line: ("GET", "HTTP/1.1"), target, length: None }
    }

    pub(crate) fn put(target: &'a Target, length: u64) -> Self {
        Self { line: ("PUT", "HTTP/1.1"), target, length: Some(length) }
    }

    pub(crate) fn connect(target: &'a Target) -> Self {
        Self { line: ("CONNECT", "HTTP/1.0"), target, length: None }
    }

    /// The head as it is sent. The session goes in a cookie: queries end up in logs.
    pub(crate) fn head(&self, endpoint: &Endpoint, session: &Secret) -> io::Result<Vec<u8>> {
        let session = session.expose();
        if !session.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
            return Err(invalid("the session cannot be sent in a header"));
        }
        let (method, version) = self.line;
        let length =
            self.length.map_or_else(String::new, |length| format!("Content-Length: {length}\r\n"));
        let head = format!(
            "{method} {} {version}\r\nHost: {}\r\nUser-Agent: xenapi/{}\r\nAccept: */*\r\n\
             Cookie: session_id={session}\r\n{length}Connection: close\r\n\r\n",
            self.target.0,
            endpoint.authority(),
            env!("CARGO_PKG_VERSION"),
        );
        Ok(head.into_bytes())
    }
}

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// How long the body is, where it does not just end with the connection.
    pub(crate) length: Option<u64>,
    /// Where to go instead.
    pub(crate) location: Option<String>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    pub(crate) fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    /// Reads the head, and says how long it is, where all of it is there.
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        read_head(bytes, |response| {
            let header = |name: &str| header(response, name);
            if header("transfer-encoding")
                .is_some_and(|value| !value.eq_ignore_ascii_case("identity"))
            {
                return Err(invalid("the answer comes in pieces, which these handlers never do"));
            }
            let length = header("content-length")
                .map(|length| length.parse().map_err(|_| invalid("its length is no number")))
                .transpose()?;
            let location = header("location").map(str::to_owned);
            Ok(Self { status: response.code.unwrap_or_default(), length, location })
        })
    }
}

/// A connection over which one request goes.
#[derive(Debug)]
pub(crate) struct Exchange<S> {
    stream: S,
    /// What was read beyond the head of the answer, from the place on that has not been given out.
    read: Vec<u8>,
    place: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, read: Vec::new(), place: 0 }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads the head of the answer. If this is dropped before it is done, it can be called again.
    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        loop {
            if let Some((answer, size)) = Answer::parse(&self.read)? {
                self.read.drain(..size);
                // Answers of the kind "continue" come before the real one.
                if answer.status >= 200 {
                    return Ok(answer);
                }
            } else if self.read.len() > LARGEST_HEAD {
                return Err(invalid("the head of the answer has no end"));
            } else {
                self.read.reserve(4096);
                if self.stream.read_buf(&mut self.read).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }

    /// Reads the body of the answer, of at most so many bytes.
    pub(crate) async fn body(&mut self, answer: &Answer, limit: u64) -> io::Result<Vec<u8>> {
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "the answer is too large");
        let length = answer.length.unwrap_or(limit.saturating_add(1));
        if answer.length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        self.take(length).read_to_end(&mut body).await?;
        match answer.length {
            Some(length) if (body.len() as u64) < length => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            None if body.len() as u64 > limit => Err(too_large()),
            _ => Ok(body),
        }
    }

    /// How the page begins that says what is wrong, on one line.
    pub(crate) async fn excerpt(&mut self, answer: &Answer) -> String {
        let length = answer.length.unwrap_or(PAGE).min(PAGE);
        let mut page = Vec::new();
        // What was read before a failure is all that there is to show.
        let _ = self.take(length).read_to_end(&mut page).await;
        let text = String::from_utf8_lossy(&page);
        let plain: String =
            text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        plain.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Exchange<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.place == this.read.len() {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        }
        let rest = &this.read[this.place..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        this.place += count;
        if this.place == this.read.len() {
            (this.read, this.place) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Exchange<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// The host that a `Location` leads to, spoken to at least as safely as the one that sent it.
pub(crate) fn redirect(from: &Endpoint, location: &str) -> Option<Endpoint> {
    let (scheme, rest) = location.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let to: Endpoint = format!("{scheme}://{authority}").parse().ok()?;
    (to.is_tls() || !from.is_tls()).then_some(to)
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exchange(bytes: &[u8]) -> Exchange<impl AsyncRead + AsyncWrite + Unpin + use<>> {
        Exchange::new(tokio::io::join(io::Cursor::new(bytes.to_vec()), tokio::io::sink()))
    }

    #[test]
    fn parameters_stay_one_each_whatever_is_in_them() {
        let target = Target::new("/export").with("ref", "OpaqueRef:a-b").with("x", "1&y=\r\n é");
        assert_eq!(target.0, "/export?ref=OpaqueRef:a-b&x=1%26y%3D%0D%0A%20%C3%A9");
    }

    #[test]
    fn the_session_is_in_a_cookie_and_cannot_become_a_header() {
        let endpoint = "http://127.0.0.1:8080".parse().unwrap();
        let target = Target::new("/import_raw_vdi");
        let head = Ask::put(&target, 7).head(&endpoint, &Secret::from("OpaqueRef:s")).unwrap();
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("PUT /import_raw_vdi HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"));
        assert!(head.contains("\r\nCookie: session_id=OpaqueRef:s\r\nContent-Length: 7\r\n"));
        for session in ["a\r\nEvil: 1", "a;b", "a b"] {
            assert!(Ask::get(&target).head(&endpoint, &Secret::from(session)).is_err());
        }
    }

    #[tokio::test]
    async fn an_answer_is_read_wherever_its_bytes_are_cut() {
        const ANSWER: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 Found\r\nLocation: https://h/x\r\nContent-Length: 4\r\n\r\nbody";
        for cut in 0..=ANSWER.len() {
            let (first, second) = ANSWER.split_at(cut);
            let halves = first.chain(second);
            let mut exchange = Exchange::new(tokio::io::join(halves, tokio::io::sink()));
            let answer = exchange.answer().await.unwrap();
            assert!(answer.is_redirect(), "{cut}");
            assert_eq!(answer.location.as_deref(), Some("https://h/x"));
            assert_eq!(exchange.body(&answer, 10).await.unwrap(), b"body");
            let mut short = self::exchange(first);
            let whole = match short.answer().await {
                Ok(answer) => short.body(&answer, 10).await,
                Err(error) => Err(error),
            };
            assert_eq!(whole.is_ok(), cut == ANSWER.len(), "{cut}");
        }
    }

    #[tokio::test]
    async fn what_follows_the_head_is_given_out_before_the_stream_goes_on() {
        let mut exchange = exchange(b"HTTP/1.1 200 OK\r\n\r\nRFB 003.008\n");
        assert!(exchange.answer().await.unwrap().is_success());
        let mut rest = String::new();
        exchange.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "RFB 003.008\n");
    }

    #[tokio::test]
    async fn answers_that_are_too_large_or_no_http_are_refused() {
        let endless =
            [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &vec![b'x'; 2 * LARGEST_HEAD]].concat();
        for bytes in [
            b"RFB 003.008\n".as_slice(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            &endless,
        ] {
            assert!(exchange(bytes).answer().await.is_err());
        }
        for bytes in [
            b"HTTP/1.1 200 OK\r\n\r\n12345".as_slice(),
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345",
        ] {
            let mut exchange = exchange(bytes);
            let answer = exchange.answer().await.unwrap();
            assert_eq!(
                exchange.body(&answer, 4).await.unwrap_err().kind(),
                io::ErrorKind::FileTooLarge
            );
        }
    }

    #[test]
    fn a_redirect_leads_to_another_host_but_never_out_of_tls() {
        let tls: Endpoint = "https://10.0.0.1".parse().unwrap();
        let plain: Endpoint = "http://127.0.0.1:8080".parse().unwrap();
        let to = |from, location| redirect(from, location).map(|to| to.to_string());
        assert_eq!(to(&tls, "https://10.0.0.2/import?a=b").unwrap(), "https://10.0.0.2");
        assert_eq!(to(&tls, "https://[fd00::2]:8443").unwrap(), "https://[fd00::2]:8443");
        assert_eq!(to(&plain, "http://127.0.0.2:8080/x").unwrap(), "http://127.0.0.2:8080");
        for location in ["http://127.0.0.2/", "/import", "", "https://", "https://u:p@h/"] {
            assert_eq!(to(&tls, location), None, "{location}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, tail: Vec<u8>) {
            let _ = Answer::parse(&bytes);
            let _ = Answer::parse(&[b"HTTP/1.1 200 OK\r\n".as_slice(), &tail].concat());
        }
    }
}
