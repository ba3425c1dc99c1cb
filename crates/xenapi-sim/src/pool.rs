//! A running pool, and how to ask for one.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::clock::Clock;
use crate::control;
use crate::database::Database;
use crate::disk::DiskDirectory;
use crate::driver::{GuestDriver, NoGuests};
use crate::faults::{Fault, FaultRule, GuestFaultRule};
use crate::guest::{ProcessGuests, ProcessOptions};
use crate::guests;
use crate::http;
use crate::inner::{HostPlace, Inner, Parts, lock};
use crate::journal::{Journal, StateDirectory};
use crate::lifecycle;
use crate::options::{Options, Role};
use crate::placement;
use crate::random::Random;
use crate::schema::Schema;
use crate::seed;
use crate::store::{DiskId, DiskStore};
use crate::tls::Identity;
use crate::value::{Ref, Value};

/// How a pool is to be: start from [`Pool::builder`].
#[must_use]
pub struct PoolBuilder {
    options: Options,
    seeded: bool,
    clock: Clock,
    driver: Option<Arc<dyn GuestDriver>>,
    processes: Option<ProcessOptions>,
    store: Option<Arc<dyn DiskStore>>,
    disks: Option<PathBuf>,
}

/// Why a pool did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address could not be listened on.
    #[error("could not listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// HTTP without TLS was asked for on an address that others can reach.
    #[error("plain HTTP is for loopback addresses only, and {address} is none")]
    NotLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// Several hosts need several loopback addresses.
    #[error("a pool of several hosts listens on 127.0.0.0/8 only, and {address} is not there")]
    ManyHosts {
        /// The address.
        address: SocketAddr,
    },
    /// A pool needs from 1 to 64 hosts.
    #[error("a pool has from 1 to 64 hosts, not {0}")]
    HostCount(usize),
    /// The certificate could not be made, read or kept.
    #[error("could not make a certificate")]
    Certificate(#[source] io::Error),
    /// The state of an earlier run could not be read, or this one's not be written.
    #[error("could not use the state in `{}`", directory.display())]
    State {
        /// Where it is.
        directory: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no place for disks.
    #[error("could not make a place for disks")]
    Disks(#[source] io::Error),
    /// There is no place for guests that are processes.
    #[error("could not make a place for guests")]
    Guests(#[source] io::Error),
}

impl StartError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Listen { .. } => "choose another address or port with `--listen`".into(),
            Self::NotLoopback { .. } => "listen on 127.0.0.1, or leave `--http` out".into(),
            Self::ManyHosts { .. } => "listen on 127.0.0.1, or ask for one host".into(),
            Self::HostCount(_) => "ask for another number with `--hosts`".into(),
            Self::Guests(_) | Self::Disks(_) => {
                "see whether the state directory, or the one for temporary files, can be written, \
                 and is in use by no other pool"
                    .into()
            }
            Self::Certificate(_) => "see whether the state directory can be written".into(),
            Self::State { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                "end the other pool, or give another directory with `--state`".into()
            }
            Self::State { .. } => {
                "give another directory with `--state`, or remove this one".into()
            }
        }
    }
}

