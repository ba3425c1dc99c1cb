//! What can go wrong between us and a guest.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::KeyFingerprint;

/// Why something over SSH could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SshError {
    /// Nobody answers at the address.
    #[error("could not connect to `{address}`")]
    Connect {
        /// Host and port.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Something took too long.
    #[error("`{address}` kept us waiting for {waiting_for} for {after:?}")]
    Timeout {
        /// Host and port.
        address: String,
        /// What was waited for.
        waiting_for: String,
        /// How long.
        after: Duration,
    },
    /// The host has another key than the one that is known. Nothing has been sent to it.
    #[error(
        "`{address}` is not who it should be: its host key is {found}, and {expected} is known"
    )]
    WrongHostKey {
        /// Host and port.
        address: String,
        /// The key that is known.
        expected: KeyFingerprint,
        /// The key that it showed.
        found: KeyFingerprint,
    },
    /// What answers has no key of the kind that is known, or shares no method with us.
    #[error("`{address}` and this program have no {what} in common")]
    NothingInCommon {
        /// Host and port.
        address: String,
        /// What they would have to agree on.
        what: String,
    },
    /// What answers does not speak SSH as it should.
    #[error("`{address}` could not be spoken to")]
    Handshake {
        /// Host and port.
        address: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The host does not let this user in.
    #[error("`{address}` does not let `{user}` in by {how}; it would take {offers}")]
    LoginRefused {
        /// Host and port.
        address: String,
        /// The user.
        user: String,
        /// What was tried.
        how: String,
        /// What it says that it accepts.
        offers: String,
    },
    /// There is no agent, or it does not work.
    #[error("the SSH agent cannot be used: {reason}")]
    Agent {
        /// What is wrong.
        reason: String,
    },
    /// A private key cannot be used.
    #[error("the private key `{}` cannot be used: {reason}", path.display())]
    Identity {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The host by way of which guests are reached was not entered.
    #[error("the jump host was not entered")]
    Jump {
        /// Why.
        source: Box<SshError>,
    },
    /// The host by way of which a guest is reached does not reach it.
    #[error("jump host `{jump}` does not reach `{address}`: {reason}")]
    NoWay {
        /// Host and port of the one.
        jump: String,
        /// Host and port of the other.
        address: String,
        /// What the one says.
        reason: String,
    },
    /// The connection has ended.
    #[error("the connection to `{address}` is lost: {reason}")]
    Lost {
        /// Host and port.
        address: String,
        /// Why, as far as it is known.
        reason: String,
    },
    /// The host refuses something that is possible in general.
    #[error("`{address}` refuses {what}: {reason}")]
    Refused {
        /// Host and port.
        address: String,
        /// What was asked for.
        what: String,
        /// What it says.
        reason: String,
    },
    /// What was to be run cannot be passed on.
    #[error("`{program}` cannot be started over SSH: {reason}")]
    Command {
        /// The program.
        program: String,
        /// What is wrong.
        reason: String,
    },
}

impl SshError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Connect { .. } => {
                "check that the VM runs, that its address is right, and that sshd listens there".into()
            }
            Self::Timeout { .. } => {
                "the guest may be starting, busy or cut off; look at its console, or allow more time".into()
            }
            Self::WrongHostKey { .. } => {
                "if the guest was installed anew, adopt it again with its new key; otherwise somebody else answers at its address".into()
            }
            Self::NothingInCommon { .. } => "the guest's SSH server needs an ed25519 host key and current methods".into(),
            Self::Handshake { .. } => "check that the port is that of an SSH server which has room for more connections".into(),
            Self::LoginRefused { user, .. } => {
                format!("check that the key stands in the `authorized_keys` of `{user}` in the guest, and that its account is not locked")
            }
            Self::Agent { .. } => "start one with `eval $(ssh-agent)` and add a key with `ssh-add`, or name a key".into(),
            Self::Identity { .. } => "name the file of a private key without a passphrase, or add it to an agent and say `agent = true`".into(),
            Self::Jump { source } => match source.as_ref() {
                Self::WrongHostKey { .. } => "if it was installed anew, put its new key into `host_key` of the pool's `ssh` in `config.toml`; otherwise somebody else answers at its address".into(),
                Self::Agent { .. } | Self::Identity { .. } => source.hint(),
                _ => "see that `ssh` of the pool in `config.toml` says where it is, whom it lets in and by which key".into(),
            },
            Self::NoWay { .. } => "check that the VM runs, and that the jump host has a way to its address".into(),
            Self::Lost { .. } => "the guest may have been restarted; connect again".into(),
            Self::Refused { .. } => "the guest's sshd_config may forbid it, or bound it (MaxSessions, AllowTcpForwarding)".into(),
            Self::Command { .. } => "pass long or binary data on its standard input, or in a file".into(),
        }
    }

    /// Whether trying the same again later may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Handshake { .. }
            | Self::NoWay { .. }
            | Self::Lost { .. } => true,
            Self::Jump { source } => source.may_pass(),
            Self::WrongHostKey { .. }
            | Self::NothingInCommon { .. }
            | Self::LoginRefused { .. }
            | Self::Agent { .. }
            | Self::Identity { .. }
            | Self::Refused { .. }
            | Self::Command { .. } => false,
        }
    }
}
