//! Connections that are kept, and how many requests may be under way.
//!
//! ```text
//! request ──few──▶ a kept connection, or a new one ──▶ kept
//!    └──quick, and others are under way──▶ a lane ◀── a kept connection
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::trace;

use super::answers::{ReceiveError, Response};
use super::connection::Connection;
use super::lane::{Lane, Lost, Seat, drive};
use super::stream::{Stream, dial};
use super::{Deadline, Endpoint};
use crate::error::{Error, Waiting};
use crate::tls::Tls;
use crate::wire::Effect;

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(30);
/// So many quick requests at a time have a connection to themselves; those beyond share.
const ALONE: usize = 2;

/// Bounds of what is sent and received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Requests under way at one time.
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
    pub(crate) effect: Effect,
}

/// Sends requests to servers over kept connections.
#[derive(Debug)]
pub(crate) struct Transport {
    tls: Tls,
    limits: Limits,
    slots: Semaphore,
    lines: Arc<Lines>,
    /// The drivers of lanes, which end when there is nobody on them.
    drivers: Mutex<JoinSet<()>>,
}

/// The connections that are open, but for those in use by one request alone.
#[derive(Debug)]
struct Lines {
    /// How many idle ones are kept.
    limit: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    idle: Vec<Idle>,
    lanes: Vec<(Endpoint, Arc<Lane>)>,
    /// Quick requests under way that have a connection to themselves.
    alone: usize,
}

#[derive(Debug)]
struct Idle {
    endpoint: Endpoint,
    since: Instant,
    connection: Connection<Stream>,
}

/// How a quick request goes.
enum Way<'a> {
    Alone(Alone<'a>),
    Shared(Seat),
}

/// Counts a quick request among those that have a connection to themselves.
struct Alone<'a>(&'a Lines);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.open().alone -= 1;
    }
}

impl Transport {
    pub(crate) fn new(tls: Tls, limits: Limits) -> Self {
        let slots = Semaphore::new(limits.requests);
        // As many as there are slots: those beside them are few.
        let lines = Arc::new(Lines { limit: limits.requests, open: Mutex::default() });
        Self { tls, limits, slots, lines, drivers: Mutex::default() }
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
    /// or broke at all and the request is repeatable. Where many quick ones are under way, they share
    /// connections that had been kept.
    pub(crate) async fn post(
        &self,
        endpoint: &Endpoint,
        post: &Post<'_>,
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let slot = deadline.wait(endpoint, Waiting::Slot, self.slots.acquire()).await?;
        let _slot = slot.map_err(|_| Error::Closed)?;
        match post.effect {
            Effect::Write | Effect::Read => {
                return self.post_beside(endpoint, post, deadline).await;
            }
            Effect::Get => {}
        }
        let request = http(endpoint, post);
        match self.way(endpoint, &request) {
            Way::Alone(_alone) => self.post_alone(endpoint, &request, true, deadline).await,
            Way::Shared(seat) => self.post_shared(endpoint, &request, seat, deadline).await,
        }
    }

    /// Like [`Transport::post`], but beside the limit: for requests that wait for something to happen,
    /// and would keep others from their turn meanwhile.
    pub(crate) async fn post_beside(
        &self,
        endpoint: &Endpoint,
        post: &Post<'_>,
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let repeatable = match post.effect {
            Effect::Write => false,
            Effect::Read | Effect::Get => true,
        };
        self.post_alone(endpoint, &http(endpoint, post), repeatable, deadline).await
    }

    async fn post_alone(
        &self,
        endpoint: &Endpoint,
        request: &[u8],
        repeatable: bool,
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let kept = self.lines.open().take(endpoint);
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect(endpoint, deadline).await?,
        };
        match self.exchange(&mut connection, endpoint, request, deadline).await {
            Err(Error::Transport { sent, source, .. }) if repeatable || !sent => {
                trace!(%endpoint, sent, %source, "sending again");
                self.post_anew(endpoint, request, deadline).await
            }
            response => {
                let response = response?;
                self.lines.keep(endpoint, connection);
                Ok(response)
            }
        }
    }

