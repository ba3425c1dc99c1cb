//! What all parts of a running pool share.

use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::database::Database;
use crate::driver::GuestDriver;
use crate::error::{ApiError, internal};
use crate::faults::{Faults, GuestFaults};
use crate::journal::Journal;
use crate::options::Options;
use crate::store::DiskStore;
use crate::value::Ref;

/// A running pool.
pub(crate) struct Inner {
    /// How it was asked to be.
    pub(crate) options: Options,
    /// Its time of day.
    pub(crate) clock: Clock,
    /// What runs in its VMs.
    pub(crate) driver: Arc<dyn GuestDriver>,
    /// Where its disks are.
    pub(crate) store: Arc<dyn DiskStore>,
    /// What is to go wrong with calls.
    pub(crate) faults: Faults,
    /// What is to go wrong with guests that boot.
    pub(crate) guest_faults: GuestFaults,
    /// The hosts, the master first, with the addresses that they are told by.
    pub(crate) hosts: Vec<HostPlace>,
    /// The pool's own object.
    pub(crate) pool: Ref,
    /// Tells connections which life of the toolstack it is; they end with it.
    pub(crate) epoch: watch::Sender<u64>,
    /// How long operations take, by method.
    pub(crate) latencies: Mutex<HashMap<String, Duration>>,
    /// Who may log in.
    pub(crate) users: RwLock<HashMap<String, User>>,
    db: RwLock<Database>,
    journal: Option<Journal>,
    changed: watch::Sender<u64>,
    /// Tasks that run, and how each is told to stop.
    cancels: Mutex<HashMap<Ref, watch::Sender<bool>>>,
    /// Tasks that run and are to vanish with their end.
    doomed: Mutex<HashSet<Ref>>,
    work: Mutex<JoinSet<()>>,
    boots: AtomicU64,
    tickets: AtomicU64,
    /// The present boot of each VM that runs.
    pub(crate) booted: Mutex<HashMap<Ref, u64>>,
    /// VMs whose guests are never heard of.
    pub(crate) mute: Mutex<HashSet<uuid::Uuid>>,
    /// Who waits for which object, in the order in which they came.
    pub(crate) queues: Mutex<HashMap<Ref, Vec<u64>>>,
}

/// A host of the pool, and where it listens.
#[derive(Clone, Debug)]
pub(crate) struct HostPlace {
    /// Its object.
    pub(crate) host: Ref,
    /// Its address, without a port.
    pub(crate) address: String,
}

/// Who may log in, with what and as what.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// The password.
    pub(crate) password: String,
    /// What the user may do.
    pub(crate) role: crate::options::Role,
}

/// What a pool is put together from.
pub(crate) struct Parts {
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) driver: Arc<dyn GuestDriver>,
    pub(crate) store: Arc<dyn DiskStore>,
    pub(crate) hosts: Vec<HostPlace>,
    pub(crate) pool: Ref,
    pub(crate) db: Database,
    pub(crate) journal: Option<Journal>,
}

