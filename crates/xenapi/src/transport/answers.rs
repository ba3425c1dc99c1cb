//! Answers out of the bytes of a connection. No I/O: who reads asks where to, and then what there is.
//!
//! ```text
//! Head ──▶ Fill ──▶ whole            (a length)
//!    ├───▶ Rest ──end of stream──▶ whole   (no length)
//!    └───▶ ChunkSize ──▶ ChunkFill ──▶ ChunkEnd ──▶ ChunkSize … ──▶ Trailers ──▶ whole
//! ```

use std::io;

use bytes::BufMut as _;
use bytes::buf::Limit;

use super::head::{LARGEST_HEAD, header, read_head};

/// How much is read at once where it is not known how much there is: several answers to short questions.
const ROOM: usize = 8 << 10;

/// An answer of a server.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
    /// Whether the server takes another request over the same connection.
    pub(super) keep: bool,
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

/// What came over a connection and was not made answers of yet.
#[derive(Debug)]
pub(super) struct Answers {
    /// The most bytes that the body of an answer may have.
    limit: usize,
    read: Vec<u8>,
    /// How much of what was read has been used.
    used: usize,
    /// The answer that is being read; its body is not whole.
    begun: Response,
    part: Part,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Head,
    /// So many bytes of the body.
    Fill(usize),
    ChunkSize,
    /// So many bytes of a chunk.
    ChunkFill(usize),
    ChunkEnd,
    /// Lines up to an empty one.
    Trailers,
    /// All up to the end of the stream.
    Rest,
}

