//! Bytes out of a handler, which are all there only when its task says so.
//!
//! ```text
//! Receiving ──end, or broken──▶ Ending ──task ended──▶ Over
//! ```

use std::fmt;
use std::fs::File;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::sink::{self, Fault, Saved};
use super::verdict::{GRACE, begin, ended, explain};
use super::{
    Ask, Direction, Exchange, Meter, Opened, Stage, Target, TransferError, TransferFailure,
    TransferProgress, open, patiently,
};
use crate::client::Client;
use crate::tasks::{Task, TaskError};
use crate::transport::{self, Endpoint};

/// How much is read at once, where the reader does not say.
const CHUNK: usize = 128 << 10;

/// A download that has not begun.
#[derive(Debug)]
pub(crate) struct Fetch<'a> {
    pub(crate) client: &'a Client,
    pub(crate) direction: Direction,
    pub(crate) object: String,
    pub(crate) hosts: &'a [Endpoint],
    pub(crate) target: Target,
    /// How long it must be, where that is known.
    pub(crate) length: Option<u64>,
    pub(crate) patience: Duration,
    pub(crate) meter: Meter,
}

impl Fetch<'_> {
    /// Asks, and returns once the host has answered that bytes will come.
    pub(crate) async fn start(self) -> Result<Download, TransferError> {
        let mut host = None;
        let result = self.open(&mut host).await;
        let Self { direction, object, length, patience, meter, .. } = self;
        let failed = |reason, host| TransferError {
            direction,
            object: object.clone(),
            host,
            bytes: 0,
            reason,
        };
        let (opened, mut task) = result.map_err(|reason| failed(reason, host.clone()))?;
        let announced = opened.answer.and_then(|answer| answer.length);
        meter.enter(Stage::Receiving);
        let told = meter.clone();
        let watch: Watch = Box::pin(async move { ended(&mut task, &told).await });
        Ok(Download {
            watch: Some(watch),
            outcome: None,
            state: State::Receiving(Box::new(opened.exchange)),
            left: announced.or(length).map(|length| (length, length)),
            quiet: Quiet { patience, sleep: Box::pin(sleep(patience)), since: None },
            context: About { direction, object, host: opened.host },
            meter,
            chunk: BytesMut::new(),
        })
    }

    async fn open(
        &self,
        host: &mut Option<Endpoint>,
    ) -> Result<(Opened, Task<()>), TransferFailure> {
        let task = begin(self.client, self.direction, &self.object).await?;
        let target = self.target.clone().with("task_id", &task.reference().to_string());
        let ask = Ask::get(&target);
        let way = open(self.client, self.hosts, &ask, None, host);
        match patiently(&self.meter, self.patience, way).await {
            Ok(opened) => Ok((opened, task)),
            Err(failure) => Err(explain(failure, &task).await),
        }
    }
}

/// Waits for the end of the task, which it holds.
type Watch = Pin<Box<dyn Future<Output = Result<(), TaskError>> + Send>>;

/// Bytes that come from a host: what is exported of a disk or a VM.
///
/// They can be read ([`AsyncRead`]), taken in chunks ([`Stream`]) or saved ([`Download::save`]). The end
/// is the end of the bytes only if the server's task succeeded; otherwise there is an error in its place.
/// Nothing is read ahead, so a slow reader slows the server down.
///
/// If this is dropped before its end, the task is cancelled and destroyed.
pub struct Download {
    state: State,
    watch: Option<Watch>,
    outcome: Option<Result<(), TaskError>>,
    /// How much is missing, and how much there is, where that is known.
    left: Option<(u64, u64)>,
    quiet: Quiet,
    context: About,
    meter: Meter,
    chunk: BytesMut,
}

enum State {
    Receiving(Box<Exchange<transport::Stream>>),
    /// The connection has ended, perhaps too early; the task will say.
    Ending(Option<TransferFailure>),
    Over,
}

#[derive(Debug)]
struct About {
    direction: Direction,
    object: String,
    host: Endpoint,
}

/// How long nothing has happened.
struct Quiet {
    patience: Duration,
    sleep: Pin<Box<Sleep>>,
    since: Option<Instant>,
}

impl Quiet {
    /// Ready when it has been waited for too long since the last byte.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            self.sleep.as_mut().reset(now + self.patience);
        }
        self.sleep.as_mut().poll(context)
    }

    fn end(&mut self) {
        self.since = None;
    }
}

impl Download {
    /// How far it is.
    pub fn progress(&self) -> TransferProgress {
        self.meter.progress()
    }

    /// The host that it comes from.
    pub fn host(&self) -> &Endpoint {
        &self.context.host
    }

    /// How many bytes there are in all, where that is known.
    pub fn length(&self) -> Option<u64> {
        self.left.map(|(_, length)| length)
    }

    /// Writes all of it to a file, which is emptied before, and leaves holes where there are zeros.
    ///
    /// What is not a regular file is written in full from its position on.
    pub async fn save(mut self, file: File) -> Result<Saved, TransferError> {
        match sink::write(&mut self, file).await {
            Ok(saved) => Ok(saved),
            Err(Fault::Sink(error)) => Err(self.failed(TransferFailure::Sink(error))),
            Err(Fault::Source(error)) => match error.downcast::<TransferError>() {
                Ok(error) => Err(error),
                Err(error) => Err(self.failed(TransferFailure::Connection(error))),
            },
        }
    }

