//! Who hears what happens in a fleet.

use bioxen_core::Event;
use tokio::sync::broadcast;
use tracing::{debug, info, warn};

/// Events that a slow reader may be behind before it misses some.
const BACKLOG: usize = 4096;

#[derive(Clone)]
pub(crate) struct EventSender(broadcast::Sender<Event>);

impl EventSender {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    /// Tells an event to the log and to whoever listens. Never waits and never fails.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        let listened = self.0.receiver_count() > 0;
        if !listened && !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let event = event();
        log(&event);
        if listened {
            let _ = self.0.send(event);
        }
    }

    pub(crate) fn listen(&self) -> Events {
        Events(self.0.subscribe())
    }
}

fn log(event: &Event) {
    match event {
        Event::VmCreated { vm, backend, .. } => info!(%vm, %backend, "created"),
        Event::VmStarted { vm, .. } => info!(%vm, "started"),
        Event::RunStarted { vm, run, .. } => debug!(%vm, %run, "run started"),
        Event::RunEnded { record } => debug!(
            vm = %record.context.vm,
            run = %record.run,
            ended_by = %record.ending.ended_by,
            duration = ?record.duration,
            "run ended"
        ),
        Event::VmFailed { vm, reason, .. } => warn!(%vm, reason, "failed"),
        Event::VmStopped { vm, .. } => info!(%vm, "stopped"),
        Event::VmRemoved { vm, .. } => info!(%vm, "removed"),
        other => debug!(?other, "event"),
    }
}

/// The events of a fleet, from when [`Fleet::events`](crate::Fleet::events) was called.
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// The next event, or `None` when the fleet is gone.
    ///
    /// A reader that is thousands of events behind misses the oldest ones, which is logged.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    warn!(missed, "a reader of events is too slow");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
