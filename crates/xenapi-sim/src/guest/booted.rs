//! One booted guest: what its tasks share.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::fault::GuestFault;
use super::files::Files;
use super::sandbox::Entry;
use super::ssh::Gate;
use crate::driver::{Ended, Machine};

/// A guest from its boot to its end.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) machine: Machine,
    pub(super) files: Files,
    pub(super) entry: Entry,
    pub(super) gate: watch::Sender<Gate>,
    /// What is done for this guest: ends with it.
    pub(super) tasks: Tasks,
    /// Where the guest asks for its own end.
    pub(super) asks: mpsc::Sender<Ended>,
    pub(super) faults: BTreeSet<GuestFault>,
}

impl Guest {
    pub(super) fn has(&self, fault: GuestFault) -> bool {
        self.faults.contains(&fault)
    }
}

/// Tasks that end together.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    running: Mutex<JoinSet<()>>,
}

impl Tasks {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while running.try_join_next().is_some() {}
        running.spawn(task);
    }

    /// Ends all of them, some time soon.
    pub(super) fn abort(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// Ends all of them; returns when they have ended.
    pub(super) async fn end(&self) {
        let mut running =
            std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        running.shutdown().await;
    }
}
