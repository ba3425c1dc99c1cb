//! A VM's connection to its worker: messages, typed, and the queue of those who want to use it.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bioxen_core::backend::{Link, Machine};
use bioxen_core::protocol::{
    Configure, Decoder, End, FrameError, Reply, Request, decode, encode_into,
};
use bioxen_core::{Chunk, Grants, Limits, RunContext};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a message may hold besides output and values: error texts, overheads.
const SLACK: usize = 4 << 20;

/// The largest message of a worker whose output has no limit.
const LARGEST_REPLY: usize = 1 << 30;

pub(crate) struct Connection {
    link: Box<dyn Link>,
    decoder: Decoder,
    outgoing: Vec<u8>,
    /// The worker's configuration, until the first evaluation takes it along.
    unsent: Vec<u8>,
    next_evaluation: u64,
    /// The granted variables, and what the worker was told last.
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) told_environment: Option<BTreeMap<String, String>>,
    pub(crate) working_directory: Option<PathBuf>,
    pub(crate) context: Arc<RunContext>,
    pub(crate) machine: Arc<dyn Machine>,
}

/// The queue in front of one worker: one evaluation at a time, in the order in which they came.
pub(crate) struct Queue {
    turns: Arc<Semaphore>,
    /// There while nobody has the turn and the worker lives.
    connection: Mutex<Option<Box<Connection>>>,
}

impl Queue {
    /// The queue in front of a worker that has just come up.
    pub(crate) fn of(connection: Connection) -> Arc<Self> {
        let connection = Mutex::new(Some(Box::new(connection)));
        Arc::new(Self { turns: Arc::new(Semaphore::new(1)), connection })
    }

    /// A queue in which nobody waits, since there is no worker.
    pub(crate) fn closed() -> Arc<Self> {
        let queue = Self { turns: Arc::new(Semaphore::new(0)), connection: Mutex::default() };
        queue.turns.close();
        Arc::new(queue)
    }

    /// Waits for the turn; `None` when the worker is gone before it comes.
    pub(crate) async fn turn(self: Arc<Self>) -> Option<Turn> {
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let connection = self.lock().take()?;
        Some(Turn { connection: Some(connection), queue: self, _permit: permit })
    }

    /// Turns away all who wait and will come, and closes the connection unless somebody has it.
    pub(crate) fn close(&self) {
        self.turns.close();
        drop(self.lock().take());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Box<Connection>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to use a connection, until this is dropped.
pub(crate) struct Turn {
    connection: Option<Box<Connection>>,
    queue: Arc<Queue>,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    /// The connection; `None` once it has been closed.
    pub(crate) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_deref_mut()
    }

    /// Whether the VM was stopped meanwhile.
    pub(crate) fn is_revoked(&self) -> bool {
        self.queue.turns.is_closed()
    }

    /// Closes the connection, and with it the queue.
    pub(crate) fn close(&mut self) {
        drop(self.connection.take());
        self.queue.close();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if !self.queue.turns.is_closed() {
            *self.queue.lock() = Some(connection);
        }
    }
}

/// A message of a running evaluation.
#[derive(Debug)]
pub(crate) enum Message {
    Output(Chunk),
    NeedInput,
    End(Box<End>),
    Fatal(String),
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The worker is gone.
    #[error("the worker closed its connection")]
    Closed,
    /// It said something that makes no sense.
    #[error(transparent)]
    Nonsense(#[from] FrameError),
}

impl Connection {
    /// Takes over a new link. Its worker is configured with the first evaluation.
    pub(crate) fn new(
        link: Box<dyn Link>,
        machine: Arc<dyn Machine>,
        context: Arc<RunContext>,
        environment: BTreeMap<String, String>,
        working_directory: Option<PathBuf>,
    ) -> Self {
        let largest = largest_reply(&context.limits);
        let configure = configure(&context.limits, &context.grants);
        let mut unsent = Vec::new();
        encode_into(&mut unsent, &Request::Configure(configure));
        let needs_directory = context.interpreter.program.is_some()
            || context.grants.spawn
            || !context.grants.read.is_empty()
            || !context.grants.write.is_empty();
        Self {
            link,
            decoder: Decoder::new(largest),
            outgoing: Vec::new(),
            unsent,
            next_evaluation: 1,
            environment,
            told_environment: None,
            working_directory: working_directory.filter(|_| needs_directory),
            context,
            machine,
        }
    }

    /// A number for the next evaluation.
    pub(crate) fn take_number(&mut self) -> u64 {
        self.next_evaluation += 1;
        self.next_evaluation - 1
    }

    pub(crate) async fn send(&mut self, request: &Request<'_>) -> io::Result<()> {
        self.outgoing.clear();
        self.outgoing.append(&mut self.unsent);
        encode_into(&mut self.outgoing, request);
        let sent = self.link.send(&self.outgoing).await;
        self.outgoing.shrink_to(64 << 10);
        sent
    }

    /// Waits for the next message. Dropping the future loses nothing.
    pub(crate) async fn receive(&mut self) -> Result<Message, ReceiveError> {
        loop {
            if let Some(payload) = self.decoder.next_payload()? {
                return Ok(read(&payload)?);
            }
            match self.link.receive(self.decoder.space()).await {
                Ok(0) | Err(_) => return Err(ReceiveError::Closed),
                Ok(_) => {}
            }
        }
    }
}

fn largest_reply(limits: &Limits) -> usize {
    let output = limits.output.bound().map(|bound| bound.as_u64());
    // A value costs a few bytes besides its contents, so twice the limit is room enough.
    output
        .and_then(|bound| usize::try_from(bound).ok())
        .map_or(LARGEST_REPLY, |bound| (bound.saturating_mul(2)).saturating_add(SLACK))
        .min(LARGEST_REPLY)
}

fn configure(limits: &Limits, grants: &Grants) -> Configure {
    Configure { memory: limits.memory.bound().map(|bound| bound.as_u64()), grants: grants.clone() }
}

fn read(payload: &Bytes) -> Result<Message, FrameError> {
    Ok(match decode(payload)? {
        Reply::Output(stream, data) => {
            Message::Output(Chunk { stream, data: payload.slice_ref(data) })
        }
        Reply::NeedInput(_) => Message::NeedInput,
        Reply::End(end) => Message::End(Box::new(end)),
        Reply::Fatal(reason) => Message::Fatal(reason.into_owned()),
        Reply::Sandboxed(_) | Reply::Hello(_) => {
            return Err(FrameError::NotAMessage {
                length: payload.len(),
                reason: "it introduces itself again".into(),
                start: String::new(),
            });
        }
    })
}
