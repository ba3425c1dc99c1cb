//! The client: one session, shared by all clones, and calls over it.
//!
//! ```text
//! call ──▶ attach (log in, once for all) ──▶ send ──▶ result
//!              ▲                               │
//!              └── SESSION_INVALID, HOST_IS_SLAVE, nobody there: again, within bounds
//! ```

mod builder;
mod line;
mod session;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use builder::{Builder, Ready};
pub(crate) use line::Line;

use crate::call::Call;
use crate::error::Error;
use crate::failure::Failure;
use crate::secrecy::Secret;
use crate::transport::{Deadline, Endpoint, InvalidAddress, Post, Response, Stream};
use crate::wire::{self, DecodeError, FromWire, Protocol, Request};
pub(crate) use session::{Attached, Shared};

/// Answers from this size on are read beside the runtime's own threads, which they would hold up.
const LARGE: usize = 256 << 10;
/// How often a call is sent to another host because the one before named it as master.
const HOPS: usize = 3;

/// A client of one pool. Clones share its session and connections.
///
/// It logs in at the first call, or in [`Ready::connect`]. A session that the server has ended is
/// renewed once for each call that finds out; where a member names the pool's master, the client goes
/// there. A refused login is not repeated: every later call fails in the same way.
///
/// [`Client::close`] logs out. If the last clone is dropped without it within a Tokio runtime, a last
/// task with a deadline of five seconds does; beyond that, the server ends idle sessions after a day.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

impl Client {
    /// A client of the pool with this address: that of a host, best the master.
    pub fn builder(address: &str) -> Result<Builder, InvalidAddress> {
        Builder::new(address)
    }

    /// Calls a message that the model does not have, or one that is known only at run time.
    pub fn call<R>(&self, request: Request) -> Call<R> {
        Call::new(self, request)
    }

    /// The host that is spoken to, where there is one yet.
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.shared.attached().map(|attached| attached.endpoint)
    }

    /// Logs out and refuses all later calls. A session that was given to the client goes on.
    ///
    /// It waits up to five seconds for the rows of tasks and transfers that are over to be destroyed. Closing a
    /// closed client does nothing. When logging out fails the client is closed all the same.
    pub async fn close(&self) -> Result<(), Error> {
        self.shared.tasks.clean().await;
        self.shared.close().await
    }

    /// The host that is spoken to and the session, made if need be, for what goes beside messages.
    pub(crate) async fn attached(&self) -> Result<(Endpoint, Secret), Error> {
        let attached = self.shared.attach(None, Deadline::new(self.timeout())).await?;
        Ok((attached.endpoint, attached.session))
    }

    /// A connection of its own to a host, for what goes beside messages.
    pub(crate) async fn dial(&self, endpoint: &Endpoint) -> Result<Stream, Error> {
        self.shared.transport.dial(endpoint, Deadline::new(self.timeout())).await
    }

    /// How long a call may take if it does not say so itself.
    pub(crate) fn timeout(&self) -> Duration {
        self.shared.timeout
    }

    /// Sends a request and reads its result. What is done about sessions and hosts is here.
    pub(crate) async fn run<R: FromWire + Send + 'static>(
        &self,
        request: &Request,
        timeout: Option<Duration>,
    ) -> Result<R, Error> {
        let result = self.shared.run(request, timeout, read::<R>).await?;
        Ok(*result.downcast::<R>().expect("`read` made it of this very type"))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

type Outcome = Result<Result<Box<dyn Any + Send>, Failure>, DecodeError>;
/// Reads a result of some type, so that all else is compiled once and not for each type.
type Read = fn(Protocol, Vec<u8>) -> Outcome;

fn read<R: FromWire + Send + 'static>(protocol: Protocol, body: Vec<u8>) -> Outcome {
    let outcome = wire::decode::<R>(protocol, body)?;
    Ok(outcome.map(|result| Box::new(result) as Box<dyn Any + Send>))
}

/// What to do after a failure that says more about the session than about the message.
enum Remedy {
    Renew,
    Follow(Endpoint),
}

impl Shared {
    async fn run(
        &self,
        request: &Request,
        timeout: Option<Duration>,
        read: Read,
    ) -> Result<Box<dyn Any + Send>, Error> {
        let deadline = Deadline::new(timeout.unwrap_or(self.timeout));
        let mut attached = self.attach(None, deadline).await?;
        let (mut renewals, mut hops) = (0, 0);
        loop {
            let error = match self.send(&attached, request, deadline, read).await {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            match self.remedy(&error, &attached) {
                Some(Remedy::Renew) if renewals == 0 => renewals += 1,
                Some(Remedy::Follow(master)) if hops < HOPS => {
                    hops += 1;
                    self.move_to(&attached, master);
                }
                _ => return Err(error),
            }
            attached = self.attach(Some(&attached), deadline).await?;
        }
    }

    /// Both failures mean that the message was not carried out, and so does a host nobody reached.
    fn remedy(&self, error: &Error, attached: &Attached) -> Option<Remedy> {
        match error {
            Error::Api { source, .. } => match (source.code(), source.params()) {
                ("SESSION_INVALID", _) if self.login.can_renew() => Some(Remedy::Renew),
                ("HOST_IS_SLAVE", [master, ..]) => {
                    Some(Remedy::Follow(attached.endpoint.with_host(master)))
                }
                _ => None,
            },
            Error::Connect { .. } => Some(Remedy::Renew),
            _ => None,
        }
    }

    async fn send(
        &self,
        attached: &Attached,
        request: &Request,
        deadline: Deadline,
        read: Read,
    ) -> Result<Box<dyn Any + Send>, Error> {
        let Attached { endpoint, protocol, session } = attached;
        let response =
            self.post(endpoint, *protocol, request, Some(session.expose()), deadline).await?;
        check_status(endpoint, &response)?;
        let outcome = decode(*protocol, response.body, read).await;
        outcome
            .map_err(|source| {
                let method = request.wire_name().into_owned();
                Error::Protocol { endpoint: endpoint.clone(), method, source }
            })?
            .map_err(|source| Error::Api { method: request.wire_name().into_owned(), source })
    }

    pub(super) async fn post(
        &self,
        endpoint: &Endpoint,
        protocol: Protocol,
        request: &Request,
        session: Option<&str>,
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let body = wire::encode(request, session, protocol);
        let post = Post {
            path: protocol.path(),
            content_type: protocol.content_type(),
            body: &body,
            effect: request.effect,
        };
        self.transport.post(endpoint, &post, deadline).await
    }
}

async fn decode(protocol: Protocol, body: Vec<u8>, read: Read) -> Outcome {
    if body.len() < LARGE {
        return read(protocol, body);
    }
    match tokio::task::spawn_blocking(move || read(protocol, body)).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(DecodeError::new("the runtime was shut down before it was read")),
        },
    }
}

/// Refuses what is an answer of HTTP only.
pub(super) fn check_status(endpoint: &Endpoint, response: &Response) -> Result<(), Error> {
    let page = response.content_type.contains("html");
    if response.status == 200 && !page {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&response.body);
    let plain: String =
        text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let excerpt = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    let excerpt = excerpt.chars().take(200).collect();
    Err(Error::Http { endpoint: endpoint.clone(), status: response.status, excerpt })
}