impl PoolBuilder {
    /// Listens here; `127.0.0.1` and a free port when this is left out.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.options.listen = address;
        self
    }

    /// Speaks HTTP without TLS, which is for loopback addresses only.
    pub fn http(mut self) -> Self {
        self.options.http = true;
        self
    }

    /// The password of the user `root`; made up when this is left out.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.options.password = password.into();
        self
    }

    /// One more user.
    pub fn user(
        mut self,
        name: impl Into<String>,
        password: impl Into<String>,
        role: Role,
    ) -> Self {
        self.options.users.push((name.into(), password.into(), role));
        self
    }

    /// How many hosts there are: the first is the master, the others send callers to it.
    pub fn hosts(mut self, count: usize) -> Self {
        self.options.hosts = count;
        self
    }

    /// How much memory each host has, in bytes; 64 GiB when this is left out.
    pub fn host_memory(mut self, bytes: u64) -> Self {
        self.options.host_memory = i64::try_from(bytes).unwrap_or(i64::MAX);
        self
    }

    /// How many VMs there are from the start.
    pub fn vms(mut self, count: usize) -> Self {
        self.options.vms = count;
        self
    }

    /// Decides all uuids, references and hardware addresses.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = seed;
        self.seeded = true;
        self
    }

    /// How long after a boot the guest's address is known, with the default guests; 0 when left out.
    pub fn boot_delay(mut self, delay: Duration) -> Self {
        self.options.boot_delay = delay;
        self
    }

    /// How long a login with a wrong password takes; the real server takes 5 s, this one 0.
    pub fn login_delay(mut self, delay: Duration) -> Self {
        self.options.login_delay = delay;
        self
    }

    /// How long `event.from` gathers changes before it answers: 50 ms, as the real server.
    pub fn event_batching(mut self, time: Duration) -> Self {
        self.options.event_batching = time;
        self
    }

    /// How long an operation waits for another one on the same VM before it fails; 2 h when left out.
    pub fn queue_limit(mut self, time: Duration) -> Self {
        self.options.queue_limit = time;
        self
    }

    /// How long a guest has for a clean shutdown; 20 min when left out.
    pub fn shutdown_limit(mut self, time: Duration) -> Self {
        self.options.shutdown_limit = time;
        self
    }

    /// How long an operation takes: `VM.start`, all of a class (`VDI.*`) or all (`*`); 0 when left out.
    pub fn latency(mut self, call: impl Into<String>, time: Duration) -> Self {
        self.options.latencies.insert(call.into(), time);
        self
    }

    /// Keeps the pool's state, disks and certificate in this directory, and goes on from what is there:
    /// VMs that ran are booted again, as on hosts that come up after their power failed. What a call
    /// answered is on the disk by then.
    pub fn state(mut self, directory: impl Into<PathBuf>) -> Self {
        self.options.state = Some(directory.into());
        self
    }

    /// Keeps disks in this directory, with the default disk store; a temporary one when left out.
    pub fn disks(mut self, directory: impl Into<PathBuf>) -> Self {
        self.disks = Some(directory.into());
        self
    }

    /// The pool's time of day.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// What runs in the VMs; guests without an inside when this is left out.
    pub fn guests(mut self, driver: impl GuestDriver) -> Self {
        self.driver = Some(Arc::new(driver));
        self
    }

    /// Lets VMs be processes of this machine that can be logged into, in place of other guests. Their
    /// files are with the pool's state, if it has one; else they are gone with the pool.
    pub fn process_guests(mut self, options: ProcessOptions) -> Self {
        self.processes = Some(options);
        self
    }

    /// Where disks are kept; a [`DiskDirectory`] when this is left out.
    pub fn store(mut self, store: Arc<dyn DiskStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// Starts the pool. It ends when the answer is dropped.
    pub async fn start(self) -> Result<Pool, StartError> {
        let Self { mut options, seeded, clock, driver, processes, store, disks } = self;
        if !seeded {
            options.seed = Random::fresh_seed();
        }
        if options.password.is_empty() {
            options.password = format!("{:016x}", Random::new(Random::fresh_seed()).next());
        }
        check(&options)?;
        let now = clock.now();
        let directory = match &options.state {
            Some(path) => Some(StateDirectory::open(path).map_err(state_error(path))?),
            None => None,
        };
        let (mut db, mut made) = restore(&options, directory.as_ref())?;
        let count = made.as_ref().map_or(options.hosts, |made| made.hosts.len());
        let listeners = listen(options.listen, count).await?;
        let addresses = addresses(&options, &listeners);
        let mut running = Vec::new();
        match &made {
            Some(made) => running = adopt(&mut db, made, &addresses, now),
            None => made = Some(seed::fill(&mut db, &options, &addresses, now)),
        }
        let Some(mut made) = made else { return Err(StartError::HostCount(0)) };
        for (place, address) in made.hosts.iter_mut().zip(&addresses) {
            place.address.clone_from(address);
        }
        let journal = match (directory, &options.state) {
            (Some(directory), Some(path)) => {
                Some(Journal::start(directory, &mut db).map_err(state_error(path))?)
            }
            _ => None,
        };
        let mut named = addresses;
        named.push("localhost".into());
        let identity =
            Identity::new(named, options.state.as_deref()).map_err(StartError::Certificate)?;
        options.certificate.clone_from(&identity.certificate);
        let store = match store {
            Some(store) => store,
            None => default_store(&options, disks, &db)?,
        };
        let driver: Arc<dyn GuestDriver> = match processes {
            Some(wanted) => Arc::new(place_guests(&options, wanted, &store, &db)?),
            None => driver.unwrap_or_else(|| Arc::new(NoGuests::new(options.boot_delay))),
        };
        let parts = Parts {
            options,
            clock,
            driver,
            store,
            hosts: made.hosts,
            pool: made.pool,
            db,
            journal,
        };
        let inner = Arc::new(Inner::new(parts));
        for vm in running {
            let owner = Arc::clone(&inner);
            inner.spawn(async move { guests::boot_again(&owner, vm).await });
        }
        Ok(Pool::serve(inner, listeners, identity))
    }
}

