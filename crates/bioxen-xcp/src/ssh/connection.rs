//! One connection to a guest, shared by all that is done there.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use russh::client::{self, DisconnectReason, Msg};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{AlgorithmKind, Channel, Disconnect, MethodSet, cipher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::debug;

use super::stall::{Ending, Guarded, Hold};
use super::{HostKeyCheck, KeyFingerprint, Login, Patience, PublicKey, SshError, Target};

/// Bytes that a guest may send on one channel ahead of what was read.
const WINDOW: u32 = 2 << 20;

/// The largest packet that we take; OpenSSH sends no larger ones than this.
const LARGEST_PACKET: u32 = 32 << 10;

/// Packets that wait on one channel for somebody to read them. When they are this many, all channels
/// of the connection wait.
const UNREAD_PACKETS: usize = 256;

/// A connection to a guest. Clones are the same connection, which ends when the last one is dropped
/// and nothing runs over it any more.
///
/// Programs and file transfers each have a channel of their own. A channel that nobody reads holds up
/// the others once a few megabytes have piled up, so read or drop each.
#[derive(Clone)]
pub struct Connection {
    inner: Arc<Inner>,
}

struct Inner {
    handle: client::Handle<Watcher>,
    _hold: Hold,
    address: String,
    host_key: PublicKey,
    patience: Patience,
    ending: Ending,
    ended: watch::Receiver<()>,
    /// What cleans up after programs whose owners are gone.
    tasks: Mutex<JoinSet<()>>,
    /// Where it was opened: its owners may be dropped elsewhere, and after it has ended.
    runtime: Handle,
    /// The connection that this one goes through.
    _through: Option<Connection>,
}

impl Connection {
    /// Connects, checks the host's key, and logs in.
    pub async fn open(target: &Target) -> Result<Self, SshError> {
        let address = target.address();
        let connecting = TcpStream::connect((target.host.as_str(), target.port));
        let stream = within(target.patience.connect, &address, "its port to open", connecting)
            .await?
            .map_err(|source| SshError::Connect { address: address.clone(), source })?;
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%address, %error, "small messages will be slow");
        }
        Self::over(stream, target, None).await
    }

    /// Connects by way of another host, which sees only what a wire would see.
    pub async fn open_through(jump: &Self, target: &Target) -> Result<Self, SshError> {
        let what = format!("the way to `{}` to open", target.address());
        let opening = jump.inner.handle.channel_open_direct_tcpip(
            target.host.as_str(),
            u32::from(target.port),
            "127.0.0.1",
            0,
        );
        let channel = within(target.patience.connect, jump.address(), &what, opening)
            .await?
            .map_err(|error| match error {
                // It may be starting, as a host that refuses connections may be.
                russh::Error::ChannelOpenFailure(
                    reason @ russh::ChannelOpenFailure::ConnectFailed,
                ) => SshError::NoWay {
                    jump: jump.address().to_owned(),
                    address: target.address(),
                    reason: format!("{reason:?}"),
                },
                other => jump.failure(other, &format!("a way to `{}`", target.address())),
            })?;
        Self::over(channel.into_stream(), target, Some(jump.clone())).await
    }

    async fn over<S>(stream: S, target: &Target, through: Option<Self>) -> Result<Self, SshError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (address, patience) = (target.address(), target.patience);
        let ending = Ending::default();
        let seen = Arc::new(OnceLock::new());
        let (running, ended) = watch::channel(());
        let watcher = Watcher {
            address: address.clone(),
            check: target.host_key.clone(),
            seen: Arc::clone(&seen),
            ending: ending.clone(),
            _running: running,
        };
        // From here on the stream dies with `hold`, and with it the library's task.
        let (stream, hold) = Guarded::new(stream, patience.silence(), ending.clone());
        let greeting = client::connect_stream(Arc::new(config(target)), stream, watcher);
        let mut handle = within(patience.handshake, &address, "its greeting and keys", greeting)
            .await?
            .map_err(|halt| halt.explain(&address))?;
        let logging_in = log_in(&mut handle, target);
        within(patience.handshake, &address, "the login", logging_in).await??;
        let Some(host_key) = seen.get().cloned() else {
            let source = "it showed no host key".into();
            return Err(SshError::Handshake { address, source });
        };
        debug!(%address, user = target.user, key = %host_key.fingerprint(), "connected");
        let tasks = Mutex::default();
        let inner = Inner {
            handle,
            _hold: hold,
            address,
            host_key,
            patience,
            ending,
            ended,
            tasks,
            runtime: Handle::current(),
            _through: through,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// The key that the host showed and proved to have.
    pub fn host_key(&self) -> &PublicKey {
        &self.inner.host_key
    }

    /// How long this connection waits for what.
    pub fn patience(&self) -> &Patience {
        &self.inner.patience
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.inner.handle.is_closed()
    }

    /// Waits until the connection has ended, and says why.
    pub async fn ended(&self) -> String {
        let mut ended = self.inner.ended.clone();
        // Nothing is ever sent; the other side is dropped when the connection ends.
        while ended.changed().await.is_ok() {}
        self.ending()
    }

    /// Says goodbye, once what cleans up after programs is done. A repeat does nothing.
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.lock_tasks());
        let address = self.address().to_owned();
        let patience = self.inner.patience.answer;
        let cleaning = async { while tasks.join_next().await.is_some() {} };
        if within(patience, &address, "programs to end", cleaning).await.is_err() {
            debug!(%address, "some programs may still run");
        }
        if self.is_closed() {
            return;
        }
        self.inner.ending.set("we closed it");
        let goodbye = async {
            let said = self.inner.handle.disconnect(Disconnect::ByApplication, "", "").await;
            if said.is_ok() {
                self.ended().await;
            }
        };
        if within(patience, &address, "the goodbye", goodbye).await.is_err() {
            debug!(%address, "it did not take the goodbye");
        }
    }

    /// Why the connection ended, as far as it is known.
    fn ending(&self) -> String {
        self.inner.ending.get().unwrap_or("it closed the connection").to_owned()
    }

    /// Opens a channel for a program or for files.
    pub(super) async fn channel(&self) -> Result<Channel<Msg>, SshError> {
        let opening = self.inner.handle.channel_open_session();
        self.wait("a channel to open", opening)
            .await?
            .map_err(|error| self.failure(error, "another channel"))
    }

    /// Waits for one answer of the guest, or for the end of the connection.
    pub(super) fn wait<'a, T: Send>(
        &'a self,
        what: &'a str,
        answer: impl Future<Output = T> + Send + 'a,
    ) -> impl Future<Output = Result<T, SshError>> + Send + 'a {
        // In a box, or the waits within waits would make futures of many kilobytes.
        let mut answer = Box::pin(answer);
        async move {
            let answer_or_end = async {
                tokio::select! {
                    biased;
                    answer = &mut answer => Ok(answer),
                    _ = self.ended() => Err(self.lost()),
                }
            };
            within(self.inner.patience.answer, self.address(), what, answer_or_end).await?
        }
    }

    /// What a failure of the library means.
    pub(super) fn failure(&self, error: russh::Error, what: &str) -> SshError {
        let address = self.address().to_owned();
        match error {
            russh::Error::ChannelOpenFailure(reason) => {
                let reason = format!("{reason:?}");
                SshError::Refused { address, what: what.to_owned(), reason }
            }
            russh::Error::Disconnect | russh::Error::SendError | russh::Error::RecvError => {
                self.lost()
            }
            other => SshError::Lost { address, reason: other.to_string() },
        }
    }

    pub(super) fn lost(&self) -> SshError {
        SshError::Lost { address: self.address().to_owned(), reason: self.ending() }
    }

    /// Has something done that must be done although nobody waits for it any more; the connection
    /// lives as long as it takes.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.lock_tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.inner.runtime);
    }

    fn lock_tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, is_closed) = (self.address(), self.is_closed());
        write!(f, "Connection({address}{})", if is_closed { ", closed" } else { "" })
    }
}

