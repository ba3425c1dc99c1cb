//! What can go wrong on the way to an answer.

use std::io;
use std::time::Duration;

use crate::failure::Failure;
use crate::tls::TlsError;
use crate::transport::Endpoint;
use crate::wire::DecodeError;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered that it failed.
    #[error("`{method}` failed")]
    Api {
        /// The message that was called.
        method: String,
        /// What the server said.
        source: Failure,
    },
    /// No connection could be made.
    #[error("could not reach `{endpoint}`")]
    Connect {
        /// Where it went.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// The server could not show that it is who it should be.
    #[error("could not make a trusted connection to `{endpoint}`")]
    Tls {
        /// Where it went.
        endpoint: Endpoint,
        /// What was wrong.
        source: TlsError,
    },
    /// A connection broke.
    #[error("lost the connection to `{endpoint}` {}", when(*sent))]
    Transport {
        /// Where it went.
        endpoint: Endpoint,
        /// Whether all of the request had been sent, so that the server may have carried it out.
        sent: bool,
        /// What the system said.
        source: io::Error,
    },
    /// The server answered with an HTTP status, and not to the message.
    #[error("`{endpoint}` answered with HTTP status {status}: {excerpt}")]
    Http {
        /// Where it went.
        endpoint: Endpoint,
        /// The status.
        status: u16,
        /// How its text begins.
        excerpt: String,
    },
    /// The answer could not be understood.
    #[error("could not understand what `{endpoint}` answered to `{method}`")]
    Protocol {
        /// Where it went.
        endpoint: Endpoint,
        /// The message that was called.
        method: String,
        /// Where reading it stopped.
        source: DecodeError,
    },
    /// The answer is larger than is accepted.
    #[error("`{endpoint}` answered with more than {limit} bytes")]
    TooLarge {
        /// Where it went.
        endpoint: Endpoint,
        /// The most that is accepted, which the builder sets.
        limit: usize,
    },
    /// The deadline passed.
    #[error("`{endpoint}` did not answer within {after:?}: it passed while {waiting}")]
    Timeout {
        /// Where it went.
        endpoint: Endpoint,
        /// How long the call was allowed to take.
        after: Duration,
        /// What was being waited for.
        waiting: Waiting,
    },
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

fn when(sent: bool) -> &'static str {
    if sent { "before its answer was whole" } else { "before the request was sent" }
}

/// What a call was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Fewer requests to be under way.
    Slot,
    /// Another call to log in.
    Session,
    /// The address and the connection to it.
    Connection,
    /// The server to show who it is.
    Handshake,
    /// The request to be taken.
    Sending,
    /// The answer. The server may carry the message out yet.
    Answer,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Slot => "waiting for other requests to end",
            Self::Session => "waiting for the login",
            Self::Connection => "connecting",
            Self::Handshake => "waiting for the TLS handshake",
            Self::Sending => "sending the request",
            Self::Answer => "waiting for the answer",
        })
    }
}

impl Error {
    /// What the server said, where it said that it failed.
    pub fn failure(&self) -> Option<&Failure> {
        if let Self::Api { source, .. } = self { Some(source) } else { None }
    }

    /// The server's error code, where it answered with one.
    pub fn code(&self) -> Option<&str> {
        self.failure().map(Failure::code)
    }

    /// Whether the same call can succeed later without anything being changed for it.
    ///
    /// This says nothing about whether it already took effect: see [`Error::may_have_run`].
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Api { source, .. } => source.is_retryable(),
            Self::Connect { .. } | Self::Transport { .. } | Self::Timeout { .. } => true,
            Self::Http { status, .. } => matches!(status, 408 | 429 | 502..=504),
            Self::Tls { .. } | Self::Protocol { .. } | Self::TooLarge { .. } | Self::Closed => {
                false
            }
        }
    }

    /// Whether the server may have carried the message out although there is no result.
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Transport { sent, .. } => *sent,
            Self::Timeout { waiting, .. } => *waiting == Waiting::Answer,
            Self::Protocol { .. } | Self::TooLarge { .. } => true,
            Self::Http { status, .. } => matches!(status, 502 | 504),
            Self::Api { .. } | Self::Connect { .. } | Self::Tls { .. } | Self::Closed => false,
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Api { source, .. } => source.hint()?.into(),
            Self::Connect { .. } => {
                "check the address, the network and any firewall between".into()
            }
            Self::Tls { source, .. } => source.hint(),
            Self::Transport { sent: true, .. } | Self::Timeout { waiting: Waiting::Answer, .. } => {
                "the server may have carried it out: look before calling again".into()
            }
            Self::Transport { .. } | Self::Timeout { .. } => "try again".into(),
            Self::Http { .. } | Self::Protocol { .. } => {
                "check that the address is that of an XCP-ng or XenServer host".into()
            }
            Self::TooLarge { .. } => {
                "ask for less at once, or raise `Builder::answer_limit`".into()
            }
            Self::Closed => return None,
        })
    }
}