fn check(options: &Options) -> Result<(), StartError> {
    let address = options.listen;
    if options.http && !address.ip().is_loopback() {
        return Err(StartError::NotLoopback { address });
    }
    if !(1..=64).contains(&options.hosts) {
        return Err(StartError::HostCount(options.hosts));
    }
    Ok(())
}

fn state_error(directory: &std::path::Path) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::State { directory: directory.to_owned(), source }
}

/// The database of an earlier run with its pool and hosts, or an empty one.
fn restore(
    options: &Options,
    directory: Option<&StateDirectory>,
) -> Result<(Database, Option<seed::Made>), StartError> {
    let mut db = Database::new(options.seed);
    let (Some(directory), Some(path)) = (directory, &options.state) else { return Ok((db, None)) };
    let mut stored = Database::new(Random::fresh_seed());
    if !directory.restore(&mut stored).map_err(state_error(path))? {
        return Ok((db, None));
    }
    std::mem::swap(&mut db, &mut stored);
    let Some(pool) = db.rows("pool").next().cloned() else { return Ok((stored, None)) };
    let master = pool.reference("master");
    let mut hosts: Vec<_> = db
        .rows("host")
        .map(|row| (row.reference != master, row.text("name_label").to_owned(), row.reference))
        .collect();
    hosts.sort();
    let hosts = hosts.into_iter().map(|(_, _, host)| HostPlace { host, address: String::new() });
    let made = seed::Made { pool: pool.reference, hosts: hosts.collect() };
    Ok((db, Some(made)))
}

/// Makes a stored pool one whose hosts have just come up, at these addresses. What was going on is over;
/// the VMs that ran, which are answered, are to boot again where they were.
fn adopt(db: &mut Database, made: &seed::Made, addresses: &[String], now: i64) -> Vec<Ref> {
    // Tokens of the earlier run must not look like tokens of this one's future.
    let generation = u64::try_from(Clock::new().now()).unwrap_or_default() << 20;
    db.start_at(generation);
    for (place, address) in made.hosts.iter().zip(addresses) {
        db.set("host", place.host, "address", address.as_str());
    }
    let (domains, guests): (Vec<_>, Vec<_>) =
        db.rows("VM").cloned().partition(|row| row.flag("is_control_domain"));
    // A disk that was being read or written is no more.
    for drive in domains.iter().flat_map(|domain| domain.refs("VBDs")) {
        let disk = db.find("VBD", drive).map(|row| row.reference("VDI")).unwrap_or_default();
        db.delete("VBD", drive);
        lifecycle::refresh_vdi(db, disk);
    }
    let mut running = Vec::new();
    for vm in guests {
        let reference = vm.reference;
        db.set("VM", reference, "current_operations", Value::map(Vec::new()));
        db.set("VM", reference, "scheduled_to_be_resident_on", Ref::NULL);
        match vm.text("power_state") {
            "Running" => {
                lifecycle::restart(db, &vm, now);
                running.push(reference);
            }
            // Whoever stood still has lost its memory.
            "Paused" => lifecycle::leave_host(db, reference, "Halted"),
            _ => lifecycle::refresh(db, reference),
        }
    }
    for place in &made.hosts {
        placement::refresh_metrics(db, place.host, now);
    }
    running
}

/// Processes as guests, with what is left of VMs that are no more taken away.
fn place_guests(
    options: &Options,
    mut wanted: ProcessOptions,
    store: &Arc<dyn DiskStore>,
    db: &Database,
) -> Result<ProcessGuests, StartError> {
    wanted.boot_delay = wanted.boot_delay.max(options.boot_delay);
    let store = Arc::clone(store);
    let Some(state) = &options.state else {
        return ProcessGuests::temporary(store, wanted).map_err(StartError::Guests);
    };
    let vms: HashSet<Uuid> = db.rows("VM").map(|row| row.uuid()).collect();
    let guests = ProcessGuests::new(state.join("guests"), store, wanted);
    let guests = guests.map_err(StartError::Guests)?;
    guests.retain(|vm| vms.contains(&vm)).map_err(StartError::Guests)?;
    Ok(guests)
}

