//! Kills workers that run on after their limit, from outside.
//!
//! Embedded workers end themselves; this is behind that, and is all there is for interpreters of
//! another kind. One task serves a whole fleet and sleeps until the earliest deadline that it knew
//! of when it went to sleep. Deadlines come later and later as a rule, so that starting a run wakes
//! nobody and costs one entry in a map.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bioxen_core::EndedBy;
use bioxen_core::backend::Machine;
use tokio::sync::Notify;

/// A limit on processor time is looked at this often at most.
const SHORTEST_LOOK: Duration = Duration::from_millis(5);

/// Watches the runs of a fleet. Clones are handles on the same one.
#[derive(Clone, Default)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    earlier: Notify,
}

#[derive(Default)]
struct State {
    /// By the time to look at it, and a number that keeps equal times apart.
    watched: BTreeMap<(Instant, u64), Arc<Watched>>,
    next: u64,
    /// When the task will look next; `None` when there is no task.
    awake_at: Option<Instant>,
}

/// What is watched of a run.
pub(crate) struct Watched {
    machine: Arc<dyn Machine>,
    /// When to kill it, and why.
    kill_at: Mutex<Option<(Instant, EndedBy)>>,
    /// Its limit on processor time and what had been used before it, where that is watched here.
    cpu: Option<(Duration, Duration)>,
    killed_for: AtomicU8,
}

/// A run under watch. Dropping it ends the watch.
pub(crate) struct Watch {
    watchdog: Weak<Shared>,
    key: Option<(Instant, u64)>,
    watched: Arc<Watched>,
}

impl Watchdog {
    /// Watches a run: kills its machine at a time, or when it has used so much processor time.
    pub(crate) fn watch(
        &self,
        machine: Arc<dyn Machine>,
        kill_at: Option<Instant>,
        cpu: Option<(Duration, Duration)>,
    ) -> Watch {
        let kill_at = Mutex::new(kill_at.map(|at| (at, EndedBy::WallTime)));
        let watched = Arc::new(Watched { machine, kill_at, cpu, killed_for: AtomicU8::new(0) });
        let mut watch = Watch { watchdog: Arc::downgrade(&self.shared), key: None, watched };
        watch.enter();
        watch
    }
}

impl Watch {
    /// Kills the run's machine soon, unless it ends by itself: it is to end for this reason.
    pub(crate) fn kill_by(&mut self, at: Instant, reason: EndedBy) {
        self.leave();
        *lock(&self.watched.kill_at) = Some((at, reason));
        self.enter();
    }

    /// Kills the run's machine now.
    pub(crate) fn kill_now(&self, reason: EndedBy) {
        self.watched.kill(reason);
    }

    /// Ends the watch. Returns why the machine was killed from here, if it was: afterwards it is not.
    pub(crate) fn end(&mut self) -> Option<EndedBy> {
        self.leave();
        self.killed_for()
    }

    /// Why the machine was killed from here, if it was.
    pub(crate) fn killed_for(&self) -> Option<EndedBy> {
        match self.watched.killed_for.load(Ordering::SeqCst) {
            1 => Some(EndedBy::WallTime),
            2 => Some(EndedBy::CpuTime),
            3 => Some(EndedBy::Cancelled),
            _ => None,
        }
    }

    fn enter(&mut self) {
        let Some(shared) = self.watchdog.upgrade() else { return };
        let Some(at) = self.watched.next_look(Instant::now()) else { return };
        let mut state = lock(&shared.state);
        let key = (at, state.next);
        state.next += 1;
        state.watched.insert(key, Arc::clone(&self.watched));
        self.key = Some(key);
        match state.awake_at {
            Some(awake_at) if awake_at <= at => {}
            Some(_) => shared.earlier.notify_one(),
            None => {
                state.awake_at = Some(at);
                drop(state);
                tokio::spawn(keep_watch(shared));
            }
        }
    }

    fn leave(&mut self) {
        if let (Some(key), Some(shared)) = (self.key.take(), self.watchdog.upgrade()) {
            lock(&shared.state).watched.remove(&key);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Watched {
    /// When to look at it next; `None` when there is nothing to look for.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let cpu = self.cpu.map(|(limit, before)| {
            let used = self.machine.cpu_time().unwrap_or_default().saturating_sub(before);
            // One thread cannot use processor time faster than time passes.
            now + limit.saturating_sub(used).max(SHORTEST_LOOK)
        });
        let kill_at = lock(&self.kill_at).map(|(at, _)| at);
        [kill_at, cpu].into_iter().flatten().min()
    }

