//! HTTP/1.1 as the toolstack speaks it.
//!
//! This is written by hand, since the real server does what HTTP libraries rule out: it answers an
//! upload before it reads it, and refuses chunked requests; and since faults cut answers anywhere.

mod link;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::ApiError;
use crate::faults::Fault;
use crate::inner::Inner;
use crate::value::Value;
use crate::wire::{Counter, Malformed, Pieces, Request, Wire, json, xml};
use crate::{control, dispatch, routes};
use link::Link;

/// The largest body of a call.
const BODY: usize = 300 * 1024;
/// The largest request line and headers.
const HEAD: usize = 64 * 1024;
/// How long a connection may stand idle.
const IDLE: Duration = Duration::from_mins(5);

/// A connection, whatever carries it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// A request line with its headers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// The verb: `GET`.
    pub(crate) method: String,
    /// The path without the query.
    pub(crate) path: String,
    /// The query's parts, decoded.
    pub(crate) query: Vec<(String, String)>,
    /// Headers by name in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Whether the client speaks HTTP/1.1, not 1.0.
    pub(crate) modern: bool,
}

impl Head {
    /// The first header with this name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// The first part of the query with this name.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    fn keeps_alive(&self) -> bool {
        let connection = self.header("connection").unwrap_or_default().to_lowercase();
        self.modern && !connection.contains("close")
    }

    /// Whether the body comes in chunks of HTTP.
    pub(crate) fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|it| it.to_lowercase().contains("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.header("content-length")?.trim().parse().ok()
    }
}

/// A request that a handler beside RPC answers; it owns the connection from here on.
pub(crate) struct Exchange {
    /// The pool.
    pub(crate) inner: Arc<Inner>,
    /// The host that was asked.
    pub(crate) host: usize,
    /// What was asked.
    pub(crate) head: Head,
    /// What was read of the body already.
    pub(crate) early: Vec<u8>,
    /// The connection.
    pub(crate) stream: Box<dyn Stream>,
}

/// Serves one connection until either side ends it, or the toolstack restarts.
pub(crate) async fn serve(inner: Arc<Inner>, host: usize, stream: impl Stream) {
    let mut epoch = inner.epoch.subscribe();
    tokio::select! {
        // A client that goes away is no event.
        _ = converse(&inner, host, Box::new(stream)) => {}
        _ = epoch.changed() => {}
    }
}

async fn converse(inner: &Arc<Inner>, host: usize, stream: Box<dyn Stream>) -> io::Result<()> {
    let mut link = Link::new(stream);
    loop {
        let Some(head) = read_head(&mut link).await? else { return Ok(()) };
        if let Some(handler) = routes::find(&head.method, &head.path) {
            let inner = inner.clone();
            let (stream, early) = link.into_parts().await?;
            return handler(Exchange { inner, host, head, early, stream }).await;
        }
        let keep = head.keeps_alive();
        let answer = match head.method.as_str() {
            "POST" | "DELETE" | "GET" | "PUT" if head.path.starts_with("/_sim") => {
                let Some(body) = read_body(&head, &mut link).await? else { return Ok(()) };
                let answer = control::answer(inner, &head, &body);
                link.beside(answer, false).await?
            }
            "POST" => {
                let Some(body) = read_body(&head, &mut link).await? else { return Ok(()) };
                rpc(inner, host, &head, &body, &mut link).await?
            }
            "OPTIONS" => Some(options()),
            "GET" | "HEAD" if head.path == "/" => {
                Some(Answer::html(404, "Not Found", "There is no page here."))
            }
            "GET" | "HEAD" | "PUT" | "CONNECT" => {
                Some(Answer::html(403, "Forbidden", "There is no handler."))
            }
            _ => Some(Answer::html(501, "Method Not Implemented", "The verb is not known.")),
        };
        // Those before it were answered, whatever becomes of this one.
        let Some(answer) = answer else { return link.flush().await };
        let cut = answer.cut;
        let keep = keep && answer.keep && head.method != "CONNECT";
        let write = |out: &mut Vec<u8>| {
            let start = out.len();
            answer.write(out, keep, head.modern);
            out.truncate(cut.map_or(out.len(), |cut| start.saturating_add(cut)));
        };
        link.send(write).await?;
        if let Some(large) = answer.large {
            large.send(&mut link).await?;
        }
        if !keep || cut.is_some() {
            return link.shut().await;
        }
    }
}

