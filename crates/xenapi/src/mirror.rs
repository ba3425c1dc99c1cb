//! A copy of some classes of a pool that is kept as it is there.
//!
//! ```text
//! server ──events──▶ Feed ──▶ driver ──▶ Tables ◀── lookups
//!                               └──wakes──▶ those who wait: for anything, or for one object
//! ```

mod builder;
mod changed;
mod inner;
mod tables;
mod view;
mod waiting;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

pub use builder::MirrorBuilder;
pub use changed::Changed;
pub use view::View;
pub use waiting::WaitError;

use crate::any::{Unwatchable, Watched};
use crate::client::Client;
use crate::error::Error;
use crate::generated::class::Class;
use crate::wire::Ref;
use inner::Inner;

/// An always current, typed copy of chosen classes. Clones share it, and it ends with the last of them.
///
/// It is filled from the server once and then kept by events: nothing is asked for while nothing changes.
/// Records are shared and never changed in place: one that was looked up stays what it was.
///
/// ```no_run
/// use std::time::Duration;
///
/// use xenapi::class::{self, Class};
/// use xenapi::enums::VmPowerState;
/// use xenapi::{Client, Mirror};
///
/// # async fn example(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mirror = Mirror::start(client, [Class::Vm, Class::VmGuestMetrics])?;
/// mirror.ready(Duration::from_secs(60)).await?;
/// for (vm, record) in mirror.by_name::<class::Vm>("assembler") {
///     client.vm().start(&vm, false, false).await?;
///     let running = mirror.wait_for(&vm, "the VM to run", Duration::from_secs(60), |record| {
///         (record?.power_state == VmPowerState::Running).then_some(())
///     });
///     running.await?;
///     println!("{} runs", record.name_label);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Mirror {
    client: Client,
    inner: Arc<Inner>,
    _driver: Arc<Driver>,
}

/// The task that follows events. It ends when this is dropped.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a mirror stands to what it shows.
#[derive(Clone, Debug)]
pub enum State {
    /// It has not been filled yet.
    Filling {
        /// When it began.
        since: Instant,
        /// What went wrong last, if anything did.
        error: Option<Arc<Error>>,
    },
    /// It shows what was there when the server last answered, and waits for what happens next.
    InStep {
        /// Since when.
        since: Instant,
    },
    /// It shows what was there before; catching up is being tried.
    Behind {
        /// Since when.
        since: Instant,
        /// What went wrong, if it was no event that was missed.
        error: Option<Arc<Error>>,
    },
    /// It shows what was there before, and will not be brought up to date again.
    Ended {
        /// Why.
        error: Arc<Error>,
    },
}

impl Mirror {
    /// Starts to mirror these classes, and the pool, which is how [`Mirror::barrier`] works.
    ///
    /// # Panics
    ///
    /// If called outside a Tokio runtime.
    pub fn start(
        client: &Client,
        classes: impl IntoIterator<Item = Class>,
    ) -> Result<Self, Unwatchable> {
        Ok(Self::builder(client, classes)?.start())
    }

    /// What to mirror, to say more about it before it starts.
    pub fn builder(
        client: &Client,
        classes: impl IntoIterator<Item = Class>,
    ) -> Result<MirrorBuilder, Unwatchable> {
        MirrorBuilder::new(client, classes)
    }

    /// The classes that it has, in the order of their names.
    pub fn classes(&self) -> &[Class] {
        self.inner.classes()
    }

    /// Whether it is up to date, and since when.
    pub fn state(&self) -> State {
        self.inner.status().state.clone()
    }

    /// Looks at several things at one moment. Changes have to wait until the view is dropped, so it is for a
    /// few lines.
    pub fn view(&self) -> View<'_> {
        View::new(self.inner.tables())
    }

    /// The record of an object; none if it is not there, or its class is not mirrored.
    pub fn get<T: Watched>(&self, reference: &Ref<T>) -> Option<Arc<T::Record>> {
        self.view().get(reference).cloned()
    }

    /// The object with this UUID.
    pub fn by_uuid<T: Watched>(&self, uuid: &str) -> Option<(Ref<T>, Arc<T::Record>)> {
        self.view().by_uuid(uuid).map(|(reference, record)| (reference, Arc::clone(record)))
    }

    /// All objects with this name: names are not unique.
    pub fn by_name<T: Watched>(&self, name: &str) -> Vec<(Ref<T>, Arc<T::Record>)> {
        let view = self.view();
        let found = view.by_name(name);
        found.map(|(reference, record)| (reference, Arc::clone(record))).collect()
    }

    /// All objects of a class as they are at one moment, in no order. Records are shared, not copied.
    pub fn snapshot<T: Watched>(&self) -> Vec<(Ref<T>, Arc<T::Record>)> {
        let view = self.view();
        view.iter().map(|(reference, record)| (reference, Arc::clone(record))).collect()
    }

    /// What changes from now on: a stream of objects with their records.
    pub fn changed(&self) -> Changed {
        Changed::new(self)
    }

    /// Waits until it has been filled.
    pub async fn ready(&self, limit: Duration) -> Result<(), WaitError> {
        self.wait_until("the mirror to be filled", limit, |_| Some(())).await
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("classes", &self.classes())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
