//! A pool that a controller works with: one session, one copy of what is there, and care not to ask
//! for too much at once.
//!
//! There is one of these per pool and controller. Nothing is polled: the [`Mirror`] is kept by events,
//! and what is waited for is waited for there.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bioxen_core::CallHomeAddress;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use uuid::Uuid;
use xenapi::class::{self, Class};
use xenapi::{Client, Mirror, Ref};

use crate::call_home::{Expected, Listener};
use crate::guest_settings::{GuestSettings, Jump};
use crate::pool::{PoolError, PoolName, PoolSettings};
use crate::ssh::{Connection, SshError, Target};

/// How long a pool may take to tell what it holds.
const FILLED_WITHIN: Duration = Duration::from_mins(2);

/// How much is asked of a pool at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Care {
    /// Clones and copies on one storage repository.
    pub clones_per_storage: usize,
    /// Starts, shutdowns, suspensions and migrations in progress.
    pub power_operations: usize,
    /// The least time between the beginnings of two of those.
    pub between_power_operations: Duration,
}

impl Default for Care {
    /// 4 clones per storage, 16 power operations, 50 of them a second.
    fn default() -> Self {
        Self {
            clones_per_storage: 4,
            power_operations: 16,
            between_power_operations: Duration::from_millis(20),
        }
    }
}

/// A pool that a controller has logged in to.
pub struct ConnectedPool {
    name: PoolName,
    client: Client,
    mirror: Mirror,
    owner: Uuid,
    care: Care,
    guests: GuestSettings,
    /// The addresses on networks that were given to VMs of attempts.
    given: Mutex<HashMap<(String, IpAddr), Uuid>>,
    /// Where calls of guests are heard, while any is expected.
    listeners: tokio::sync::Mutex<HashMap<CallHomeAddress, Weak<Listener>>>,
    /// The host and port of its server.
    server: (String, u16),
    /// The connection to the host by way of which guests are reached, once there is one.
    way: tokio::sync::Mutex<Option<Connection>>,
    storages: Mutex<HashMap<Ref<class::Sr>, Arc<Semaphore>>>,
    power: Arc<Semaphore>,
    /// When the next power operation may begin.
    next_power: Mutex<Instant>,
    /// How many machines are being made or unmade.
    making: Arc<watch::Sender<usize>>,
}