/// Reads up to the end of the headers; nothing when the client is done.
async fn read_head(link: &mut Link) -> io::Result<Option<Head>> {
    loop {
        if let Some((head, length)) = parse_head(&link.read)? {
            link.read.advance(length);
            return Ok(Some(head));
        }
        if link.read.len() > HEAD {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the headers are too long"));
        }
        match tokio::time::timeout(IDLE, link.more()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) | Err(_) => return Ok(None),
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// The headers at the start of `bytes` and how long they are, when they are all there.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 96];
    let mut request = httparse::Request::new(&mut headers);
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let httparse::Status::Complete(length) = request.parse(bytes).map_err(invalid)? else {
        return Ok(None);
    };
    let target = request.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts = query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode_percent(name), decode_percent(value))
    });
    let headers = request.headers.iter().map(|header| {
        let value = String::from_utf8_lossy(header.value).into_owned();
        (header.name.to_lowercase(), value)
    });
    let head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: decode_percent(path),
        query: parts.collect(),
        headers: headers.collect(),
        modern: request.version == Some(1),
    };
    Ok(Some((head, length)))
}

/// Reads a call's body; a request that cannot have one is answered here.
async fn read_body(head: &Head, link: &mut Link) -> io::Result<Option<BytesMut>> {
    let length = head.length();
    let refusal = match length {
        _ if head.is_chunked() => Some("a Content-Length is required: chunked bodies are not read"),
        None if head.method == "GET" || head.method == "DELETE" => {
            return Ok(Some(BytesMut::new()));
        }
        None => Some("a Content-Length is required"),
        Some(length) if length > BODY => Some("the body is longer than 300 KiB"),
        Some(_) => None,
    };
    if let Some(reason) = refusal {
        let answer = Answer::html(500, "Internal Error", reason);
        link.send(|out| answer.write(out, false, true)).await?;
        link.shut().await?;
        return Ok(None);
    }
    let length = length.unwrap_or_default();
    if head.header("expect").is_some_and(|it| it.eq_ignore_ascii_case("100-continue")) {
        link.send(|out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n")).await?;
    }
    while link.read.len() < length {
        if !link.more().await? {
            return Ok(None);
        }
    }
    Ok(Some(link.read.split_to(length)))
}

/// Answers a call; nothing when a fault cuts the connection, or the client does who waits for something.
async fn rpc(
    inner: &Arc<Inner>,
    host: usize,
    head: &Head,
    body: &[u8],
    link: &mut Link,
) -> io::Result<Option<Answer>> {
    let request = if head.path == "/jsonrpc" { json::decode(body) } else { xml::decode(body) };
    let request = match request {
        Ok(request) => request,
        Err(Malformed(reason)) => return Ok(Some(Answer::html(500, "Internal Error", &reason))),
    };
    let waits = dispatch::is_waiting(&request.method);
    let answer = link.beside(answer(inner, host, request), waits).await?;
    Ok(answer.flatten())
}

/// Answers a call; nothing when a fault cuts the connection.
async fn answer(inner: &Arc<Inner>, host: usize, request: Request) -> Option<Answer> {
    let Request { method, params, wire } = request;
    let faults = inner.faults.strike(method.strip_prefix("Async.").unwrap_or(&method));
    for fault in &faults {
        if let Some(delay) = fault.delay() {
            tokio::time::sleep(delay).await;
        }
    }
    if faults.contains(&Fault::DropBefore) {
        return None;
    }
    let outcome = match faults.iter().find_map(error_of) {
        Some(error) => Err(error),
        None => dispatch::answer(inner, host, &method, &params).await,
    };
    // What is told is kept, whoever changed it.
    let outcome = match inner.kept().await {
        Ok(()) => outcome,
        Err(error) => Err(error),
    };
    if is_slow(&method, &outcome) {
        tokio::time::sleep(inner.options.login_delay).await;
    }
    if faults.contains(&Fault::DropAfter) {
        return None;
    }
    if faults.contains(&Fault::Garbage) {
        let body = b"<<<\0{]]not an answer".to_vec();
        return Some(Answer::rpc(wire.content_type(), body));
    }
    if faults.is_empty() && outcome.as_ref().is_ok_and(Value::is_large) {
        let mut answer = Answer::rpc(wire.content_type(), Vec::new());
        answer.large = Some(Large::new(wire, outcome).await);
        return Some(answer);
    }
    let mut answer = Answer::rpc(wire.content_type(), wire.encode(&outcome));
    answer.cut = faults.iter().find_map(|fault| match fault {
        Fault::CutAfter(bytes) => Some(*bytes),
        Fault::DelayMs(_)
        | Fault::DropBefore
        | Fault::DropAfter
        | Fault::Garbage
        | Fault::Error(_) => None,
    });
    Some(answer)
}

fn error_of(fault: &Fault) -> Option<ApiError> {
    let Fault::Error(parts) = fault else { return None };
    let (code, params) = parts.split_first()?;
    Some(ApiError { code: code.clone(), params: params.to_vec() })
}

/// Whether this is the answer to a wrong password, which takes its time.
fn is_slow(method: &str, outcome: &Result<Value, ApiError>) -> bool {
    method.starts_with("session")
        && matches!(outcome, Err(error) if error.code == "SESSION_AUTHENTICATION_FAILED")
}

fn options() -> Answer {
    let mut answer = Answer::rpc("text/plain", Vec::new());
    answer.headers.push(("Access-Control-Allow-Headers", "X-Requested-With, Content-Type".into()));
    answer.headers.push(("Access-Control-Allow-Methods", "POST, GET, OPTIONS".into()));
    answer
}

/// An answer with a body of known length.
pub(crate) struct Answer {
    status: u16,
    reason: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    keep: bool,
    cut: Option<usize>,
    large: Option<Large>,
}

/// An answer that is written while it is sent, so that many of them do not fill the memory.
struct Large {
    wire: Wire,
    outcome: Arc<Result<Value, ApiError>>,
    length: usize,
}

impl Large {
    /// Measures the answer: its length is told first.
    async fn new(wire: Wire, outcome: Result<Value, ApiError>) -> Self {
        let outcome = Arc::new(outcome);
        let (measured, how) = (outcome.clone(), wire.clone());
        let counted = tokio::task::spawn_blocking(move || {
            let mut counter = Counter::default();
            how.write(&mut counter, &measured);
            counter.0
        });
        Self { length: counted.await.unwrap_or_default(), wire, outcome }
    }

    async fn send(self, link: &mut Link) -> io::Result<()> {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
        let writer = tokio::task::spawn_blocking(move || {
            let mut pieces = Pieces::new(sender);
            self.wire.write(&mut pieces, &self.outcome);
            pieces.finish();
        });
        while let Some(piece) = receiver.recv().await {
            link.pass(&piece).await?;
        }
        writer.await.map_err(io::Error::other)
    }
}

impl Answer {
    fn rpc(content_type: &str, body: Vec<u8>) -> Self {
        let headers = vec![
            ("content-type", content_type.into()),
            ("Access-Control-Allow-Origin", "*".into()),
            ("Cache-Control", "no-cache, no-store".into()),
        ];
        Self { status: 200, reason: "OK", headers, body, keep: true, cut: None, large: None }
    }

    /// A page that says what went wrong.
    pub(crate) fn html(status: u16, reason: &'static str, text: &str) -> Self {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let body = format!(
            "<html><body><h1>HTTP {status} {reason}</h1>Your request could not be answered.\
             <h1>Additional information</h1>{text}</body></html>"
        );
        let headers = vec![("content-type", "text/html".into())];
        Self {
            status,
            reason,
            headers,
            body: body.into_bytes(),
            keep: status < 500,
            cut: None,
            large: None,
        }
    }

    /// A body of this type.
    pub(crate) fn of(content_type: &str, body: Vec<u8>) -> Self {
        let headers = vec![("content-type", content_type.into())];
        Self { status: 200, reason: "OK", headers, body, keep: true, cut: None, large: None }
    }

    /// A JSON value.
    pub(crate) fn json(status: u16, reason: &'static str, value: &serde_json::Value) -> Self {
        let headers = vec![("content-type", "application/json".into())];
        let body = format!("{value}\n").into_bytes();
        Self { status, reason, headers, body, keep: true, cut: None, large: None }
    }

    /// With this header too.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The answer as it is sent.
    pub(crate) fn bytes(&self, keep: bool, modern: bool) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256 + self.body.len());
        self.write(&mut bytes, keep, modern);
        bytes
    }

    fn write(&self, out: &mut Vec<u8>, keep: bool, modern: bool) {
        let version = if modern { "1.1" } else { "1.0" };
        let status = itoa::Buffer::new().format(self.status).to_owned();
        let mut add = |parts: &[&str]| {
            for part in parts {
                out.extend_from_slice(part.as_bytes());
            }
        };
        add(&["HTTP/", version, " ", &status, " ", self.reason, "\r\n"]);
        for (name, value) in &self.headers {
            add(&[name, ": ", value, "\r\n"]);
        }
        let connection = if keep { "keep-alive" } else { "close" };
        let length = self.large.as_ref().map_or(self.body.len(), |large| large.length);
        let mut digits = itoa::Buffer::new();
        add(&[
            "Connection: ",
            connection,
            "\r\ncontent-length: ",
            digits.format(length),
            "\r\n\r\n",
        ]);
        out.extend_from_slice(&self.body);
    }
}

