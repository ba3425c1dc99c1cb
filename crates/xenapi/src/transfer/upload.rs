//! Sending bytes into a handler, and learning from its task whether they arrived.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tracing::debug;

use super::place::refused;
use super::verdict::{GRACE, begin, ended, explain};
use super::{
    Ask, Block, Direction, Exchange, Meter, Opened, Piece, Source, Stage, Target, TransferError,
    TransferFailure, frames, open, patiently,
};
use crate::client::Client;
use crate::tasks::{Task, TaskError};
use crate::transport::{Endpoint, Stream};
use crate::wire::FromWire;

/// How long the answer is waited for before bytes are sent without it.
const EARLY: Duration = Duration::from_secs(10);

/// What holes are sent as, where they cannot be left out.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];

/// How a source goes over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Whole,
    /// In frames, without its zeros.
    Frames,
}

impl Form {
    /// The length to announce.
    pub(crate) fn length(self, source: &Source) -> u64 {
        match self {
            Self::Whole => source.length(),
            Self::Frames => frames::longest(source.length()),
        }
    }

    /// Sends all of the source.
    pub(crate) async fn send(
        self,
        mut to: impl AsyncWrite + Unpin,
        source: &mut Source,
        meter: &Meter,
    ) -> Result<(), TransferFailure> {
        loop {
            meter.enter(Stage::Source);
            let Some(piece) = source.next().await? else { break };
            meter.enter(Stage::Sending);
            let sent = match (self, piece) {
                (Self::Whole, Piece::Data(block)) => whole(&mut to, block.data(), meter).await,
                (Self::Whole, Piece::Hole(length)) => zeros(&mut to, length, meter).await,
                (Self::Frames, Piece::Data(block)) => framed(&mut to, block, meter).await,
                (Self::Frames, Piece::Hole(length)) => {
                    meter.add(length, 0);
                    Ok(())
                }
            };
            sent.map_err(TransferFailure::Connection)?;
        }
        meter.enter(Stage::Sending);
        if self == Self::Frames {
            to.write_all(&frames::END).await.map_err(TransferFailure::Connection)?;
            meter.add(0, frames::END.len() as u64);
        }
        to.flush().await.map_err(TransferFailure::Connection)
    }
}

async fn whole(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], meter: &Meter) -> io::Result<()> {
    to.write_all(bytes).await?;
    meter.add(bytes.len() as u64, bytes.len() as u64);
    Ok(())
}

async fn zeros(
    to: &mut (impl AsyncWrite + Unpin),
    mut length: u64,
    meter: &Meter,
) -> io::Result<()> {
    while length > 0 {
        let count = usize::try_from(length).unwrap_or(ZEROS.len()).min(ZEROS.len());
        whole(to, &ZEROS[..count], meter).await?;
        length -= count as u64;
    }
    Ok(())
}

async fn framed(
    to: &mut (impl AsyncWrite + Unpin),
    block: &mut Block,
    meter: &Meter,
) -> io::Result<()> {
    let (mut place, mut sent) = (0, 0);
    while let Some((frame, resume)) = frames::next(block, place) {
        to.write_all(frame).await?;
        sent += frame.len() as u64;
        place = resume;
    }
    meter.add(block.data().len() as u64, sent);
    Ok(())
}

/// An upload that has not begun.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    pub(crate) client: &'a Client,
    pub(crate) direction: Direction,
    pub(crate) object: &'a str,
    pub(crate) hosts: &'a [Endpoint],
    pub(crate) target: Target,
    pub(crate) form: Form,
    pub(crate) patience: Duration,
    pub(crate) meter: &'a Meter,
}

impl Upload<'_> {
    /// Sends the source, and gives the result of the task once it has succeeded.
    pub(crate) async fn run<R: FromWire>(self, source: &mut Source) -> Result<R, TransferError> {
        let mut host = None;
        let result = self.upload(source, &mut host).await;
        result.map_err(|reason| TransferError {
            direction: self.direction,
            object: self.object.to_owned(),
            host,
            bytes: self.meter.progress().transferred,
            reason,
        })
    }

    async fn upload<R: FromWire>(
        &self,
        source: &mut Source,
        host: &mut Option<Endpoint>,
    ) -> Result<R, TransferFailure> {
        let mut task = begin(self.client, self.direction, self.object).await?;
        match self.exchange(source, host, &mut task).await {
            Ok(result) => Ok(result),
            Err(failure) => Err(explain(failure, &task).await),
        }
    }

    async fn exchange<R: FromWire>(
        &self,
        source: &mut Source,
        host: &mut Option<Endpoint>,
        task: &mut Task<R>,
    ) -> Result<R, TransferFailure> {
        let target = self.target.clone().with("task_id", &task.reference().to_string());
        let ask = Ask::put(&target, self.form.length(source));
        let early = EARLY.min(self.patience / 2);
        let way = open(self.client, self.hosts, &ask, Some(early), host);
        let opened = patiently(self.meter, self.patience, way).await?;
        patiently(self.meter, self.patience, self.send(opened, source, task)).await
    }

    /// Sends, and watches the task meanwhile: it can fail long before all is sent.
    async fn send<R: FromWire>(
        &self,
        opened: Opened,
        source: &mut Source,
        task: &mut Task<R>,
    ) -> Result<R, TransferFailure> {
        let Opened { mut exchange, host, answer } = opened;
        let mut finished = std::pin::pin!(ended(task, self.meter));
        let sent = tokio::select! {
            biased;
            sent = self.form.send(&mut exchange, source, self.meter) => sent,
            result = &mut finished => {
                return Err(result.err().map_or(TransferFailure::EndedEarly, Into::into));
            }
        };
        if let Err(failure) = sent {
            debug!(%host, %failure, "the upload broke off");
            // The task knows better why the server does not listen any more.
            let grace = GRACE.min(self.patience);
            if let TransferFailure::Connection(_) = failure
                && let Ok(Err(error)) = timeout(grace, finished).await
                && is_verdict(&error)
            {
                return Err(error.into());
            }
            return Err(failure);
        }
        self.meter.enter(Stage::Task);
        // The connection stays until the task has ended: closing it could cut what is under way.
        if answer.is_none() {
            tokio::select! {
                biased;
                result = &mut finished => return Ok(result?),
                refusal = refusal(&mut exchange) => refusal?,
            }
        }
        Ok(finished.await?)
    }
}

/// Reads an answer that did not come at once. That it does not come at all means nothing.
async fn refusal(exchange: &mut Exchange<Stream>) -> Result<(), TransferFailure> {
    match exchange.answer().await {
        Ok(answer) if !answer.is_success() => Err(refused(exchange, &answer).await),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether the server said how the task ended.
fn is_verdict(error: &TaskError) -> bool {
    match error {
        TaskError::Failed { .. } | TaskError::Cancelled { .. } | TaskError::Vanished { .. } => true,
        TaskError::Protocol { .. } | TaskError::Timeout { .. } | TaskError::Lost { .. } => false,
    }
}