/// A machine is being made or unmade, until this is dropped.
pub(crate) struct Busy(Arc<watch::Sender<usize>>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Leave to ask something of a pool, until it is dropped.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Permit(#[expect(dead_code, reason = "it is held, not read")] OwnedSemaphorePermit);

impl ConnectedPool {
    /// Connects, logs in and learns what the pool holds. What this controller makes carries `owner`.
    pub async fn open(
        settings: &PoolSettings,
        owner: Uuid,
        care: Care,
    ) -> Result<Arc<Self>, PoolError> {
        let client = settings.connect().await?;
        let pool = settings.name.clone();
        let mirror = mirror(&client);
        if let Err(source) = mirror.ready(FILLED_WITHIN).await {
            return Err(PoolError::Mirror { pool, source: Box::new(source) });
        }
        Ok(Arc::new(Self {
            name: pool,
            client,
            mirror,
            owner,
            care,
            guests: settings.guests.clone(),
            given: Mutex::default(),
            listeners: tokio::sync::Mutex::default(),
            server: (settings.addresses[0].host().to_owned(), settings.addresses[0].port()),
            way: tokio::sync::Mutex::default(),
            storages: Mutex::default(),
            power: Arc::new(Semaphore::new(care.power_operations.max(1))),
            next_power: Mutex::new(Instant::now()),
            making: Arc::new(watch::Sender::new(0)),
        }))
    }

    /// Its name here.
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// Its session.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What it holds: VMs with their metrics, disks and interfaces, networks, storage and hosts.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Which installation owns what is made here.
    pub fn owner(&self) -> Uuid {
        self.owner
    }

    /// What is declared of the guests of its VMs.
    pub fn guests(&self) -> &GuestSettings {
        &self.guests
    }

    /// Expects a guest to call; all calls to one address are heard by one listener.
    pub(crate) async fn expect_call(&self, at: CallHomeAddress) -> io::Result<Expected> {
        let mut listeners = self.listeners.lock().await;
        if let Some(listener) = listeners.get(&at).and_then(Weak::upgrade) {
            return Ok(listener.expect());
        }
        let (host, port) = &self.server;
        let listener = Listener::open(at, (host.as_str(), *port)).await?;
        listeners.insert(at, Arc::downgrade(&listener));
        Ok(listener.expect())
    }

    /// Connects to a guest, by way of the pool's jump host where there is one: all go over one connection to
    /// that.
    pub async fn enter(&self, target: &Target) -> Result<Connection, SshError> {
        match &self.guests.jump {
            None => Connection::open(target).await,
            Some(jump) => {
                let way = self.way(jump).await;
                let way = way.map_err(|source| SshError::Jump { source: Box::new(source) })?;
                Connection::open_through(&way, target).await
            }
        }
    }

    async fn way(&self, jump: &Jump) -> Result<Connection, SshError> {
        let mut there = self.way.lock().await;
        match there.as_ref().filter(|way| !way.is_closed()) {
            Some(way) => Ok(way.clone()),
            None => Ok(there.insert(Connection::open(&jump.target().await?).await?).clone()),
        }
    }

    /// The addresses on a network that this controller has given to VMs.
    pub(crate) fn given_on(&self, network: &str) -> BTreeSet<IpAddr> {
        let given = self.lock_given();
        let on_it = given.keys().filter(|(there, _)| there == network);
        on_it.map(|(_, address)| *address).collect()
    }

    /// Gives an address on a network to the VM of an attempt, unless it was given to another before.
    pub(crate) fn give(&self, network: &str, address: IpAddr, attempt: Uuid) -> bool {
        let mut given = self.lock_given();
        *given.entry((network.to_owned(), address)).or_insert(attempt) == attempt
    }

    /// Takes back what was given to the VM of an attempt, which is not there any more.
    pub(crate) fn take_back(&self, attempt: Uuid) {
        self.lock_given().retain(|_, other| *other != attempt);
    }

    fn lock_given(&self) -> std::sync::MutexGuard<'_, HashMap<(String, IpAddr), Uuid>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more clone or copy may begin on a storage repository.
    pub async fn cloning(&self, storage: &Ref<class::Sr>) -> Permit {
        let semaphore = {
            let mut storages = self.storages.lock().unwrap_or_else(PoisonError::into_inner);
            let there = storages
                .entry(storage.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(self.care.clones_per_storage.max(1))));
            Arc::clone(there)
        };
        permit(semaphore).await
    }

    /// Waits until one more VM may be started, shut down, suspended or moved.
    pub async fn power_operation(&self) -> Permit {
        let permit = permit(Arc::clone(&self.power)).await;
        let turn = {
            let mut next = self.next_power.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*next).max(Instant::now());
            *next = turn + self.care.between_power_operations;
            turn
        };
        tokio::time::sleep_until(turn).await;
        permit
    }

    /// Notes that a machine is being made or unmade.
    pub(crate) fn busy(&self) -> Busy {
        self.making.send_modify(|count| *count += 1);
        Busy(Arc::clone(&self.making))
    }

    /// Waits until no machine is being made or unmade any more.
    pub async fn settled(&self) {
        let mut making = self.making.subscribe();
        // The sender lives in `self`.
        let _ = making.wait_for(|count| *count == 0).await;
    }

    /// What went wrong with this pool, as an error that names it.
    pub fn failure(&self, source: xenapi::Error) -> PoolError {
        PoolError::Client { pool: self.name.clone(), source: Box::new(source) }
    }

    /// Logs out.
    pub async fn close(&self) -> Result<(), PoolError> {
        if let Some(way) = self.way.lock().await.take() {
            way.close().await;
        }
        self.client.close().await.map_err(|source| self.failure(source))
    }
}

impl fmt::Debug for ConnectedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectedPool").field("name", &self.name).finish_non_exhaustive()
    }
}

async fn permit(semaphore: Arc<Semaphore>) -> Permit {
    Permit(semaphore.acquire_owned().await.expect("the semaphore is never closed"))
}

fn mirror(client: &Client) -> Mirror {
    let classes = [
        Class::Vm,
        Class::VmGuestMetrics,
        Class::VmMetrics,
        Class::Vbd,
        Class::Vdi,
        Class::Vif,
        Class::Network,
        Class::Sr,
        Class::Pbd,
        Class::Host,
        Class::HostMetrics,
    ];
    Mirror::builder(client, classes)
        .expect("all of these have events")
        .without::<class::Vm>(&["last_booted_record", "recommendations", "snapshot_metadata"])
        .without::<class::Host>(&["license_params", "cpu_info", "cpu_configuration"])
        .start()
}