    async fn post_shared(
        &self,
        endpoint: &Endpoint,
        request: &[u8],
        seat: Seat,
        deadline: Deadline,
    ) -> Result<Response, Error> {
        match deadline.wait(endpoint, Waiting::Answer, seat.answer()).await? {
            Ok(response) => Ok(response),
            Err(Lost::TooLarge) => Err(self.too_large(endpoint)),
            Err(Lost::Broken(source)) => {
                trace!(%endpoint, %source, "sending again what was on a shared connection");
                self.post_anew(endpoint, request, deadline).await
            }
        }
    }

    /// Over a new connection: where one broke, the others that were kept may have broken too.
    async fn post_anew(
        &self,
        endpoint: &Endpoint,
        request: &[u8],
        deadline: Deadline,
    ) -> Result<Response, Error> {
        let mut connection = self.connect(endpoint, deadline).await?;
        let response = self.exchange(&mut connection, endpoint, request, deadline).await?;
        self.lines.keep(endpoint, connection);
        Ok(response)
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        deadline: Deadline,
    ) -> Result<Connection<Stream>, Error> {
        Ok(Connection::new(self.dial(endpoint, deadline).await?, self.limits.answer))
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
        deadline.wait(endpoint, Waiting::Answer, connection.receive()).await?.map_err(|error| {
            match error {
                ReceiveError::Io(source) => lost(true, source),
                ReceiveError::TooLarge => self.too_large(endpoint),
            }
        })
    }

    fn too_large(&self, endpoint: &Endpoint) -> Error {
        Error::TooLarge { endpoint: endpoint.clone(), limit: self.limits.answer }
    }

    /// Alone where few others are, and where there is no connection to share: only those are shared that
    /// a server has kept once, so that one which closes each is never asked twice for one answer.
    fn way(&self, endpoint: &Endpoint, request: &[u8]) -> Way<'_> {
        let mut open = self.lines.open();
        if open.alone >= ALONE {
            if let Some(seat) = open.board(endpoint, request) {
                return Way::Shared(seat);
            }
            if let Some(connection) = open.take(endpoint) {
                let lane = Arc::new(Lane::default());
                if let Some(seat) = lane.board(request) {
                    open.lanes.push((endpoint.clone(), Arc::clone(&lane)));
                    drop(open);
                    self.start(endpoint.clone(), connection, lane);
                    return Way::Shared(seat);
                }
            }
        }
        open.alone += 1;
        Way::Alone(Alone(&self.lines))
    }

    fn start(&self, endpoint: Endpoint, connection: Connection<Stream>, lane: Arc<Lane>) {
        let lines = Arc::clone(&self.lines);
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        while drivers.try_join_next().is_some() {}
        drivers.spawn(async move {
            if let Some(connection) = drive(connection, lane).await {
                lines.keep(&endpoint, connection);
            }
        });
    }
}

impl Lines {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection that nobody uses any more, if it can be used again.
    fn keep(&self, endpoint: &Endpoint, connection: Connection<Stream>) {
        if connection.is_reusable() {
            let kept = Idle { endpoint: endpoint.clone(), since: Instant::now(), connection };
            let mut open = self.open();
            if open.idle.len() >= self.limit {
                open.idle.remove(0);
            }
            open.idle.push(kept);
        }
    }
}

impl Open {
    /// The connection to this server that was used last and is still good.
    fn take(&mut self, endpoint: &Endpoint) -> Option<Connection<Stream>> {
        // They stand in the order of their times.
        let now = Instant::now();
        let old = self.idle.iter().take_while(|kept| now.duration_since(kept.since) >= IDLE);
        let old = old.count();
        self.idle.drain(..old);
        while let Some(place) = self.idle.iter().rposition(|kept| kept.endpoint == *endpoint) {
            let mut connection = self.idle.remove(place).connection;
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    /// Lets a request on a lane to this server, where one has room.
    fn board(&mut self, endpoint: &Endpoint, request: &[u8]) -> Option<Seat> {
        self.lanes.retain(|(_, lane)| lane.is_open());
        let mut there = self.lanes.iter().filter(|(to, _)| to == endpoint);
        there.find_map(|(_, lane)| lane.board(request))
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
