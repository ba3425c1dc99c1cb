//! The SSH server of a guest: who may log in, and what they get.
//!
//! The guest's own files decide: `/etc/passwd`, `/etc/shadow`, each user's `authorized_keys`, the host
//! keys and whether passwords are taken. They are read anew at each login, as a real server does.

mod session;
mod sftp;
mod terminal;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKeyBase64};
use russh::server::{
    Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, MethodKind, MethodSet, Pty, SshId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::accounts::{Account, AuthorizedKey};
use super::boot;
use super::booted::Guest;
use super::fault::GuestFault;
use super::host_keys;
use super::sandbox::blocking;
use session::{Request, TerminalSize, Work};

/// The pieces in which a connection's bytes pass the gate.
const PIECE: usize = 64 << 10;
/// What a connection may have in the gate at once.
const WAITING: usize = 256 << 10;
/// The variables that clients may set, as distributions configure it.
const ACCEPTED: [&str; 3] = ["LANG", "COLORTERM", "NO_COLOR"];
/// The sessions that one connection may have open.
const MOST_CHANNELS: usize = 256;

/// Whether what is sent to a guest arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// It does.
    Open,
    /// It waits: the guest stands still, or was told to stall.
    Stalled,
}

/// How the server presents itself to a client: by what the guest's files say now.
async fn configure(guest: &Guest) -> Arc<Config> {
    let files = guest.files.clone();
    let loaded = blocking(move || {
        let keys = host_keys::load(&files);
        Ok((keys, boot::takes_passwords(&files)))
    });
    let (mut keys, passwords) = loaded.await.unwrap_or_default();
    if guest.has(GuestFault::WrongHostKey) {
        keys = host_keys::random().into_iter().collect::<Vec<PrivateKey>>();
    }
    let mut methods = MethodSet::empty();
    methods.push(MethodKind::PublicKey);
    if passwords {
        methods.push(MethodKind::Password);
    }
    Arc::new(Config {
        server_id: SshId::Standard("SSH-2.0-OpenSSH_9.2p1 xenapi-sim".into()),
        methods,
        keys,
        auth_rejection_time: Duration::from_millis(100),
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: 6,
        inactivity_timeout: None,
        nodelay: true,
        ..Config::default()
    })
}

/// Accepts connections until the guest ends.
pub(super) async fn serve(listener: TcpListener, guest: Arc<Guest>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                guest.tasks.spawn(connection(stream, peer, Arc::clone(&guest)));
            }
            Err(error) => {
                tracing::debug!(vm = %guest.machine.vm, %error, "a connection was not accepted");
                // Most often too many open files: room comes when others close.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, guest: Arc<Guest>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(local) = stream.local_addr() else { return };
    let config = configure(&guest).await;
    let (inner, outer) = tokio::io::duplex(WAITING);
    let (from_client, to_client) = stream.into_split();
    let (from_server, to_server) = tokio::io::split(outer);
    let inward = pump(from_client, to_server, guest.gate.subscribe());
    let outward = pump(from_server, to_client, guest.gate.subscribe());
    let vm = guest.machine.vm;
    let handler = Connection { guest, peer, local, login: None, channels: HashMap::new() };
    let served = async {
        match russh::server::run_stream(config, inner, handler).await {
            Ok(session) => session.await,
            Err(error) => Err(error),
        }
    };
    // When this is dropped, so are both ends of what the session reads and writes, and it ends.
    let ((), (), served) = tokio::join!(inward, outward, served);
    if let Err(error) = served {
        tracing::debug!(%vm, %peer, %error, "an SSH connection ended");
    }
}

/// Carries bytes while the gate is open, until either side ends.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: watch::Receiver<Gate>,
) {
    let mut buffer = vec![0; PIECE];
    loop {
        if gate.wait_for(|gate| *gate == Gate::Open).await.is_err() {
            return;
        }
        let read = tokio::select! {
            biased;
            changed = gate.wait_for(|gate| *gate == Gate::Stalled) => match changed {
                Ok(_) => continue,
                Err(_) => return,
            },
            read = from.read(&mut buffer) => read,
        };
        match read {
            Ok(count) if count > 0 && to.write_all(&buffer[..count]).await.is_ok() => {}
            Ok(_) | Err(_) => {
                // The other side learns of the end; if it has ended too, so much the better.
                let _ = to.shutdown().await;
                return;
            }
        }
    }
}