/// Waits with a deadline that says what was waited for.
pub(super) async fn within<T>(
    patience: Duration,
    address: &str,
    waiting_for: &str,
    answer: impl Future<Output = T>,
) -> Result<T, SshError> {
    tokio::time::timeout(patience, answer).await.map_err(|_| SshError::Timeout {
        address: address.to_owned(),
        waiting_for: waiting_for.to_owned(),
        after: patience,
    })
}

fn config(target: &Target) -> client::Config {
    let mut config = client::Config {
        window_size: WINDOW,
        maximum_packet_size: LARGEST_PACKET,
        channel_buffer_size: UNREAD_PACKETS,
        keepalive_interval: Some(target.patience.keepalive),
        keepalive_max: usize::from(target.patience.unanswered),
        nodelay: true,
        ..client::Config::default()
    };
    // Processors have instructions for this one, so it copies files the fastest.
    let mut ciphers = vec![cipher::AES_256_GCM];
    ciphers.extend(config.preferred.cipher.iter().filter(|&&name| name != cipher::AES_256_GCM));
    config.preferred.cipher = Cow::Owned(ciphers);
    if let HostKeyCheck::Pinned(key) = &target.host_key {
        // A host has several keys; have it show the one that we know.
        config.preferred.key = Cow::Owned(vec![key.algorithm()]);
    }
    config
}

/// Judges the host's key and hears how the connection ends.
struct Watcher {
    address: String,
    check: HostKeyCheck,
    seen: Arc<OnceLock<PublicKey>>,
    ending: Ending,
    /// Dropped with the library's task.
    _running: watch::Sender<()>,
}

/// Why the library's task stops.
#[derive(Debug)]
enum Halt {
    WrongKey { expected: KeyFingerprint, found: KeyFingerprint },
    Library(russh::Error),
}

impl From<russh::Error> for Halt {
    fn from(error: russh::Error) -> Self {
        Self::Library(error)
    }
}

