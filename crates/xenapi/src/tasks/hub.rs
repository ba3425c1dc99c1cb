//! Follows the tasks of a client, and destroys the rows that are not needed any more. Those that shall not go
//! on without their handles are cancelled before.
//!
//! One task of the runtime does both while there is something to do, and ends by itself: destroying the last
//! row is an event, which ends the request that waits for events. Only task events are asked for, which
//! servers tell without the delay that they have for others.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::has_ended;
use crate::any::AnyRecord;
use crate::client::Client;
use crate::error::Error;
use crate::events::{Change, Feed, News};
use crate::generated::class::Class;
use crate::generated::{class, task};
use crate::wire::Ref;

/// How many rows may wait to be destroyed. Servers collect old ones themselves.
const ROWS: usize = 4096;
/// How many rows are destroyed at one time.
const AT_ONCE: usize = 4;
/// How long destroying one may take.
const DESTROY: Duration = Duration::from_secs(10);
/// How long cancelling one before may take.
const CANCEL: Duration = Duration::from_secs(5);
/// How long the last request may wait for events that nobody needs.
const LINGER: Duration = Duration::from_secs(5);
/// How long a client that is closed waits for rows to be destroyed.
const CLEAN: Duration = Duration::from_secs(5);

/// What is known of a task.
#[derive(Clone, Debug)]
pub(crate) enum Sight {
    /// Nothing yet.
    Unseen,
    /// What was told last.
    Seen(Arc<task::Record>),
    /// Its row is gone, and it had not ended before.
    Gone,
    /// Nothing more will be told.
    Lost(Arc<Error>),
}

/// What becomes of a task when its last handle goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// It goes on, and its row stays.
    Release,
    /// It goes on, and its row is destroyed.
    Destroy,
    /// It is cancelled, unless it is known to have ended, and its row is destroyed.
    Cancel,
}

/// The tasks that a client has handles of. All clones of it share this.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// There is something to do, or nothing any more.
    woken: Notify,
    cleaned: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Somebody does what there is to do.
    is_driven: bool,
    /// All tasks that the server told of: one may end before its handle is made.
    known: HashMap<Ref<class::Task>, Arc<task::Record>>,
    followed: HashMap<Ref<class::Task>, Followed>,
    /// To be destroyed.
    rows: VecDeque<Row>,
    destroying: usize,
}

/// A row that nobody needs any more.
#[derive(Debug)]
struct Row {
    task: Ref<class::Task>,
    /// The task is to be cancelled before.
    cancel: bool,
}

#[derive(Debug)]
struct Followed {
    sight: watch::Sender<Sight>,
    handles: usize,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a task until [`Hub::leave`] is called as often.
    pub(super) fn follow(
        self: &Arc<Self>,
        client: &Client,
        task: &Ref<class::Task>,
    ) -> watch::Receiver<Sight> {
        let mut state = self.state();
        let known = state.known.get(task).cloned();
        let followed = state.followed.entry(task.clone()).or_insert_with(|| Followed {
            sight: watch::Sender::new(known.map_or(Sight::Unseen, Sight::Seen)),
            handles: 0,
        });
        followed.handles += 1;
        let sight = followed.sight.subscribe();
        if !std::mem::replace(&mut state.is_driven, true) {
            let driver =
                Driver { client: client.clone(), hub: Arc::clone(self), has_retired: false };
            // It owns itself: it ends soon after the last handle, or with the runtime.
            tokio::spawn(driver.run());
        }
        drop(state);
        self.woken.notify_one();
        sight
    }

    /// Gives up a handle. What that means for the task is up to its last one.
    pub(super) fn leave(&self, task: &Ref<class::Task>, parting: Parting) {
        let mut state = self.state();
        if let Some(followed) = state.followed.get_mut(task) {
            followed.handles -= 1;
            let (is_gone, is_over) = match &*followed.sight.borrow() {
                Sight::Gone => (true, true),
                Sight::Seen(record) => (false, has_ended(record)),
                Sight::Unseen | Sight::Lost(_) => (false, false),
            };
            if followed.handles == 0 {
                state.followed.remove(task);
                if parting != Parting::Release && !is_gone {
                    let cancel = parting == Parting::Cancel && !is_over;
                    state.discard(Row { task: task.clone(), cancel });
                }
            }
        }
        drop(state);
        self.woken.notify_one();
    }

    /// Tells the handles of a task what is known of it. What has ended does not change any more.
    pub(super) fn tell(&self, task: &Ref<class::Task>, sight: Sight) {
        if let Some(followed) = self.state().followed.get(task) {
            followed.tell(sight);
        }
    }

    /// Waits until all rows that are not needed have been destroyed, but not for long.
    pub(crate) async fn clean(&self) {
        let cleaned = async {
            loop {
                let cleaned = self.cleaned.notified();
                if self.state().is_clean() {
                    return;
                }
                cleaned.await;
            }
        };
        if timeout(CLEAN, cleaned).await.is_err() {
            debug!("left rows of tasks on the server");
        }
    }

    fn take_in(&self, changes: Vec<Change>) {
        let mut state = self.state();
        for change in changes {
            match change {
                Change::Added(object, AnyRecord::Task(record))
                | Change::Changed(object, AnyRecord::Task(record)) => {
                    let Some(task) = object.of::<class::Task>() else { continue };
                    if let Some(followed) = state.followed.get(&task) {
                        followed.tell(Sight::Seen(Arc::clone(&record)));
                    }
                    state.known.insert(task, record);
                }
                Change::Removed(object) => {
                    let Some(task) = object.of::<class::Task>() else { continue };
                    state.known.remove(&task);
                    if let Some(followed) = state.followed.get(&task) {
                        followed.tell(Sight::Gone);
                    }
                }
                // Other classes were not asked for.
                Change::Added(..) | Change::Changed(..) | Change::Replayed => {}
            }
        }
    }