/// A directory of disks, without those of which the pool knows nothing.
fn default_store(
    options: &Options,
    disks: Option<PathBuf>,
    db: &Database,
) -> Result<Arc<dyn DiskStore>, StartError> {
    let failed = |error: crate::disk::DiskError| StartError::Disks(error.into());
    let of_state = options.state.as_ref().map(|state| state.join("disks"));
    let store = match disks.or_else(|| of_state.clone()) {
        Some(directory) => DiskDirectory::open(directory).map_err(failed)?,
        None => DiskDirectory::temporary().map_err(failed)?,
    };
    if of_state.is_some() {
        let known: HashSet<DiskId> = db.rows("VDI").map(|row| DiskId(row.uuid())).collect();
        let left = store.retain(|disk| known.contains(&disk)).map_err(failed)?;
        tracing::debug!(count = left.len(), "removed disks that a crash left");
    }
    Ok(Arc::new(store))
}

/// One listener for each host: the first where it was asked for, the others on the addresses after it.
async fn listen(first: SocketAddr, count: usize) -> Result<Vec<TcpListener>, StartError> {
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
    };
    let IpAddr::V4(base) = first.ip() else {
        return if count == 1 {
            Ok(vec![bind(first).await?])
        } else {
            Err(StartError::ManyHosts { address: first })
        };
    };
    if count > 1 && !base.is_loopback() {
        return Err(StartError::ManyHosts { address: first });
    }
    let mut tries = if first.port() == 0 { 32 } else { 1 };
    loop {
        tries -= 1;
        let listener = bind(first).await?;
        // A listener that is bound has an address.
        let port = listener.local_addr().map_or(first.port(), |address| address.port());
        let mut listeners = vec![listener];
        let mut failure = None;
        for number in 1..count {
            let ip = Ipv4Addr::from(u32::from(base) + u32::try_from(number).unwrap_or_default());
            match bind(SocketAddr::from((ip, port))).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => return Ok(listeners),
            Some(error) if tries == 0 => return Err(error),
            Some(_) => {}
        }
    }
}

fn addresses(options: &Options, listeners: &[TcpListener]) -> Vec<String> {
    let address =
        |listener: &TcpListener| listener.local_addr().unwrap_or(options.listen).ip().to_string();
    listeners.iter().map(address).collect()
}

/// A simulated pool that runs until this is dropped.
pub struct Pool {
    inner: Arc<Inner>,
    listeners: JoinSet<()>,
    addresses: Vec<SocketAddr>,
    fingerprint: String,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Pool {
    /// How a pool is to be.
    pub fn builder() -> PoolBuilder {
        PoolBuilder {
            options: Options::default(),
            seeded: false,
            clock: Clock::new(),
            driver: None,
            processes: None,
            store: None,
            disks: None,
        }
    }

    fn serve(inner: Arc<Inner>, sockets: Vec<TcpListener>, identity: Identity) -> Self {
        let fallback = inner.options.listen;
        let addresses = sockets.iter().map(|it| it.local_addr().unwrap_or(fallback)).collect();
        let mut listeners = JoinSet::new();
        for (host, socket) in sockets.into_iter().enumerate() {
            let tls = (!inner.options.http).then(|| identity.acceptor.clone());
            listeners.spawn(accept(inner.clone(), host, socket, tls));
        }
        listeners.spawn(tidy(inner.clone()));
        Self { inner, listeners, addresses, fingerprint: identity.fingerprint }
    }

    /// Where the master is: `https://127.0.0.1:8443`.
    pub fn url(&self) -> String {
        self.urls().swap_remove(0)
    }

    /// Where all hosts are, the one first that was the master at the start.
    pub fn urls(&self) -> Vec<String> {
        let scheme = if self.inner.options.http { "http" } else { "https" };
        self.addresses.iter().map(|address| format!("{scheme}://{address}")).collect()
    }

    /// The password of the user `root`.
    pub fn password(&self) -> &str {
        &self.inner.options.password
    }

    /// The SHA-256 of the certificate, as `AB:CD:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.inner.options.certificate
    }

    /// The seed that decides this pool's uuids.
    pub fn seed(&self) -> u64 {
        self.inner.options.seed
    }

    /// The pool's time of day.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Where the bytes of disks are.
    pub fn store(&self) -> &Arc<dyn DiskStore> {
        &self.inner.store
    }

    /// Makes something go wrong with calls; the answer names the rule to [`Pool::forget_fault`].
    pub fn fault(&self, rule: FaultRule) -> u64 {
        self.inner.faults.add(rule)
    }

    /// Makes the next call of this name fail with this code and these parameters.
    pub fn fail_next(&self, call: &str, code: &str, params: &[&str]) -> u64 {
        let error = [code].iter().chain(params).map(|part| (*part).to_owned()).collect();
        self.fault(FaultRule::new(call, Fault::Error(error)).times(1))
    }

    /// Removes one rule about what goes wrong, or all.
    pub fn forget_fault(&self, number: Option<u64>) {
        self.inner.faults.remove(number);
    }

