//! Guests that call when they have set themselves up: the connection tells where they are.
//!
//! A guest is told an address with a token in it that nobody else knows, and posts to it. Who does that is
//! taken for that guest as far as its address goes, and no further: what answers at the address has to show
//! the host key that the guest was given. What is posted counts for nothing.
//!
//! ```text
//! expect ─▶ the address to call goes into the seed ─▶ heard: the other end of that connection
//! ```
//!
//! The listener is there while a call is expected.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bioxen_core::CallHomeAddress;
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};

/// What comes before the token in the path.
const PATH: &str = "/call-home/";

/// Bytes of a token.
const TOKEN: usize = 32;

/// The longest call, in bytes.
const LONGEST: usize = 16 << 10;

/// The most headers of a call.
const MOST_HEADERS: usize = 32;

/// Callers that are listened to at once.
const AT_ONCE: usize = 64;

/// How long a caller may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait after a connection that could not be taken: there may be too many.
const PAUSE: Duration = Duration::from_millis(100);

/// A place where calls are heard.
pub(crate) struct Listener {
    /// Where guests reach it.
    reached: SocketAddr,
    waiting: Arc<Waiting>,
    task: JoinHandle<()>,
}

/// Who waits for which call.
#[derive(Default)]
struct Waiting(Mutex<Vec<(Token, oneshot::Sender<IpAddr>)>>);

/// What only one guest knows, as text that can stand in an address.
#[derive(Clone)]
struct Token(String);

/// A call that is expected, until this is dropped.
pub(crate) struct Expected {
    token: Token,
    heard: oneshot::Receiver<IpAddr>,
    listener: Arc<Listener>,
}

impl Listener {
    /// Listens at an address of this machine. Where that is no certain one, guests are told the one by which
    /// this machine speaks to `towards`, a host and port.
    pub(crate) async fn open(at: CallHomeAddress, towards: (&str, u16)) -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind(at.socket()).await?;
        let mut reached = listener.local_addr()?;
        if reached.ip().is_unspecified() {
            reached.set_ip(own_address(reached.ip(), towards).await?);
        }
        let waiting = Arc::<Waiting>::default();
        let task = tokio::spawn(listen(listener, Arc::clone(&waiting)));
        Ok(Arc::new(Self { reached, waiting, task }))
    }

    /// Expects a call of somebody who is told of it.
    pub(crate) fn expect(self: &Arc<Self>) -> Expected {
        let (tell, heard) = oneshot::channel();
        let token = Token::new();
        self.waiting.lock().push((token.clone(), tell));
        Expected { token, heard, listener: Arc::clone(self) }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The address by which this machine speaks to another; nothing is sent.
async fn own_address(any: IpAddr, towards: (&str, u16)) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(towards).await?;
    Ok(socket.local_addr()?.ip())
}

impl Expected {
    /// What the guest is to post to. It is a secret.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{PATH}{}", self.listener.reached, self.token.0)
    }

    /// Waits for the call, and answers where it came from.
    pub(crate) async fn heard(&mut self) -> IpAddr {
        match (&mut self.heard).await {
            Ok(address) => address,
            // Whoever is to tell it is dropped after this at the earliest.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.listener.waiting.lock().retain(|(token, _)| !token.is(self.token.0.as_bytes()));
    }
}

