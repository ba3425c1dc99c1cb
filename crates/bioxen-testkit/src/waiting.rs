//! Waiting, always with a deadline and never for a fixed time.

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen at once: long, since machines can be busy.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Pause between two looks at something that tells nobody when it changes, such as `/proc`.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until `condition` holds.
///
/// # Panics
///
/// When it does not within [`PATIENCE`]; `what` says in the message what was waited for.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(PAUSE);
    }
}

/// As [`wait_until`], for async code.
///
/// # Panics
///
/// As [`wait_until`].
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Runs a test's future to its end, on a runtime of its own.
///
/// # Panics
///
/// When it takes longer than twice [`PATIENCE`].
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be started");
    runtime
        .block_on(async { tokio::time::timeout(2 * PATIENCE, test).await })
        .unwrap_or_else(|_| panic!("the test took longer than {:?}", 2 * PATIENCE))
}
