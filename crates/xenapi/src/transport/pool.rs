//! Connections that are kept, and how many requests may be under way.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::trace;

use super::connection::{Connection, ReceiveError, Response};
use super::stream::{Stream, dial};
use super::{Deadline, Endpoint};
use crate::error::{Error, Waiting};
use crate::tls::Tls;

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);

/// Bounds of what is sent and received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Requests under way at one time, each with a connection.
    pub(crate) requests: usize,
    /// Bytes of an answer.
    pub(crate) answer: usize,
}

/// A request as HTTP has it.
#[derive(Debug)]
pub(crate) struct Post<'a> {
    pub(crate) path: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a [u8],
    /// Whether it may be sent again when its answer was lost.
    pub(crate) repeatable: bool,
}

/// Sends requests to servers over kept connections.
#[derive(Debug)]
pub(crate) struct Transport {
    tls: Tls,
    limits: Limits,
    slots: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    endpoint: Endpoint,
    since: Instant,
    connection: Connection<Stream>,
}

impl Transport {
    pub(crate) fn new(tls: Tls, limits: Limits) -> Self {
        let slots = Semaphore::new(limits.requests);
        Self { tls, limits, slots, idle: Mutex::default() }
    }

    /// A new connection, for those who speak something else than messages over it.
    pub(crate) async fn dial(
        &self,
        endpoint: &Endpoint,
        deadline: Deadline,
    ) -> Result<Stream, Error> {
        dial(endpoint, &self.tls, deadline).await
    }

    /// Sends a request and receives the answer.
    ///
    /// It is sent a second time, over a new connection, if the first broke before all of it was sent,
    /// or broke at all and the request is repeatable.
    pub(crate) async fn post(
        &self,
        endpoint: &Endpoint,
        post: &Post<'_>,
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let slot = deadline.wait(endpoint, Waiting::Slot, self.slots.acquire()).await?;
        let _slot = slot.map_err(|_| Error::Closed)?;
        self.post_beside(endpoint, post, deadline).await
    }

    /// Like [`Transport::post`], but beside the limit: for requests that wait for something to happen,
    /// and would keep others from their turn meanwhile.
    pub(crate) async fn post_beside(
        &self,
        endpoint: &Endpoint,
        post: &Post<'_>,
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let request = http(endpoint, post);
        let mut connection = match self.take(endpoint) {
            Some(connection) => connection,
            None => Connection::new(self.dial(endpoint, deadline).await?),
        };
        let response = match self.exchange(&mut connection, endpoint, &request, deadline).await {
            Err(Error::Transport { sent, source, .. }) if post.repeatable || !sent => {
                trace!(%endpoint, sent, %source, "sending again");
                connection = Connection::new(self.dial(endpoint, deadline).await?);
                self.exchange(&mut connection, endpoint, &request, deadline).await?
            }
            response => response?,
        };
        self.keep(endpoint, connection);
        Ok(response)
    }

    async fn exchange(
        &self,
        connection: &mut Connection<Stream>,
        endpoint: &Endpoint,
        request: &[u8],
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let lost = |sent, source| Error::Transport { endpoint: endpoint.clone(), sent, source };
        deadline
            .wait(endpoint, Waiting::Sending, connection.send(request))
            .await?
            .map_err(|source| lost(false, source))?;
        deadline
            .wait(endpoint, Waiting::Answer, connection.receive(self.limits.answer))
            .await?
            .map_err(|error| match error {
                ReceiveError::Io(source) => lost(true, source),
                ReceiveError::TooLarge => {
                    Error::TooLarge { endpoint: endpoint.clone(), limit: self.limits.answer }
                }
            })
    }

    /// The connection to this server that was used last and is still good.
    fn take(&self, endpoint: &Endpoint) -> Option<Connection<Stream>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|kept| kept.since.elapsed() < IDLE);
        while let Some(place) = idle.iter().rposition(|kept| kept.endpoint == *endpoint) {
            let mut connection = idle.remove(place).connection;
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, endpoint: &Endpoint, connection: Connection<Stream>) {
        if connection.is_reusable() {
            let kept = Idle { endpoint: endpoint.clone(), since: Instant::now(), connection };
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            // As many as there are slots: those beside them are few.
            if idle.len() >= self.limits.requests {
                idle.remove(0);
            }
            idle.push(kept);
        }
    }
}

fn http(endpoint: &Endpoint, post: &Post<'_>) -> Vec<u8> {
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: xenapi/{}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        post.path,
        endpoint.authority(),
        env!("CARGO_PKG_VERSION"),
        post.content_type,
        post.body.len()
    );
    [head.as_bytes(), post.body].concat()
}
