//! Where to connect to, as whom, and how long to wait.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use xenapi::Secret;

use super::{ClientKey, PublicKey};

/// A guest's SSH server and what is needed to enter it.
#[derive(Clone)]
pub struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) host_key: HostKeyCheck,
    pub(super) login: Login,
    pub(super) patience: Patience,
}

/// How the host is known.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HostKeyCheck {
    /// By this key and no other.
    Pinned(PublicKey),
    /// Not yet: take the key that it shows. The caller asks a person, or remembers the key and pins
    /// it from then on ([`Connection::host_key`](super::Connection::host_key)). Only for VMs that we did not make.
    TrustOnFirstUse,
}

/// How we prove who we are.
#[derive(Clone)]
#[non_exhaustive]
pub enum Login {
    /// By a key of ours.
    Key(ClientKey),
    /// By any key of the agent at this socket; `None` is the one in `SSH_AUTH_SOCK`.
    Agent(Option<PathBuf>),
    /// By a password. Nothing falls back to this: it is used when it is given, alone.
    Password(Secret),
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the port to open, or the jump host to open it.
    pub connect: Duration,
    /// For greeting, keys and login, each.
    pub handshake: Duration,
    /// For each answer after that: a channel that opens, a program that starts, a piece of a file.
    pub answer: Duration,
    /// How long nothing may be heard before the guest is asked whether it is there.
    pub keepalive: Duration,
    /// How many such questions in a row may stay without an answer.
    pub unanswered: u16,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(15),
            answer: Duration::from_secs(15),
            keepalive: Duration::from_secs(5),
            unanswered: 2,
        }
    }
}

impl Patience {
    /// The longest time after which a guest that has fallen silent is given up.
    pub fn silence(&self) -> Duration {
        self.keepalive * (u32::from(self.unanswered) + 1)
    }
}

impl Target {
    /// A server on port 22, with default patience.
    pub fn new(
        host: impl Into<String>,
        user: impl Into<String>,
        host_key: HostKeyCheck,
        login: Login,
    ) -> Self {
        let (host, user, patience) = (host.into(), user.into(), Patience::default());
        Self { host, port: 22, user, host_key, login, patience }
    }

    /// Chooses another port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Chooses how long to wait.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Host and port, as messages name them.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}@{}, {:?})", self.user, self.address(), self.host_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_shown_without_what_it_logs_in_with() {
        let login = Login::Password(Secret::from("hunter2"));
        let target = Target::new("fd00::1", "ada", HostKeyCheck::TrustOnFirstUse, login).port(2222);
        assert_eq!(format!("{target:?}"), "Target(ada@[fd00::1]:2222, TrustOnFirstUse)");
        assert_eq!(target.address(), "[fd00::1]:2222");
    }

    #[test]
    fn silence_is_borne_for_one_keepalive_more_than_may_be_unanswered() {
        let keepalive = Duration::from_secs(5);
        let patience = Patience { keepalive, unanswered: 2, ..Patience::default() };
        assert_eq!(patience.silence(), Duration::from_secs(15));
    }
}
