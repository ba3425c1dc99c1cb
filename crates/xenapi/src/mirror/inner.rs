//! What a mirror and those who wait on it share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::Instant;

use tokio::sync::watch;

use super::State;
use super::changed::Queue;
use super::tables::Tables;
use crate::any::AnyRef;
use crate::error::Error;
use crate::events::{Applied, Feed, News};
use crate::generated::class::Class;

/// The tables, what is known about them, and who wants to know of changes.
#[derive(Debug)]
pub(super) struct Inner {
    classes: Vec<Class>,
    tables: RwLock<Tables>,
    status: watch::Sender<Status>,
    /// Those who wait for one object.
    waiting: Mutex<HashMap<AnyRef, watch::Sender<()>>>,
    queues: Mutex<Vec<Weak<Queue>>>,
}

/// What is known about the tables as they are.
#[derive(Clone, Debug)]
pub(super) struct Status {
    pub(super) state: State,
    /// Rises with every change.
    pub(super) version: u64,
    /// Up to where events have been taken in.
    pub(super) token: String,
    /// How often everything was told anew.
    pub(super) fillings: u64,
}

impl Status {
    pub(super) fn is_filled(&self) -> bool {
        self.fillings > 0
    }
}

/// Keeps the tables up to date until that is not possible any more.
pub(super) async fn drive(inner: Arc<Inner>, mut feed: Feed) {
    loop {
        match feed.next().await {
            Ok(News::Batch(applied)) => inner.apply(applied),
            Ok(News::Trouble(error)) => inner.fall_behind(Some(error)),
            Err(error) => {
                inner.end(&error);
                return;
            }
        }
    }
}

impl Inner {
    pub(super) fn new(tables: Tables, classes: Vec<Class>) -> Self {
        let status = Status {
            state: State::Filling { since: Instant::now(), error: None },
            version: 0,
            token: String::new(),
            fillings: 0,
        };
        Self {
            classes,
            tables: RwLock::new(tables),
            status: watch::Sender::new(status),
            waiting: Mutex::default(),
            queues: Mutex::default(),
        }
    }

    pub(super) fn classes(&self) -> &[Class] {
        &self.classes
    }

    pub(super) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> watch::Ref<'_, Status> {
        self.status.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Wakes when this object changes.
    pub(super) fn subscribe_to(&self, object: AnyRef) -> watch::Receiver<()> {
        self.waiting().entry(object).or_default().subscribe()
    }

    pub(super) fn add_queue(&self, queue: &Arc<Queue>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(queue));
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<AnyRef, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, applied: Applied) {
        let Applied { changes, in_step, anew, token } = applied;
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let changed: Vec<AnyRef> =
            changes.into_iter().filter_map(|change| tables.apply(change)).collect();
        drop(tables);
        self.status.send_if_modified(|status| {
            let news = !changed.is_empty() || anew || status.token != token;
            let news = news || in_step != matches!(status.state, State::InStep { .. });
            if !changed.is_empty() || anew {
                status.version += 1;
            }
            status.fillings += u64::from(anew);
            status.token = token;
            status.step(in_step, None);
            news
        });
        self.tell(&changed);
    }

    fn tell(&self, changed: &[AnyRef]) {
        let mut waiting = self.waiting();
        if !waiting.is_empty() {
            waiting.retain(|_, sender| sender.receiver_count() > 0);
            for sender in changed.iter().filter_map(|object| waiting.get(object)) {
                sender.send_replace(());
            }
        }
        drop(waiting);
        for queue in &*self.queues.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Some(queue) = queue.upgrade() {
                queue.add(changed);
            }
        }
    }

    fn fall_behind(&self, error: Option<Arc<Error>>) {
        self.status.send_modify(|status| status.step(false, error));
    }

    fn end(&self, error: &Arc<Error>) {
        self.status.send_modify(|status| status.state = State::Ended { error: Arc::clone(error) });
        for queue in &*self.queues.lock().unwrap_or_else(PoisonError::into_inner) {
            if let Some(queue) = queue.upgrade() {
                queue.end();
            }
        }
    }
}

impl Status {
    /// Moves on to being in step or behind; what lasts keeps its beginning.
    fn step(&mut self, in_step: bool, error: Option<Arc<Error>>) {
        let now = Instant::now();
        let filled = self.is_filled();
        self.state = match (&self.state, in_step) {
            (State::InStep { .. }, true) | (State::Ended { .. }, _) => return,
            (_, true) => State::InStep { since: now },
            (State::Filling { since, .. }, false) if !filled => {
                State::Filling { since: *since, error }
            }
            (State::Behind { since, .. }, false) => State::Behind { since: *since, error },
            (_, false) => State::Behind { since: now, error },
        };
    }
}