impl Answers {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, read: Vec::new(), used: 0, begun: Response::empty(), part: Part::Head }
    }

    /// Whether nothing came that is not part of an answer which was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.part == Part::Head && self.used == self.read.len()
    }

    /// Where the next bytes are to be read to, after [`Answers::next`] found too few.
    pub(super) fn room(&mut self) -> Limit<&mut Vec<u8>> {
        match self.part {
            // In one piece, so that a large answer is in memory once.
            Part::Fill(missing) | Part::ChunkFill(missing) => (&mut self.begun.body).limit(missing),
            Part::Rest => {
                self.begun.body.reserve(ROOM);
                (&mut self.begun.body).limit(usize::MAX)
            }
            Part::Head | Part::ChunkSize | Part::ChunkEnd | Part::Trailers => {
                self.read.drain(..self.used);
                self.used = 0;
                self.read.reserve(ROOM);
                (&mut self.read).limit(usize::MAX)
            }
        }
    }

    /// Takes note of how many bytes were read to where they were to be.
    pub(super) fn filled(&mut self, count: usize) {
        if let Part::Fill(missing) | Part::ChunkFill(missing) = &mut self.part {
            *missing -= count;
        }
    }

    /// The next answer, where all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Response>, ReceiveError> {
        loop {
            let part = match self.part {
                Part::Head => self.head()?,
                Part::Fill(missing) => match self.fill(missing) {
                    0 => return Ok(Some(self.take())),
                    missing => {
                        self.part = Part::Fill(missing);
                        None
                    }
                },
                Part::ChunkSize => self.chunk()?,
                Part::ChunkFill(missing) => match self.fill(missing) {
                    0 => Some(Part::ChunkEnd),
                    missing => {
                        self.part = Part::ChunkFill(missing);
                        None
                    }
                },
                Part::ChunkEnd => match self.line()? {
                    Some([]) => Some(Part::ChunkSize),
                    Some(_) => return Err(invalid("a chunk of the answer has no end").into()),
                    None => None,
                },
                Part::Trailers => match self.line()? {
                    Some([]) => return Ok(Some(self.take())),
                    Some(_) => Some(Part::Trailers),
                    None => None,
                },
                Part::Rest => {
                    self.fill(usize::MAX);
                    if self.begun.body.len() > self.limit {
                        return Err(ReceiveError::TooLarge);
                    }
                    None
                }
            };
            match part {
                Some(part) => self.part = part,
                None => return Ok(None),
            }
        }
    }

    /// The answer that ends with the stream; any other is cut.
    pub(super) fn end(&mut self) -> io::Result<Response> {
        match self.part {
            Part::Rest => Ok(self.take()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn take(&mut self) -> Response {
        self.part = Part::Head;
        std::mem::replace(&mut self.begun, Response::empty())
    }

    /// Moves up to so many bytes of what was read into the body, and says how many are missing.
    fn fill(&mut self, wanted: usize) -> usize {
        let there = &self.read[self.used..];
        let there = &there[..there.len().min(wanted)];
        self.begun.body.extend_from_slice(there);
        self.used += there.len();
        wanted - there.len()
    }

    fn head(&mut self) -> Result<Option<Part>, ReceiveError> {
        let unread = &self.read[self.used..];
        let Some(head) = parse(unread)? else {
            if unread.len() > LARGEST_HEAD {
                return Err(invalid("the head of the answer has no end").into());
            }
            return Ok(None);
        };
        self.used += head.size;
        // Answers of the kind "continue" come before the real one.
        if head.response.status < 200 {
            return Ok(Some(Part::Head));
        }
        self.begun = head.response;
        if let Part::Fill(length) = head.body {
            if length > self.limit {
                return Err(ReceiveError::TooLarge);
            }
            // Pages that are never written to cost nothing, should a server announce more than it sends.
            self.begun.body.reserve_exact(length);
        }
        Ok(Some(head.body))
    }

    fn chunk(&mut self) -> Result<Option<Part>, ReceiveError> {
        let Some(line) = self.line()? else { return Ok(None) };
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(size)
            .ok()
            .and_then(|size| usize::from_str_radix(size.trim(), 16).ok())
            .ok_or_else(|| invalid("a chunk of the answer has no size"))?;
        if size == 0 {
            return Ok(Some(Part::Trailers));
        }
        if size > self.limit - self.begun.body.len() {
            return Err(ReceiveError::TooLarge);
        }
        self.begun.body.reserve(size);
        Ok(Some(Part::ChunkFill(size)))
    }

    /// The next line without its end, where all of it is there.
    fn line(&mut self) -> io::Result<Option<&[u8]>> {
        let start = self.used;
        let unread = &self.read[start..];
        match unread.windows(2).position(|pair| pair == b"\r\n") {
            Some(length) => {
                self.used += length + 2;
                Ok(Some(&self.read[start..start + length]))
            }
            None if unread.len() > LARGEST_HEAD => Err(invalid("a line of the answer has no end")),
            None => Ok(None),
        }
    }
}

impl Response {
    fn empty() -> Self {
        Self { status: 0, content_type: String::new(), body: Vec::new(), keep: false }
    }
}

struct Head {
    response: Response,
    body: Part,
    size: usize,
}

/// The head, where all of it is there.
fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let head = read_head(bytes, |response| {
        let header = |name: &str| header(response, name);
        let status = response.code.unwrap_or_default();
        let body = if matches!(status, 100..=199 | 204 | 304) {
            Part::Fill(0)
        } else if header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            Part::ChunkSize
        } else {
            match header("content-length") {
                Some(length) => {
                    let length = length
                        .parse()
                        .map_err(|_| invalid("the length of the answer is no number"))?;
                    Part::Fill(length)
                }
                None => Part::Rest,
            }
        };
        let keep = match header("connection") {
            Some(value) if value.eq_ignore_ascii_case("close") => false,
            Some(value) if value.eq_ignore_ascii_case("keep-alive") => true,
            _ => response.version == Some(1),
        };
        let keep = keep && body != Part::Rest;
        let content_type = header("content-type").unwrap_or_default().to_ascii_lowercase();
        let response = Response { status, content_type, body: Vec::new(), keep };
        Ok((response, body))
    })?;
    Ok(head.map(|((response, body), size)| Head { response, body, size }))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

/// What a client makes of these bytes, when they come in pieces of this size and then no more.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn receive_in(
    pieces: usize,
    limit: usize,
    bytes: &[u8],
) -> Result<Vec<Response>, ReceiveError> {
    let mut answers = Answers::new(limit);
    let mut received = Vec::new();
    let mut bytes = bytes;
    loop {
        while let Some(answer) = answers.next()? {
            received.push(answer);
        }
        if bytes.is_empty() {
            if !answers.is_empty() {
                received.push(answers.end()?);
            }
            return Ok(received);
        }
        let mut room = answers.room();
        let count = pieces.min(bytes.len()).min(room.remaining_mut());
        room.put_slice(&bytes[..count]);
        answers.filled(count);
        bytes = &bytes[count..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1000;

    fn receive(bytes: &[u8]) -> Result<Response, ReceiveError> {
        Ok(receive_in(usize::MAX, LIMIT, bytes)?.pop().unwrap())
    }

    const MIXED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst\
        HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nsec\r\n3;x=y\r\nond\r\n0\r\nA: b\r\n\r\n\
        HTTP/1.1 204 No Content\r\n\r\n\
        HTTP/1.1 500 Internal Error\r\n\r\nthe rest";

    #[test]
    fn an_answer_with_a_length_leaves_the_connection_usable() {
        let bytes =
            b"HTTP/1.1 200 OK\r\nContent-Type: Application/JSON\r\ncontent-length: 2\r\n\r\n{}";
        let response = receive(bytes).unwrap();
        assert_eq!((response.status, response.body.as_slice()), (200, b"{}".as_slice()));
        assert_eq!(response.content_type, "application/json");
        assert!(response.keep);
    }

    #[test]
    fn answers_one_behind_another_are_told_apart_however_they_are_cut_into_pieces() {
        for pieces in 1..=MIXED.len() {
            let received = receive_in(pieces, LIMIT, MIXED).unwrap();
            let told = received.iter().map(|it| (it.status, it.body.as_slice(), it.keep));
            assert_eq!(
                told.collect::<Vec<_>>(),
                [
                    (200, b"first".as_slice(), true),
                    (200, b"second", true),
                    (204, b"", true),
                    (500, b"the rest", false)
                ]
            );
        }
    }

    #[test]
    fn an_answer_that_is_cut_anywhere_is_an_error() {
        let whole: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n",
        ];
        for bytes in whole {
            assert_eq!(receive(bytes).unwrap().body, b"hello");
            for cut in 0..bytes.len() {
                let mut answers = Answers::new(LIMIT);
                answers.room().put_slice(&bytes[..cut]);
                assert!(answers.next().unwrap().is_none());
                assert_eq!(answers.end().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            }
        }
    }

    #[test]
    fn without_a_length_the_answer_lasts_until_the_end() {
        let response = receive(b"HTTP/1.0 404 Not Found\r\n\r\ngone").unwrap();
        assert_eq!((response.status, response.body.as_slice()), (404, b"gone".as_slice()));
        assert!(!response.keep);
    }

    #[test]
    fn oversized_answers_are_refused_before_they_are_read() {
        for bytes in [
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n".to_vec(),
            [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; LIMIT + 1]].concat(),
        ] {
            assert!(matches!(receive(&bytes), Err(ReceiveError::TooLarge)));
        }
    }

    #[test]
    fn what_is_no_http_is_refused() {
        let endless =
            [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &vec![b'x'; 2 * LARGEST_HEAD]].concat();
        for bytes in [
            b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(),
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            &endless,
        ] {
            assert!(matches!(receive(bytes), Err(ReceiveError::Io(_))));
        }
    }
}