impl Halt {
    fn explain(self, address: &str) -> SshError {
        let address = address.to_owned();
        match self {
            Self::WrongKey { expected, found } => {
                SshError::WrongHostKey { address, expected, found }
            }
            Self::Library(russh::Error::NoCommonAlgo { kind, ours, .. }) => {
                let what = match kind {
                    AlgorithmKind::Kex => "key exchange".to_owned(),
                    AlgorithmKind::Key => format!("host key of the kind {}", ours.join(", ")),
                    AlgorithmKind::Cipher => "cipher".to_owned(),
                    AlgorithmKind::Compression => "compression".to_owned(),
                    AlgorithmKind::Mac => "message authentication".to_owned(),
                };
                SshError::NothingInCommon { address, what }
            }
            Self::Library(source) => SshError::Handshake { address, source: Box::new(source) },
        }
    }
}

impl client::Handler for Watcher {
    type Error = Halt;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Halt> {
        // No certificate was asked for, so a server that sends one breaks the protocol.
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else { return Ok(false) };
        let found = PublicKey::from_wire(key.clone());
        if let HostKeyCheck::Pinned(expected) = &self.check
            && *expected != found
        {
            let (expected, found) = (expected.fingerprint(), found.fingerprint());
            return Err(Halt::WrongKey { expected, found });
        }
        // Later exchanges on the same connection must show the same key.
        Ok(*self.seen.get_or_init(|| found.clone()) == found)
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Halt>) -> Result<(), Halt> {
        let reason = match reason {
            DisconnectReason::ReceivedDisconnect(info) => format!("it said: {}", info.message),
            DisconnectReason::Error(Halt::Library(russh::Error::KeepaliveTimeout)) => {
                "it has fallen silent".into()
            }
            DisconnectReason::Error(Halt::Library(russh::Error::IO(error)))
                if error.kind() != io::ErrorKind::UnexpectedEof =>
            {
                error.to_string()
            }
            DisconnectReason::Error(Halt::Library(
                russh::Error::IO(_) | russh::Error::Disconnect | russh::Error::HUP,
            )) => "it closed the connection".into(),
            DisconnectReason::Error(Halt::Library(error)) => error.to_string(),
            DisconnectReason::Error(Halt::WrongKey { found, .. }) => {
                format!("its key changed to {found}")
            }
        };
        debug!(address = self.address, reason, "connection ended");
        self.ending.set(reason);
        Ok(())
    }
}

async fn log_in(handle: &mut client::Handle<Watcher>, target: &Target) -> Result<(), SshError> {
    let address = target.address();
    let failed = |error: russh::Error| Halt::Library(error).explain(&address);
    let (how, outcome) = match &target.login {
        Login::Key(key) => {
            let how = format!("the key {}", key.public().fingerprint());
            let key = PrivateKeyWithHashAlg::new(key.private(), None);
            (how, handle.authenticate_publickey(&target.user, key).await.map_err(failed)?)
        }
        Login::Password(password) => {
            let given = password.expose();
            let outcome = handle.authenticate_password(&target.user, given).await;
            ("a password".to_owned(), outcome.map_err(failed)?)
        }
        Login::Agent(socket) => return log_in_by_agent(handle, target, socket.as_deref()).await,
    };
    match outcome {
        client::AuthResult::Success => Ok(()),
        client::AuthResult::Failure { remaining_methods, .. } => {
            Err(refused(target, how, &remaining_methods))
        }
    }
}

async fn log_in_by_agent(
    handle: &mut client::Handle<Watcher>,
    target: &Target,
    socket: Option<&std::path::Path>,
) -> Result<(), SshError> {
    let broken = |reason: String| SshError::Agent { reason };
    let socket = match socket {
        Some(path) => path.to_owned(),
        None => std::env::var_os("SSH_AUTH_SOCK")
            .ok_or_else(|| broken("SSH_AUTH_SOCK is not set".into()))?
            .into(),
    };
    let stream = UnixStream::connect(&socket)
        .await
        .map_err(|error| broken(format!("`{}`: {error}", socket.display())))?;
    let mut agent = AgentClient::connect(stream);
    let identities = agent.request_identities().await.map_err(|e| broken(e.to_string()))?;
    let mut tried = 0_u32;
    let mut offers = MethodSet::empty();
    for identity in identities {
        let AgentIdentity::PublicKey { key, .. } = identity else { continue };
        // Without this an RSA key would sign with SHA-1, which servers refuse.
        let hash = key.algorithm().is_rsa().then_some(HashAlg::Sha512);
        tried += 1;
        let outcome = handle
            .authenticate_publickey_with(&target.user, key, hash, &mut agent)
            .await
            .map_err(|error| broken(error.to_string()))?;
        match outcome {
            client::AuthResult::Success => return Ok(()),
            client::AuthResult::Failure { remaining_methods, .. } => offers = remaining_methods,
        }
        if handle.is_closed() {
            break;
        }
    }
    if tried == 0 {
        return Err(broken("it holds no key".into()));
    }
    Err(refused(target, format!("any of {tried} keys of the agent"), &offers))
}

fn refused(target: &Target, how: String, offers: &MethodSet) -> SshError {
    let offers: Vec<String> = offers.iter().map(String::from).collect();
    let offers = if offers.is_empty() { "nothing else".into() } else { offers.join(", ") };
    SshError::LoginRefused { address: target.address(), user: target.user.clone(), how, offers }
}
