//! How far a transfer is, and whether it still moves.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::{Stage, TransferFailure};

/// How far a transfer is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TransferProgress {
    /// Bytes that are through: of the source, where there is one, including the zeros that were skipped.
    pub done: u64,
    /// How many there will be, where that is known.
    pub total: Option<u64>,
    /// Bytes that went over the network.
    pub transferred: u64,
    /// What the server's task says of its own progress, from 0 to 1. For many transfers it says nothing
    /// until the end.
    pub task: f64,
}

/// What is called when there is progress.
pub(crate) type Report = Box<dyn FnMut(TransferProgress) + Send>;

/// Where a transfer's progress is kept and told of. Clones share it.
#[derive(Clone)]
pub(crate) struct Meter {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    progress: TransferProgress,
    report: Option<Report>,
    /// Counts everything that happens.
    changes: u64,
    stage: Stage,
}

impl Meter {
    pub(crate) fn new(total: Option<u64>, report: Option<Report>) -> Self {
        let progress = TransferProgress { total, ..TransferProgress::default() };
        Self { state: Arc::new(Mutex::new(State { progress, report, ..State::default() })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut TransferProgress)) {
        let mut state = self.state();
        state.changes += 1;
        change(&mut state.progress);
        let progress = state.progress;
        if let Some(report) = &mut state.report {
            report(progress);
        }
    }

    /// Notes bytes that are through and bytes that went over the network for them.
    pub(crate) fn add(&self, done: u64, transferred: u64) {
        self.change(|progress| {
            progress.done += done;
            progress.transferred += transferred;
        });
    }

    /// Notes what the task says, if it is something new.
    pub(crate) fn task(&self, task: f64) {
        let old = self.progress().task;
        if (task - old).abs() > f64::EPSILON {
            self.change(|progress| progress.task = task);
        }
    }

    pub(crate) fn enter(&self, stage: Stage) {
        let mut kept = self.state();
        if kept.stage != stage {
            kept.stage = stage;
            kept.changes += 1;
        }
    }

    pub(crate) fn progress(&self) -> TransferProgress {
        self.state().progress
    }

    pub(crate) fn stage(&self) -> Stage {
        self.state().stage
    }

    fn changes(&self) -> u64 {
        self.state().changes
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.progress().fmt(f)
    }
}

/// Waits for a part of a transfer for as long as anything moves at least this often.
pub(crate) async fn patiently<T>(
    meter: &Meter,
    patience: Duration,
    future: impl Future<Output = Result<T, TransferFailure>>,
) -> Result<T, TransferFailure> {
    let mut future = std::pin::pin!(future);
    let mut changes = meter.changes();
    loop {
        match timeout(patience, &mut future).await {
            Ok(result) => return result,
            Err(_) if meter.changes() != changes => changes = meter.changes(),
            Err(_) => {
                let waiting = meter.stage();
                return Err(TransferFailure::Stalled { after: patience, waiting });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn every_change_is_reported_and_a_task_that_says_the_same_again_is_none() {
        let reports = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&reports);
        let report: Report = Box::new(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        });
        let meter = Meter::new(Some(10), Some(report));
        meter.add(4, 4);
        meter.add(6, 0);
        meter.task(0.5);
        meter.task(0.5);
        let expected = TransferProgress { done: 10, total: Some(10), transferred: 4, task: 0.5 };
        assert_eq!(meter.progress(), expected);
        assert_eq!(reports.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_stops_moving_is_given_up_and_one_that_crawls_is_not() {
        let meter = Meter::new(None, None);
        let patience = Duration::from_secs(10);
        let crawl = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                meter.add(1, 1);
            }
            Ok(())
        };
        patiently(&meter, patience, crawl).await.unwrap();
        meter.enter(Stage::Sending);
        let stop = std::future::pending::<Result<(), TransferFailure>>();
        let error = patiently(&meter, patience, stop).await.unwrap_err();
        assert!(matches!(error, TransferFailure::Stalled { waiting: Stage::Sending, .. }));
    }
}