    /// Makes something go wrong with the guests of VMs, from their next boot on; the answer names the rule
    /// to [`Pool::forget_guest_fault`].
    pub fn guest_fault(&self, rule: GuestFaultRule) -> u64 {
        self.inner.guest_faults.add(rule)
    }

    /// Removes one rule about what goes wrong with guests, or all. Guests that have booted keep theirs.
    pub fn forget_guest_fault(&self, number: Option<u64>) {
        self.inner.guest_faults.remove(number);
    }

    /// Sets how much memory the host with this uuid has, in bytes, whatever its VMs have by now; false
    /// when there is none.
    pub fn set_host_memory(&self, uuid: Uuid, bytes: u64) -> bool {
        self.with("host", uuid, |host| control::set_memory(&self.inner, host, bytes))
    }

    /// Makes the VM, template or snapshot with this uuid vanish with its disks, as if somebody else had
    /// destroyed it; false when there is none.
    pub async fn vanish(&self, uuid: Uuid) -> bool {
        let Some(vm) = self.find("VM", uuid) else { return false };
        control::vanish(&self.inner, vm).await;
        true
    }

    /// Ends all sessions.
    pub fn lose_sessions(&self) {
        crate::sessions::lose_all(&self.inner);
    }

    /// Forgets all deletions, so that clients that have not heard of them never do.
    pub fn lose_events(&self) {
        self.inner.write().forget_deletions();
    }

    /// Restarts the toolstack: sessions and connections end, tasks are cancelled, VMs go on.
    pub fn restart_toolstack(&self) {
        control::restart_toolstack(&self.inner);
    }

    /// Makes the host with this uuid die with its VMs and their guests; false when there is none.
    pub async fn kill_host(&self, uuid: Uuid) -> bool {
        let Some(host) = self.find("host", uuid) else { return false };
        control::host_dies(&self.inner, host).await;
        true
    }

    /// Makes a dead host live again; false when there is none with this uuid.
    pub fn revive_host(&self, uuid: Uuid) -> bool {
        self.with("host", uuid, |host| control::host_revives(&self.inner, host))
    }

    /// Makes the storage with this uuid full, or as full as its disks make it; false when there is none.
    pub fn fill_storage(&self, uuid: Uuid, full: bool) -> bool {
        self.with("SR", uuid, |sr| control::fill(&self.inner, sr, full))
    }

    /// Keeps the guest of the VM with this uuid from being heard, from its next boot on, or lets it.
    pub fn mute_guest(&self, uuid: Uuid, mute: bool) {
        let mut all = lock(&self.inner.mute);
        if mute {
            all.insert(uuid)
        } else {
            all.remove(&uuid)
        };
    }

    /// Sets how long an operation takes from now on.
    pub fn set_latency(&self, call: impl Into<String>, time: Duration) {
        lock(&self.inner.latencies).insert(call.into(), time);
    }

    fn with(&self, class: &str, uuid: Uuid, act: impl FnOnce(Ref)) -> bool {
        self.find(class, uuid).map(act).is_some()
    }

    fn find(&self, class: &str, uuid: Uuid) -> Option<Ref> {
        let text = uuid.hyphenated().to_string();
        self.inner.read().by_uuid(Schema::get().class(class), &text).ok()
    }

    /// Ends the pool: listeners, connections, all work, and the guests. Its state may be used by another
    /// pool then.
    pub async fn stop(mut self) {
        self.listeners.shutdown().await;
        self.inner.end_work().await;
        self.inner.driver.stop().await;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.inner.abort_work();
    }
}

async fn accept(
    inner: Arc<Inner>,
    host: usize,
    socket: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
) {
    loop {
        let Ok((stream, _)) = socket.accept().await else {
            // Too many open files pass when others close theirs.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // Answers are written whole, so waiting for more only costs time.
        let _ = stream.set_nodelay(true);
        let owner = inner.clone();
        match &tls {
            None => inner.spawn(http::serve(owner, host, stream)),
            Some(tls) => {
                let handshake = tls.accept(stream);
                inner.spawn(async move {
                    let limit = Duration::from_secs(10);
                    if let Ok(Ok(stream)) = tokio::time::timeout(limit, handshake).await {
                        http::serve(owner, host, stream).await;
                    }
                });
            }
        }
    }
}

/// Collects old tasks now and then.
async fn tidy(inner: Arc<Inner>) {
    let mut timer = tokio::time::interval(Duration::from_mins(1));
    loop {
        timer.tick().await;
        let now = inner.clock.now();
        crate::tasks::collect(&mut inner.write(), now);
    }
}