impl Token {
    fn new() -> Self {
        let mut bytes = [0; TOKEN];
        getrandom::fill(&mut bytes).expect("the system has random bytes");
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Whether this is it; how long that takes does not tell how much of it is right.
    fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Vec<(Token, oneshot::Sender<IpAddr>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever waits for this token where the call came from; whether somebody does.
    fn tell(&self, given: &[u8], from: IpAddr) -> bool {
        let mut waiting = self.lock();
        let Some(at) = waiting.iter().position(|(token, _)| token.is(given)) else { return false };
        let (_, tell) = waiting.swap_remove(at);
        // Nobody waits any more, and it is all the same to the guest.
        let _ = tell.send(from);
        true
    }
}

async fn listen(listener: TcpListener, waiting: Arc<Waiting>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut callers = JoinSet::new();
    loop {
        let place = Arc::clone(&room).acquire_owned().await;
        while callers.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let waiting = Arc::clone(&waiting);
                callers.spawn(async move {
                    let _place = place;
                    let from = from.ip().to_canonical();
                    let answered = tokio::time::timeout(PATIENCE, answer(stream, from, &waiting));
                    match answered.await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%from, %error, "a call broke off"),
                        Err(_) => tracing::debug!(%from, "a caller took too long"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a caller was not heard");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Listens to one caller, and answers it.
async fn answer(mut stream: TcpStream, from: IpAddr, waiting: &Waiting) -> io::Result<()> {
    let mut said = Vec::new();
    let answer = loop {
        match read_call(&said) {
            Call::More if said.len() < LONGEST => {
                let room = u64::try_from(LONGEST - said.len()).unwrap_or(u64::MAX);
                if (&mut stream).take(room).read_buf(&mut said).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Call::Token(token) if waiting.tell(token, from) => break "200 OK",
            Call::Token(_) | Call::Other => break "404 Not Found",
            Call::More | Call::Nonsense => break "400 Bad Request",
        }
    };
    tracing::debug!(%from, answer, "a guest called");
    let head = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.shutdown().await
}

/// What a caller has said so far.
#[derive(Debug, PartialEq, Eq)]
enum Call<'a> {
    /// There is more to come.
    More,
    /// All of a call with this token.
    Token(&'a [u8]),
    /// All of a request for something else.
    Other,
    /// No request, or too large a one.
    Nonsense,
}

/// Reads what a caller has said so far.
fn read_call(said: &[u8]) -> Call<'_> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(said) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Call::More,
        Err(_) => return Call::Nonsense,
    };
    let mut length = 0_usize;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Call::Nonsense;
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(header.value).ok();
            match value.and_then(|value| value.trim().parse().ok()) {
                Some(said) => length = said,
                None => return Call::Nonsense,
            }
        }
    }
    if length > LONGEST - head.min(LONGEST) {
        return Call::Nonsense;
    }
    if said.len() - head < length {
        return Call::More;
    }
    match (request.method, request.path.and_then(|path| path.strip_prefix(PATH))) {
        (Some("POST"), Some(token)) => Call::Token(token.as_bytes()),
        _ => Call::Other,
    }
}

/// What is made of what a caller has said so far, as text; nothing while more is to come.
#[cfg(feature = "fuzzing")]
pub(crate) fn read(said: &[u8]) -> Option<String> {
    let call = read_call(said);
    (call != Call::More).then(|| format!("{call:?}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENT: Duration = Duration::from_secs(30);

    async fn listener() -> Arc<Listener> {
        let at = "127.0.0.1".parse().unwrap();
        Listener::open(at, ("127.0.0.1", 80)).await.unwrap()
    }

    async fn say(to: SocketAddr, what: &str) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(what.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let reading = stream.read_to_string(&mut answer);
        tokio::time::timeout(PATIENT, reading).await.unwrap().unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    fn post(url: &str, to: SocketAddr) -> String {
        let path = url.strip_prefix(&format!("http://{to}")).unwrap();
        let body = "instance_id=1&hostname=gc";
        format!(
            "POST {path} HTTP/1.1\r\nHost: {to}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    #[tokio::test]
    async fn a_call_with_the_token_tells_where_it_came_from_and_counts_once() {
        let listener = listener().await;
        let to = listener.reached;
        let (mut expected, mut other) = (listener.expect(), listener.expect());
        let call = post(&expected.url(), to);
        assert_eq!(say(to, &call).await, "HTTP/1.1 200 OK");
        assert_eq!(expected.heard().await, to.ip());
        assert_eq!(say(to, &call).await, "HTTP/1.1 404 Not Found");
        let unheard = tokio::time::timeout(Duration::from_millis(50), other.heard()).await;
        assert!(unheard.is_err(), "it is not the other's");
        let call = post(&other.url(), to);
        drop(other);
        assert_eq!(say(to, &call).await, "HTTP/1.1 404 Not Found", "nobody waits any more");
    }

    #[tokio::test]
    async fn what_is_no_call_is_answered_and_tells_nothing() {
        let listener = listener().await;
        let to = listener.reached;
        let mut expected = listener.expect();
        let good = post(&expected.url(), to);
        let long = format!("POST / HTTP/1.1\r\nX: {}", "x".repeat(LONGEST));
        for (said, answer) in [
            (good.replace("POST", "GET"), "HTTP/1.1 404 Not Found"),
            (good.replacen(&expected.token.0, &Token::new().0, 1), "HTTP/1.1 404 Not Found"),
            (good.replacen(&expected.token.0, &expected.token.0[1..], 1), "HTTP/1.1 404 Not Found"),
            (good.replace("Length: 25", "Length: 99999999999"), "HTTP/1.1 400 Bad Request"),
            ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400 Bad Request"),
            (long, "HTTP/1.1 400 Bad Request"),
        ] {
            assert_eq!(say(to, &said).await, answer, "{said:.80}");
        }
        let unheard = tokio::time::timeout(Duration::from_millis(50), expected.heard()).await;
        assert!(unheard.is_err());
    }

    #[tokio::test]
    async fn nobody_listens_once_nothing_is_expected() {
        let listener = listener().await;
        let to = listener.reached;
        let expected = listener.expect();
        drop(listener);
        TcpStream::connect(to).await.expect("a call is expected");
        drop(expected);
        let closing = async {
            while TcpStream::connect(to).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENT, closing).await.expect("it is closed");
    }

    #[tokio::test]
    async fn where_it_listens_everywhere_guests_are_told_one_address() {
        let everywhere = "0.0.0.0:0".parse().unwrap();
        let listener = Listener::open(everywhere, ("127.0.0.1", 80)).await.unwrap();
        assert_eq!(listener.reached.ip(), IpAddr::from([127, 0, 0, 1]));
        assert_ne!(listener.reached.port(), 0);
    }

    #[test]
    fn a_call_is_whole_when_its_body_is_there() {
        let head = b"POST /call-home/abc HTTP/1.1\r\nContent-Length: 4\r\n\r\n";
        for cut in 0..head.len() {
            assert_eq!(read_call(&head[..cut]), Call::More, "{cut}");
        }
        assert_eq!(read_call(&[head, &b"a=b"[..]].concat()), Call::More);
        assert_eq!(read_call(&[head, &b"a=bc"[..]].concat()), Call::Token(b"abc"));
        let chunked = b"POST /call-home/abc HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(read_call(chunked), Call::Nonsense);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read_call(&bytes);
            let mut call = b"POST /call-home/a HTTP/1.1\r\nContent-Length: ".to_vec();
            call.extend(bytes);
            let _ = read_call(&call);
        }
    }
}