impl Inner {
    /// A pool made of these parts.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { options, clock, driver, store, hosts, pool, db, journal } = parts;
        let faults = Faults::new(options.seed);
        let latencies = Mutex::new(options.latencies.clone());
        let mut users = HashMap::new();
        let root =
            User { password: options.password.clone(), role: crate::options::Role::PoolAdmin };
        users.insert("root".to_owned(), root);
        for (name, password, role) in &options.users {
            users.insert(name.clone(), User { password: password.clone(), role: *role });
        }
        Self {
            options,
            clock,
            driver,
            store,
            faults,
            guest_faults: GuestFaults::default(),
            hosts,
            pool,
            epoch: watch::Sender::new(0),
            latencies,
            users: RwLock::new(users),
            db: RwLock::new(db),
            journal,
            changed: watch::Sender::new(0),
            cancels: Mutex::default(),
            doomed: Mutex::default(),
            work: Mutex::default(),
            boots: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
            booted: Mutex::default(),
            mute: Mutex::default(),
            queues: Mutex::default(),
        }
    }

    /// The database, to read.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Database> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The database, to write. Whoever waits for changes is woken when the guard goes.
    pub(crate) fn write(&self) -> Writer<'_> {
        let db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        let before = (db.generation(), db.message_generation());
        Writer { inner: self, db, before }
    }

    /// Wakes whoever waits for changes.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Tells of each change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until `check` answers something, until the deadline.
    pub(crate) async fn wait_until<T>(
        &self,
        deadline: Instant,
        mut check: impl FnMut(&Database) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            let answer = check(&self.read());
            if answer.is_some() {
                return answer;
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }

    /// Runs something that the pool owns: it ends with the pool at the latest.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut set = lock(&self.work);
        while set.try_join_next().is_some() {}
        set.spawn(work);
    }

    /// Ends all work.
    pub(crate) fn abort_work(&self) {
        lock(&self.work).abort_all();
    }

    /// Ends all work; returns when it has ended, and nothing of it holds the pool any more.
    pub(crate) async fn end_work(&self) {
        let mut work = std::mem::take(&mut *lock(&self.work));
        work.shutdown().await;
    }

    /// The number of the next boot.
    pub(crate) fn next_boot(&self) -> u64 {
        self.boots.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A place in a queue.
    pub(crate) fn next_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes an operation one that can be cancelled; the receiver tells when it was.
    pub(crate) fn cancellable(&self, task: Ref) -> watch::Receiver<bool> {
        lock(&self.cancels).entry(task).or_insert_with(|| watch::Sender::new(false)).subscribe()
    }

    /// Asks for an operation's end; whether there is one that listens.
    pub(crate) fn cancel(&self, task: Ref) -> bool {
        lock(&self.cancels).get(&task).is_some_and(|sender| sender.send(true).is_ok())
    }

    /// Makes a running task vanish with its end; false when it does not run.
    pub(crate) fn doom(&self, task: Ref) -> bool {
        let runs = lock(&self.cancels).contains_key(&task);
        if runs {
            lock(&self.doomed).insert(task);
        }
        runs
    }

    /// Whether this task was to vanish with its end.
    pub(crate) fn take_doomed(&self, task: Ref) -> bool {
        lock(&self.doomed).remove(&task)
    }

    /// Forgets how to cancel an operation that has ended.
    pub(crate) fn forget_cancel(&self, task: Ref) {
        lock(&self.cancels).remove(&task);
    }

    /// How long this method takes.
    pub(crate) fn latency(&self, method: &str) -> Duration {
        let latencies = lock(&self.latencies);
        if latencies.is_empty() {
            return Duration::ZERO;
        }
        let class = method.split('.').next().unwrap_or_default();
        let found = latencies.get(method).or_else(|| latencies.get(&format!("{class}.*")));
        found.or_else(|| latencies.get("*")).copied().unwrap_or_default()
    }

    /// Waits until all that has happened outlives the machine, where the pool keeps its state.
    pub(crate) async fn kept(&self) -> Result<(), ApiError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        journal.flushed().await.map_err(|reason| {
            internal(format!("the pool's state cannot be kept any more: {reason}"))
        })
    }

    /// Writes down what changed, so that a restart finds it.
    fn record(&self, db: &mut Database) {
        let Some(journal) = &self.journal else { return };
        let touched = db.touched.as_mut().map(std::mem::take).unwrap_or_default();
        if !touched.is_empty() {
            journal.record(db, touched);
        }
    }
}

/// Locks, whatever became of whoever held the lock before.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The database, to write.
pub(crate) struct Writer<'a> {
    inner: &'a Inner,
    db: RwLockWriteGuard<'a, Database>,
    before: (u64, u64),
}

impl Deref for Writer<'_> {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.db
    }
}

impl DerefMut for Writer<'_> {
    fn deref_mut(&mut self) -> &mut Database {
        &mut self.db
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if (self.db.generation(), self.db.message_generation()) != self.before {
            self.inner.record(&mut self.db);
            self.inner.wake();
        }
    }
}