/// Decodes `%41` and `+`.
fn decode_percent(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let rest = bytes.clone().take(2).map(char::from).collect::<String>();
                match Some(rest)
                    .filter(|it| it.len() == 2)
                    .and_then(|it| u8::from_str_radix(&it, 16).ok())
                {
                    Some(decoded) => {
                        out.push(decoded);
                        bytes.nth(1);
                    }
                    None => out.push(b'%'),
                }
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Who a request says it is from, for handlers beside RPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A session's reference as text.
    Session(String),
    /// A user's name and password.
    Basic(String, String),
    /// Nobody.
    None,
}

impl Credentials {
    /// Reads a session from a cookie or the query, or a name and password.
    pub(crate) fn of(head: &Head) -> Self {
        let mut cookies = head.header("cookie").unwrap_or_default().split(';');
        let cookie = cookies.find_map(|it| it.trim().strip_prefix("session_id="));
        if let Some(session) = cookie.or_else(|| head.query("session_id")) {
            return Self::Session(decode_percent(session));
        }
        let basic = head.header("authorization").and_then(|it| it.strip_prefix("Basic "));
        let pair = basic.and_then(|text| String::from_utf8(decode_base64(text.trim())?).ok());
        match pair.as_deref().and_then(|pair| pair.split_once(':')) {
            Some((name, password)) => Self::Basic(name.into(), password.into()),
            None => Self::None,
        }
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = LETTERS.iter().position(|letter| *letter == byte)?;
        bits = bits << 6 | u32::try_from(digit).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_with_its_query_and_headers() {
        let bytes = b"PUT /import_raw_vdi?vdi=a%20b&x HTTP/1.1\r\nHost: h\r\nCookie: a=b; session_id=OpaqueRef:1\r\n\r\nrest";
        let (head, length) = parse_head(bytes).unwrap().unwrap();
        assert_eq!(&bytes[length..], b"rest");
        assert_eq!((head.method.as_str(), head.path.as_str()), ("PUT", "/import_raw_vdi"));
        assert_eq!(head.query("vdi"), Some("a b"));
        assert!(head.keeps_alive());
        assert_eq!(Credentials::of(&head), Credentials::Session("OpaqueRef:1".into()));
        assert!(parse_head(&bytes[..40]).unwrap().is_none());
    }

    #[test]
    fn basic_credentials_are_decoded() {
        let headers = vec![("authorization".into(), "Basic cm9vdDpzM2NyZXQ6eA==".into())];
        let head = Head { headers, ..Head::default() };
        assert_eq!(Credentials::of(&head), Credentials::Basic("root".into(), "s3cret:x".into()));
    }

    #[test]
    fn percent_signs_that_decode_to_nothing_stay() {
        assert_eq!(decode_percent("%41+%zz%4"), "A %zz%4");
    }
}
