//! Large JSON answers, read entry by entry from the end, so that what has been read can go.
//!
//! A pool of thousands of VMs is tens of megabytes of text and as much again as records. To have
//! both at once is what decides how much memory a client needs. The entries of the result are found
//! first, without understanding them; then the last one is read and cut off, and the next.

use super::answer::mend_odd_floats;

/// Memory is given back in steps of this size.
const STEP: usize = 1 << 20;

/// An answer whose result is a map, and where the entries of that are.
#[derive(Debug)]
pub struct Pieces {
    body: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: usize,
    colon: usize,
    value: usize,
    end: usize,
}

impl Pieces {
    /// Finds the entries. Gives back what is no answer, no success or has no map as its result.
    pub(super) fn find(body: Vec<u8>) -> Result<Self, Vec<u8>> {
        match scan(&body) {
            Some(entries) => Ok(Self { body, entries }),
            None => Err(body),
        }
    }

    /// How many entries are left.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Reads the last entry that is left: the key's text and the value's text, both JSON.
    pub(super) fn take_last<T>(
        &mut self,
        mut read: impl FnMut(&[u8], &[u8]) -> Result<T, serde_json::Error>,
    ) -> Option<Result<T, String>> {
        let Entry { key, colon, value, end } = self.entries.pop()?;
        self.body.truncate(end);
        if self.body.capacity() - end > STEP {
            self.body.shrink_to_fit();
        }
        let (before, text) = self.body.split_at_mut(value);
        let name = &before[key..colon];
        let entry = match read(name, text) {
            Err(error) if error.is_syntax() && mend_odd_floats(text) => read(name, text),
            entry => entry,
        };
        Some(entry.map_err(|error| format!("{}: {error}", String::from_utf8_lossy(name))))
    }
}

fn scan(body: &[u8]) -> Option<Vec<Entry>> {
    let mut found = None;
    let mut at = after(body, 0, b'{')?;
    loop {
        let (key, colon, value) = name(body, at)?;
        let end = match (&body[key..colon], body.get(value)?) {
            (b"\"result\"", b'{') => {
                let (entries, end) = entries(body, value)?;
                found = Some(entries);
                end
            }
            _ => skip(body, value)?,
        };
        if &body[key..colon] == b"\"error\"" && &body[value..end] != b"null" {
            return None;
        }
        if let Some(next) = after(body, end, b',') {
            at = next;
        } else {
            let end = after(body, end, b'}')?;
            return found.filter(|_| space(body, end) == body.len());
        }
    }
}

/// The entries of the object that starts here, and where it ends.
fn entries(body: &[u8], start: usize) -> Option<(Vec<Entry>, usize)> {
    let mut found = Vec::new();
    let mut at = after(body, start, b'{')?;
    if let Some(end) = after(body, at, b'}') {
        return Some((found, end));
    }
    loop {
        let entry = next_entry(body, at)?;
        found.push(entry);
        match after(body, entry.end, b',') {
            Some(next) => at = next,
            None => return Some((found, after(body, entry.end, b'}')?)),
        }
    }
}

fn next_entry(body: &[u8], at: usize) -> Option<Entry> {
    let (key, colon, value) = name(body, at)?;
    Some(Entry { key, colon, value, end: skip(body, value)? })
}

/// Where a name starts and ends, and where its value starts.
fn name(body: &[u8], at: usize) -> Option<(usize, usize, usize)> {
    let key = space(body, at);
    if body.get(key)? != &b'"' {
        return None;
    }
    let colon = string(body, key)?;
    Some((key, colon, space(body, after(body, colon, b':')?)))
}

fn space(body: &[u8], at: usize) -> usize {
    let rest = body.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

fn after(body: &[u8], at: usize, mark: u8) -> Option<usize> {
    let at = space(body, at);
    (body.get(at)? == &mark).then_some(at + 1)
}

/// Where the string that starts here ends.
fn string(body: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += quote_or_escape(body.get(at..)?)?;
        if body[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Finds a quote or a backslash, eight bytes at a time: strings are most of an answer.
fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // The lowest bit that is set belongs to the first byte that is zero; higher ones may be wrong.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let hit = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if hit != 0 {
            return Some(index * 8 + hit.trailing_zeros() as usize / 8);
        }
    }
    let place = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(words.len() * 8 + place)
}

/// Where the value that starts here ends. Whether it is one is seen when it is read.
fn skip(body: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0_usize);
    loop {
        let from = at;
        at += body.get(at..)?.iter().position(|byte| {
            matches!(byte, b'"' | b'{' | b'[' | b'}' | b']') || (depth == 0 && *byte == b',')
        })?;
        match body[at] {
            b'"' => at = string(body, at)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            // A number or a word ends where the map around it goes on.
            _ => {
                let text = body[from..at].trim_ascii_end();
                return (depth == 0 && !text.is_empty()).then_some(from + text.len());
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}