    /// An error of this transfer.
    fn failed(&self, reason: TransferFailure) -> TransferError {
        TransferError {
            direction: self.context.direction,
            object: self.context.object.clone(),
            host: Some(self.context.host.clone()),
            bytes: self.meter.progress().transferred,
            reason,
        }
    }

    /// Puts bytes into the buffer, which has room; none at the end.
    fn poll_bytes(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), TransferError>> {
        loop {
            match &mut self.state {
                State::Receiving(exchange) => {
                    let before = buffer.filled().len();
                    let failure = match read(exchange, self.left, context, buffer) {
                        Poll::Ready(Ok(())) => {
                            let count = (buffer.filled().len() - before) as u64;
                            if count > 0 {
                                self.note(count);
                                return Poll::Ready(Ok(()));
                            }
                            self.left.filter(|(left, _)| *left > 0).map(|(left, length)| {
                                let found = length - left;
                                TransferFailure::Truncated { found, expected: length }
                            })
                        }
                        Poll::Ready(Err(error)) => Some(TransferFailure::Connection(error)),
                        Poll::Pending => match ready!(self.wait(context)) {
                            None => None,
                            stalled => return self.leave(stalled),
                        },
                    };
                    self.quiet.end();
                    if failure.is_some() {
                        // The task knows better, but has no reason to go on for long.
                        self.quiet.patience = self.quiet.patience.min(GRACE);
                    }
                    self.meter.enter(Stage::Task);
                    self.state = State::Ending(failure);
                }
                State::Ending(_) => {
                    let stalled =
                        if self.outcome.is_some() { None } else { ready!(self.wait(context)) };
                    return self.leave(stalled);
                }
                State::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    fn note(&mut self, count: u64) {
        self.quiet.end();
        if let Some((left, _)) = &mut self.left {
            *left -= count;
        }
        self.meter.add(count, count);
    }

    /// Waits for the task: for its end, for which it gives nothing, unless it failed, or for so long that
    /// this is a failure.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Option<TransferFailure>> {
        let before = self.meter.progress().task;
        if let Some(watch) = &mut self.watch
            && let Poll::Ready(outcome) = watch.as_mut().poll(context)
        {
            self.watch = None;
            let failed = outcome.is_err();
            self.outcome = Some(outcome);
            if failed || matches!(self.state, State::Ending(_)) {
                return Poll::Ready(None);
            }
        }
        #[expect(clippy::float_cmp, reason = "it is the same number unless the task moved")]
        if self.meter.progress().task != before {
            self.quiet.end();
        }
        ready!(self.quiet.poll(context));
        let waiting = self.meter.stage();
        Poll::Ready(Some(TransferFailure::Stalled { after: self.quiet.patience, waiting }))
    }

    /// Decides how it ended, and lets the connection and the task go.
    fn leave(&mut self, stalled: Option<TransferFailure>) -> Poll<Result<(), TransferError>> {
        let broken = match mem::replace(&mut self.state, State::Over) {
            State::Ending(broken) => broken,
            State::Receiving(_) | State::Over => None,
        };
        self.watch = None;
        // What the task says is the cause; that the connection broke may only follow from it.
        let failure = match self.outcome.take() {
            Some(Err(error)) => Some(error.into()),
            Some(Ok(())) | None => broken.or(stalled),
        };
        let failure = failure.map(|failure| self.failed(failure));
        Poll::Ready(failure.map_or(Ok(()), Err))
    }

    /// The next bytes, as the stream has them.
    fn poll_chunk(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransferError>>> {
        let mut chunk = mem::take(&mut self.chunk);
        if chunk.len() < CHUNK / 4 {
            chunk = BytesMut::zeroed(CHUNK);
        }
        let mut buffer = ReadBuf::new(&mut chunk);
        let polled = self.poll_bytes(context, &mut buffer);
        let count = buffer.filled().len();
        let result = match polled {
            Poll::Ready(Ok(())) if count == 0 => Poll::Ready(None),
            Poll::Ready(Ok(())) => Poll::Ready(Some(Ok(chunk.split_to(count).freeze()))),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending => Poll::Pending,
        };
        self.chunk = chunk;
        result
    }
}

/// Reads no more than there is to be.
fn read(
    exchange: &mut Exchange<transport::Stream>,
    left: Option<(u64, u64)>,
    context: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let room = match left {
        Some((0, _)) => return Poll::Ready(Ok(())),
        Some((left, _)) => usize::try_from(left).unwrap_or(usize::MAX).min(buffer.remaining()),
        None => buffer.remaining(),
    };
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
    ready!(Pin::new(exchange).poll_read(context, &mut part))?;
    let count = part.filled().len();
    buffer.advance(count);
    Poll::Ready(Ok(()))
}

impl AsyncRead for Download {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.get_mut().poll_bytes(context, buffer).map_err(io::Error::other)
    }
}

impl Stream for Download {
    type Item = Result<Bytes, TransferError>;

    fn poll_next(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransferError>>> {
        self.get_mut().poll_chunk(context)
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("about", &self.context).finish_non_exhaustive()
    }
}
