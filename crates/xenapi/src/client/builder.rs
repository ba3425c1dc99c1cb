//! What a client needs to know before it is one.

use std::sync::Arc;
use std::time::Duration;

use super::Client;
use super::session::{Login, Shared};
use crate::error::Error;
use crate::secrecy::Secret;
use crate::tls::{Tls, Trust};
use crate::transport::{Deadline, Endpoint, InvalidAddress, Limits, Transport};

/// Makes a [`Client`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    addresses: Vec<Endpoint>,
    trust: Trust,
    originator: String,
    timeout: Duration,
    limits: Limits,
}

impl Builder {
    pub(super) fn new(address: &str) -> Result<Self, InvalidAddress> {
        Ok(Self {
            addresses: vec![address.parse()?],
            trust: Trust::none(),
            originator: concat!("xenapi-rs/", env!("CARGO_PKG_VERSION")).into(),
            timeout: Duration::from_mins(5),
            limits: Limits { requests: 32, answer: 1 << 30 },
        })
    }

    /// Another member of the pool. The first that answers is used, in the order they were given.
    pub fn or(mut self, address: &str) -> Result<Self, InvalidAddress> {
        self.addresses.push(address.parse()?);
        Ok(self)
    }

    /// Which servers are trusted: all that were given, and the master that they may name.
    pub fn trust(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// Who the server shall say opened the session. It keeps 500 sessions of each.
    pub fn originator(self, originator: impl Into<String>) -> Self {
        Self { originator: originator.into(), ..self }
    }

    /// How long a call may take if it does not say so itself: five minutes, unless changed.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How many requests may be under way at one time: 32, unless changed, and at least one. Those beyond
    /// wait. Each has a connection of its own, but where there are several questions that are answered at
    /// once (`get_FIELD`, `get_record`, `get_by_uuid`), these share some.
    pub fn request_limit(mut self, requests: usize) -> Self {
        self.limits.requests = requests.clamp(1, 1 << 16);
        self
    }

    /// How many bytes an answer may have: 1 GiB, unless changed.
    pub fn answer_limit(mut self, bytes: usize) -> Self {
        self.limits.answer = bytes;
        self
    }

    /// Logs in with a name and a password.
    pub fn login(self, user: impl Into<String>, password: Secret) -> Ready {
        Ready { builder: self, login: Login::Password { user: user.into(), password } }
    }

    /// Uses a session that is open already. It is neither renewed nor ended.
    pub fn session(self, session: Secret) -> Ready {
        Ready { builder: self, login: Login::Session(session) }
    }
}

/// A [`Builder`] that also knows how to get a session.
#[derive(Debug)]
#[must_use]
pub struct Ready {
    builder: Builder,
    login: Login,
}

impl Ready {
    /// A client that connects and logs in at its first call.
    pub fn build(self) -> Client {
        let Builder { addresses, trust, originator, timeout, limits } = self.builder;
        let transport = Arc::new(Transport::new(Tls::new(trust), limits));
        let shared = Shared::new(transport, addresses, self.login, originator, timeout);
        Client { shared: Arc::new(shared) }
    }

    /// A client that has connected and logged in.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.build();
        let deadline = Deadline::new(client.shared.timeout);
        client.shared.attach(None, deadline).await?;
        Ok(client)
    }
}