/// One client's connection.
struct Connection {
    guest: Arc<Guest>,
    peer: SocketAddr,
    local: SocketAddr,
    login: Option<Login>,
    channels: HashMap<ChannelId, Waiting>,
}

/// Who has logged in.
#[derive(Clone)]
struct Login {
    account: Account,
    /// What this login's key runs, whatever the client asks for.
    forced: Option<String>,
}

/// A session that is open and runs nothing yet.
struct Waiting {
    channel: Channel<Msg>,
    environment: Vec<(String, String)>,
    terminal: Option<TerminalSize>,
}

impl Connection {
    async fn account(&self, user: &str) -> Option<Account> {
        let (files, user) = (self.guest.files.clone(), user.to_owned());
        blocking(move || Ok(Account::find(&files, &user))).await.ok().flatten()
    }

    async fn authorized(&self, user: &str, key: &str) -> Option<Login> {
        let account = self.account(user).await?;
        let (files, key) = (self.guest.files.clone(), key.to_owned());
        let of = account.clone();
        let keys = blocking(move || Ok(of.authorized_keys(&files))).await.ok()?;
        let AuthorizedKey { command, .. } = keys.into_iter().find(|found| found.key == key)?;
        Some(Login { account, forced: command })
    }

    /// Begins what was asked for in a session that waits for it.
    fn begin(
        &mut self,
        id: ChannelId,
        request: Request,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let (Some(waiting), Some(login)) = (self.channels.remove(&id), self.login.clone()) else {
            return session.channel_failure(id);
        };
        session.channel_success(id)?;
        let request = login.forced.map_or(request, Request::Command);
        let mut environment = waiting.environment;
        let (peer, local) = (self.peer, self.local);
        let client = format!("{} {} {}", peer.ip(), peer.port(), local.port());
        let connection = format!("{} {} {} {}", peer.ip(), peer.port(), local.ip(), local.port());
        environment.push(("SSH_CLIENT".into(), client));
        environment.push(("SSH_CONNECTION".into(), connection));
        let work = Work {
            guest: Arc::clone(&self.guest),
            account: login.account,
            request,
            environment,
            terminal: waiting.terminal,
            handle: session.handle(),
            id,
        };
        self.guest.tasks.spawn(work.run(waiting.channel));
        Ok(())
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        let login = self.authorized(user, &offer.public_key.public_key_base64()).await;
        Ok(login.map_or_else(Auth::reject, |_| Auth::Accept))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        self.login = self.authorized(user, &key.public_key.public_key_base64()).await;
        Ok(if self.login.is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let (files, password) = (self.guest.files.clone(), password.to_owned());
        // As servers are set up: the administrator needs a key.
        let Some(account) = self.account(user).await.filter(|account| account.name != "root")
        else {
            return Ok(Auth::reject());
        };
        let accepted = blocking(move || {
            let accepted = boot::takes_passwords(&files) && account.accepts(&files, &password);
            Ok(accepted.then_some(Login { account, forced: None }))
        });
        self.login = accepted.await.ok().flatten();
        Ok(if self.login.is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.channels.len() < MOST_CHANNELS {
            let waiting = Waiting { environment: Vec::new(), terminal: None, channel };
            self.channels.insert(waiting.channel.id(), waiting);
            reply.accept().await;
        }
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let accepted = ACCEPTED.contains(&name) || name.starts_with("LC_");
        match self.channels.get_mut(&channel).filter(|_| accepted && !value.contains('\0')) {
            Some(waiting) => {
                waiting.environment.push((name.to_owned(), value.to_owned()));
                session.channel_success(channel)
            }
            None => session.channel_failure(channel),
        }
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.get_mut(&channel) {
            Some(waiting) => {
                waiting.environment.push(("TERM".into(), term.replace('\0', "")));
                waiting.terminal = Some(TerminalSize { columns, rows });
                session.channel_success(channel)
            }
            None => session.channel_failure(channel),
        }
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.begin(channel, Request::Shell, session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let command = String::from_utf8_lossy(command).replace('\0', "");
        self.begin(channel, Request::Command(command), session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match name {
            "sftp" => self.begin(channel, Request::Files, session),
            _ => session.channel_failure(channel),
        }
    }
}
