//! The head of an answer as HTTP has it.

use std::io;

/// How large the head of an answer may be, in bytes: who reads gives up beyond that.
pub(crate) const LARGEST_HEAD: usize = 64 << 10;

/// How many headers an answer may have.
const HEADERS: usize = 64;

/// Reads a head with `read`, which is given the answer, whose headers [`header`] finds; says too how long the
/// head is. Nothing where not all of it is there.
pub(crate) fn read_head<T>(
    bytes: &[u8],
    read: impl FnOnce(&httparse::Response<'_, '_>) -> io::Result<T>,
) -> io::Result<Option<(T, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(size)) => Ok(Some((read(&response)?, size))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => {
            let reason = format!("the answer is no HTTP: {error}");
            Err(io::Error::new(io::ErrorKind::InvalidData, reason))
        }
    }
}

/// The first header of this name that is text.
pub(crate) fn header<'a>(response: &'a httparse::Response<'_, '_>, name: &str) -> Option<&'a str> {
    let mut found = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    found.next().and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
}