    /// Nothing more will be told to those who have handles now.
    fn lose(&self, error: &Arc<Error>) {
        let mut state = self.state();
        state.known.clear();
        for followed in state.followed.values() {
            followed.tell(Sight::Lost(Arc::clone(error)));
        }
    }

    /// Ends being driven, if there is nothing to do.
    fn retire(&self) -> bool {
        let mut state = self.state();
        let idle = state.is_idle();
        if idle {
            state.is_driven = false;
            state.known.clear();
        }
        idle
    }

    fn take_row(&self) -> Option<Row> {
        let mut state = self.state();
        if state.destroying >= AT_ONCE {
            return None;
        }
        let row = state.rows.pop_front()?;
        state.destroying += 1;
        Some(row)
    }

    fn destroyed(&self) {
        let mut state = self.state();
        state.destroying -= 1;
        if state.is_clean() {
            self.cleaned.notify_waiters();
        }
    }

    /// Somebody waits for more than has been lost already.
    fn is_followed(&self) -> bool {
        let state = self.state();
        state.followed.values().any(|followed| !matches!(*followed.sight.borrow(), Sight::Lost(_)))
    }
}

impl State {
    fn is_clean(&self) -> bool {
        self.rows.is_empty() && self.destroying == 0
    }

    fn is_idle(&self) -> bool {
        self.is_clean() && self.followed.is_empty()
    }

    fn discard(&mut self, row: Row) {
        if !self.is_driven {
            debug!(task = %row.task, "the runtime is gone, so the server has to collect its row");
            return;
        }
        if self.rows.len() == ROWS
            && let Some(oldest) = self.rows.pop_front()
        {
            warn!(task = %oldest.task, "too many rows to destroy, so the server has to collect one");
        }
        self.rows.push_back(row);
    }
}

impl Followed {
    fn tell(&self, sight: Sight) {
        self.sight.send_if_modified(|current| {
            let is_over = match current {
                Sight::Seen(record) => has_ended(record),
                Sight::Gone | Sight::Lost(_) => true,
                Sight::Unseen => false,
            };
            if !is_over {
                *current = sight;
            }
            !is_over
        });
    }
}

/// Does what there is to do for a hub.
struct Driver {
    client: Client,
    hub: Arc<Hub>,
    has_retired: bool,
}

type Asking = Pin<Box<dyn Future<Output = (Feed, Result<News, Arc<Error>>)> + Send>>;

fn ask(mut feed: Feed) -> Asking {
    Box::pin(async move {
        let news = feed.next().await;
        (feed, news)
    })
}

impl Driver {
    async fn run(mut self) {
        let mut asking: Option<Asking> = None;
        let mut destroying = JoinSet::new();
        let mut idle_since = None;
        loop {
            while let Some(row) = self.hub.take_row() {
                destroying.spawn(destroy(self.client.clone(), Arc::clone(&self.hub), row));
            }
            if asking.is_none() {
                if self.hub.retire() {
                    // From here on there may be another driver.
                    self.has_retired = true;
                    return;
                }
                if self.hub.is_followed() {
                    asking = Some(ask(Feed::new(&self.client, &[Class::Task])));
                }
            }
            if self.hub.state().is_idle() {
                idle_since.get_or_insert_with(Instant::now);
            } else {
                idle_since = None;
            }
            let enough = idle_since.unwrap_or_else(Instant::now) + LINGER;
            tokio::select! {
                (feed, news) = answer(&mut asking) => asking = self.take_in(feed, news),
                _ = destroying.join_next(), if !destroying.is_empty() => {}
                () = self.hub.woken.notified() => {}
                () = sleep_until(enough), if idle_since.is_some() => asking = None,
            }
        }
    }

    /// What to ask next, if anything.
    fn take_in(&self, feed: Feed, news: Result<News, Arc<Error>>) -> Option<Asking> {
        match news {
            Ok(News::Batch(applied)) => self.hub.take_in(applied.changes),
            Ok(News::Trouble(_)) => {}
            Err(error) => {
                self.hub.lose(&error);
                return None;
            }
        }
        (!self.hub.state().is_idle()).then(|| ask(feed))
    }
}

async fn answer(asking: &mut Option<Asking>) -> (Feed, Result<News, Arc<Error>>) {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

async fn destroy(client: Client, hub: Arc<Hub>, Row { task, cancel }: Row) {
    let _done = Done(hub);
    if cancel && let Err(error) = client.task().cancel(&task).timeout(CANCEL).await {
        // It may have ended meanwhile, or be of the kind that nothing interrupts.
        debug!(%task, %error, "could not cancel a task");
    }
    if let Err(error) = client.task().destroy(&task).timeout(DESTROY).await
        && error.code() != Some("HANDLE_INVALID")
    {
        debug!(%task, %error, "could not destroy the row of a task");
    }
}

/// Counts a row as done, however that ended.
struct Done(Arc<Hub>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.destroyed();
    }
}

/// A runtime that ends takes the driver with it.
impl Drop for Driver {
    fn drop(&mut self) {
        if self.has_retired {
            return;
        }
        let mut state = self.hub.state();
        state.is_driven = false;
        state.rows.clear();
        drop(state);
        self.hub.cleaned.notify_waiters();
    }
}