    /// Kills the machine if its time has come. Returns when to look again.
    fn look(&self, now: Instant) -> Option<Instant> {
        let over = self.cpu.is_some_and(|(limit, before)| {
            self.machine.cpu_time().unwrap_or_default().saturating_sub(before) >= limit
        });
        let due = lock(&self.kill_at).filter(|(at, _)| *at <= now);
        match (due, over) {
            (Some((_, reason)), _) => self.kill(reason),
            (None, true) => self.kill(EndedBy::CpuTime),
            (None, false) => return self.next_look(now),
        }
        None
    }

    fn kill(&self, reason: EndedBy) {
        let number = match reason {
            EndedBy::WallTime => 1,
            EndedBy::CpuTime => 2,
            _ => 3,
        };
        let _ = self.killed_for.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst);
        self.machine.kill();
    }
}

/// The watching task. Ends when there is nothing left to watch.
async fn keep_watch(shared: Arc<Shared>) {
    loop {
        let awake_at = {
            let now = Instant::now();
            let mut state = lock(&shared.state);
            let later = state.watched.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut state.watched, later);
            for ((_, number), watched) in due {
                if let Some(at) = watched.look(now) {
                    state.watched.insert((at, number), watched);
                }
            }
            let first = state.watched.first_key_value().map(|((at, _), _)| *at);
            state.awake_at = first;
            match first {
                Some(at) => at,
                None => return,
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(awake_at.into()) => {}
            () = shared.earlier.notified() => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bioxen_core::protocol::zygote::Exit;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counted {
        kills: AtomicUsize,
        cpu: Mutex<Duration>,
    }

    #[async_trait]
    impl Machine for Counted {
        fn process(&self) -> Option<u32> {
            None
        }
        fn kill(&self) {
            self.kills.fetch_add(1, Ordering::SeqCst);
        }
        async fn ended(&self) -> Option<Exit> {
            None
        }
        fn cpu_time(&self) -> Option<Duration> {
            Some(*lock(&self.cpu))
        }
    }

    fn after(milliseconds: u64) -> Instant {
        Instant::now() + Duration::from_millis(milliseconds)
    }

    async fn wait_for_kill(watch: &Watch) -> EndedBy {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(reason) = watch.killed_for() {
                return reason;
            }
            assert!(Instant::now() < deadline, "nothing was killed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_run_is_killed_when_its_time_is_up_and_not_when_it_has_ended() {
        let (watchdog, late, early) =
            (Watchdog::default(), Arc::new(Counted::default()), Arc::new(Counted::default()));
        let ended = watchdog.watch(early.clone(), Some(after(5)), None);
        drop(ended);
        let watch = watchdog.watch(late.clone(), Some(after(20)), None);
        assert_eq!(wait_for_kill(&watch).await, EndedBy::WallTime);
        assert_eq!(late.kills.load(Ordering::SeqCst), 1);
        assert_eq!(early.kills.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn an_earlier_deadline_is_noticed_by_a_task_that_sleeps_for_a_later_one() {
        let (watchdog, machine) = (Watchdog::default(), Arc::new(Counted::default()));
        let _late = watchdog.watch(machine.clone(), Some(after(60_000)), None);
        tokio::task::yield_now().await;
        let mut watch = watchdog.watch(machine, Some(after(60_000)), None);
        watch.kill_by(Instant::now(), EndedBy::Cancelled);
        assert_eq!(wait_for_kill(&watch).await, EndedBy::Cancelled);
    }

    #[tokio::test]
    async fn processor_time_is_counted_from_the_start_of_the_run() {
        let (watchdog, machine) = (Watchdog::default(), Arc::new(Counted::default()));
        *lock(&machine.cpu) = Duration::from_secs(5);
        let limits = Some((Duration::from_millis(10), Duration::from_secs(5)));
        let watch = watchdog.watch(machine.clone(), None, limits);
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(watch.killed_for(), None);
        *lock(&machine.cpu) = Duration::from_secs(6);
        assert_eq!(wait_for_kill(&watch).await, EndedBy::CpuTime);
    }
}
