//! The driver: boots guests, tells them what to do, and hears how they end.
//!
//! One task supervises each booted guest. It alone holds its sandbox, and takes orders from the pool and
//! wishes from inside the guest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::address::Addresses;
use super::boot::{self, CloudInit};
use super::booted::{Guest, Tasks};
use super::cloud_config::PowerState;
use super::fault::GuestFault;
use super::network;
use super::root::CONTROL;
use super::sandbox::{Isolation, Place, Sandbox, blocking};
use super::seed::{Seed, SeedError, read_seed};
use super::ssh::{self, Gate};
use crate::driver::{Ended, GuestDriver, GuestError, Machine, Order, Report, Reports, usual_agent};
use crate::store::{DiskId, DiskStore};

/// Orders that may wait for a guest's supervisor.
const WAITING: usize = 16;
/// How long processes may take to end in good order.
const GRACE: Duration = Duration::from_secs(3);
/// Pause between two looks at processes, which tell nobody when they end.
const PAUSE: Duration = Duration::from_millis(10);
/// How far a wrong clock is behind.
const YEAR: Duration = Duration::from_hours(365 * 24);
/// How long an order may take: longer than all that a guest does for one.
const PATIENCE: Duration = Duration::from_mins(1);

/// The programs that a guest has beside the machine's: where, and what they say.
const SHIMS: [(&str, &str); 7] = [
    ("/usr/local/sbin/poweroff", include_str!("shims/power.sh")),
    ("/usr/local/sbin/halt", include_str!("shims/power.sh")),
    ("/usr/local/sbin/reboot", include_str!("shims/power.sh")),
    ("/usr/local/sbin/shutdown", include_str!("shims/power.sh")),
    ("/usr/local/bin/systemctl", include_str!("shims/systemctl.sh")),
    ("/usr/local/bin/sudo", include_str!("shims/sudo.sh")),
    ("/usr/local/bin/cloud-init", include_str!("shims/cloud-init.sh")),
];

/// Guests that can be logged into: processes of this machine behind an SSH server of their own.
///
/// Dropping it ends them all. What they wrote stays in the state directory until their VM is destroyed.
#[derive(Debug)]
pub struct ProcessGuests {
    shared: Arc<Shared>,
}

/// How guests are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessOptions {
    /// How long a boot takes before the guest looks for its seed.
    pub boot_delay: Duration,
    /// The port of the SSH servers; unless given, 22 where it may be had, and 2222 where not.
    pub ssh_port: Option<u16>,
    /// What goes wrong with every guest.
    pub faults: BTreeSet<GuestFault>,
    /// Whether guests are mere directories even where this machine has namespaces for them.
    pub directories_only: bool,
    /// Directories of this machine that guests see at the same paths, to read and to write. What a
    /// guest may do there is what its user on this machine may: where the pool is run by `root`, that
    /// is one to whom nothing belongs, so that only what is open to everybody is open to it.
    pub shared: Vec<PathBuf>,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    /// Whether the place goes with the guests.
    temporary: bool,
    store: Store,
    options: ProcessOptions,
    addresses: Addresses,
    running: Mutex<HashMap<Uuid, Running>>,
    /// The faults of single VMs, and the VMs that have had their restart.
    faults: Mutex<HashMap<Uuid, BTreeSet<GuestFault>>>,
    restarted: Mutex<BTreeSet<Uuid>>,
    supervisors: Mutex<JoinSet<()>>,
}

/// A booted guest, as the driver knows it.
#[derive(Clone, Debug)]
struct Running {
    boot: u64,
    isolation: Isolation,
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
}

/// The disks, as far as they concern guests.
#[derive(Clone)]
struct Store(Arc<dyn DiskStore>);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProcessGuests {
    /// Guests that keep their files in `state` and find their seeds on the disks of `store`.
    ///
    /// What a simulator that was killed left running there is ended.
    pub fn new(
        state: impl Into<PathBuf>,
        store: Arc<dyn DiskStore>,
        options: ProcessOptions,
    ) -> io::Result<Self> {
        let place = Place::open(&state.into())?;
        place.end_left_over();
        Ok(Self::at(place, false, store, options))
    }

    /// Guests whose files are gone when they are [stopped](GuestDriver::stop). What a simulator that was
    /// killed left of such guests is removed.
    pub fn temporary(store: Arc<dyn DiskStore>, options: ProcessOptions) -> io::Result<Self> {
        Ok(Self::at(Place::temporary()?, true, store, options))
    }

    fn at(
        place: Place,
        temporary: bool,
        store: Arc<dyn DiskStore>,
        options: ProcessOptions,
    ) -> Self {
        let shared = Shared {
            place,
            temporary,
            store: Store(store),
            addresses: Addresses::new(options.ssh_port),
            options,
            running: Mutex::default(),
            faults: Mutex::default(),
            restarted: Mutex::default(),
            supervisors: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Removes what belongs to no VM that `keep` wants: for a start, when the pool knows its VMs.
    pub fn retain(&self, mut keep: impl FnMut(Uuid) -> bool) -> io::Result<()> {
        for name in self.shared.place.guests()? {
            if !name.parse().is_ok_and(&mut keep) {
                self.shared.place.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Lets things go wrong with a VM's guest from its next boot on, instead of what did before.
    pub fn set_faults(&self, vm: Uuid, faults: BTreeSet<GuestFault>) {
        lock(&self.shared.faults).insert(vm, faults);
    }

    /// The port on which guests answer SSH.
    pub fn ssh_port(&self) -> u16 {
        self.shared.addresses.port()
    }

    /// How a running guest is kept apart; `None` when it does not run.
    pub fn isolation(&self, vm: Uuid) -> Option<Isolation> {
        lock(&self.shared.running).get(&vm).map(|running| running.isolation.clone())
    }
}

impl Drop for ProcessGuests {
    fn drop(&mut self) {
        // A guest ends with its supervisor.
        lock(&self.shared.supervisors).abort_all();
    }
}

#[async_trait]
impl GuestDriver for ProcessGuests {
    fn name(&self) -> &'static str {
        "process"
    }

    async fn boot(&self, machine: Machine, reports: Reports) -> Result<(), GuestError> {
        let vm = machine.vm;
        // A guest that still runs is one whose end the pool did not wait for.
        self.order(vm, Order::PowerOff).await?;
        let faults = self.shared.faults_of(&machine)?;
        let ProcessOptions { directories_only, shared, .. } = &self.shared.options;
        let shared = (!directories_only).then_some(shared.as_slice());
        let sandbox = Sandbox::start(&self.shared.place, &vm.to_string(), shared).await?;
        if faults.contains(&GuestFault::ProgramsRefused) && !sandbox.entry().has_namespaces() {
            let fault = GuestFault::ProgramsRefused;
            sandbox.stop().await;
            return Err(GuestError {
                message: format!("a guest without namespaces cannot have the fault `{fault}`"),
            });
        }
        let control = pipe::OpenOptions::new().read_write(true).open_receiver(sandbox.control());
        let control =
            control.map_err(|error| GuestError { message: format!("{CONTROL}: {error}") })?;
        let (orders, received) = mpsc::channel(WAITING);
        let (asks, asked) = mpsc::channel(WAITING);
        let stalls = faults.contains(&GuestFault::SshStalls);
        let guest = Arc::new(Guest {
            files: sandbox.files().clone(),
            entry: sandbox.entry(),
            gate: watch::Sender::new(if stalls { Gate::Stalled } else { Gate::Open }),
            tasks: Tasks::default(),
            asks,
            faults,
            machine,
        });
        let isolation = sandbox.isolation().clone();
        let running = Running { boot: guest.machine.boot, isolation, orders };
        lock(&self.shared.running).insert(vm, running);
        guest.tasks.spawn(set_up(Arc::clone(&self.shared), Arc::clone(&guest), reports.clone()));
        let tasks = EndTasks(Arc::clone(&guest));
        let supervisor =
            Supervisor { guest, sandbox, orders: received, asked, control, reports, tasks };
        let mut supervisors = lock(&self.shared.supervisors);
        while supervisors.try_join_next().is_some() {}
        supervisors.spawn(supervisor.run(Arc::clone(&self.shared)));
        Ok(())
    }

    async fn order(&self, vm: Uuid, order: Order) -> Result<(), GuestError> {
        self.shared.order(vm, order).await
    }

    async fn destroyed(&self, vm: Uuid) {
        if let Err(error) = self.order(vm, Order::PowerOff).await {
            tracing::warn!(%vm, %error, "a destroyed guest did not end");
        }
        lock(&self.shared.faults).remove(&vm);
        lock(&self.shared.restarted).remove(&vm);
        let place = self.shared.place.clone();
        if let Err(error) = blocking(move || place.remove(&vm.to_string())).await {
            tracing::warn!(%vm, %error, "not all of a destroyed guest could be removed");
        }
    }

    async fn stop(&self) {
        let all: Vec<Uuid> = lock(&self.shared.running).keys().copied().collect();
        let mut ends = JoinSet::new();
        for vm in all {
            let shared = Arc::clone(&self.shared);
            ends.spawn(async move { shared.order(vm, Order::PowerOff).await });
        }
        for ended in ends.join_all().await {
            if let Err(error) = ended {
                tracing::warn!(%error, "a guest did not end");
            }
        }
        let shared = Arc::clone(&self.shared);
        // It cannot fail.
        let _ = blocking(move || {
            shared.clean_up();
            Ok(())
        })
        .await;
    }
}

impl Shared {
    /// Removes what need not stay.
    fn clean_up(&self) {
        if self.temporary
            && let Err(error) = self.place.remove_all()
        {
            tracing::debug!(%error, "the next start removes what guests left");
        }
    }

    async fn order(&self, vm: Uuid, order: Order) -> Result<(), GuestError> {
        let running = lock(&self.running).get(&vm).cloned();
        let Some(running) = running else {
            return match order {
                Order::Resume | Order::Unpause => {
                    Err(GuestError { message: "the guest's state is gone".into() })
                }
                Order::Shutdown
                | Order::Reboot
                | Order::PowerOff
                | Order::Pause
                | Order::Suspend
                | Order::PlugDisk(_)
                | Order::UnplugDisk(_)
                | Order::PlugNic(_)
                | Order::UnplugNic(_) => Ok(()),
            };
        };
        let (done, wait) = oneshot::channel();
        // A supervisor that is gone has ended its guest, and so obeyed.
        if running.orders.send((order, done)).await.is_err() {
            return Ok(());
        }
        match timeout(PATIENCE, wait).await {
            Ok(_) => Ok(()),
            Err(_) => {
                Err(GuestError { message: format!("the guest did not obey in {PATIENCE:?}") })
            }
        }
    }

    fn faults_of(&self, machine: &Machine) -> Result<BTreeSet<GuestFault>, GuestError> {
        let asked = GuestFault::of(machine)?;
        let set = lock(&self.faults).get(&machine.vm).cloned().unwrap_or_default();
        Ok(&(&self.options.faults | &asked) | &set)
    }

    /// Whether a VM's one restart is still due; it is not, from then on.
    fn takes_restart(&self, vm: Uuid) -> bool {
        lock(&self.restarted).insert(vm)
    }
}

/// Boots a guest's system: all that happens between the machine's start and its being ready.
async fn set_up(shared: Arc<Shared>, guest: Arc<Guest>, reports: Reports) {
    if let Err(error) = try_set_up(&shared, &guest, &reports).await {
        tracing::warn!(vm = %guest.machine.vm, %error, "a guest was not set up");
    }
}

async fn try_set_up(
    shared: &Shared,
    guest: &Arc<Guest>,
    reports: &Reports,
) -> Result<(), GuestError> {
    sleep(shared.options.boot_delay).await;
    let (files, visible) = (guest.files.clone(), guest.files.visible(CONTROL));
    blocking(move || {
        let run = files.visible(boot::RUN);
        for (path, text) in SHIMS {
            let text = text.replace("@CONTROL@", &visible).replace("@RUN@", &run);
            files.write(path, text.as_bytes(), 0o755)?;
        }
        Ok(())
    })
    .await?;
    if guest.has(GuestFault::WrongClock) {
        let files = guest.files.clone();
        blocking(move || {
            files.write("/usr/local/bin/date", include_bytes!("shims/date.sh"), 0o755)
        })
        .await?;
    }
    let (store, machine) = (shared.store.clone(), guest.machine.clone());
    let seed = blocking(move || Ok(find_seed(&store, &machine))).await?;
    let name = guest.machine.name.clone();
    let slow = if guest.has(GuestFault::WrongClock) { YEAR } else { Duration::ZERO };
    let mut boot =
        CloudInit::begin(guest.files.clone(), guest.entry.clone(), name, seed, slow).await?;
    boot.init().await?;
    if guest.has(GuestFault::ProgramsRefused) {
        boot.refuse_programs().await?;
    }
    let addresses = answer(shared, guest).await?;
    let address = addresses.values().flatten().next().copied();
    if !guest.has(GuestFault::NoTools) {
        reports.send(Report::Agent(usual_agent(addresses)));
    }
    let vm = guest.machine.vm;
    if guest.has(GuestFault::RebootsDuringSetup) && shared.takes_restart(vm) {
        return ask(guest, Ended::Reboot).await;
    }
    if guest.has(GuestFault::CrashesDuringSetup) {
        return ask(guest, Ended::Crash).await;
    }
    match boot.finish(guest.has(GuestFault::CloudInitFails), address).await? {
        Some(PowerState::Off) => ask(guest, Ended::PowerOff).await,
        Some(PowerState::Reboot) => ask(guest, Ended::Reboot).await,
        None => Ok(()),
    }
}

async fn ask(guest: &Guest, end: Ended) -> Result<(), GuestError> {
    guest.asks.send(end).await.map_err(|_| GuestError { message: "the guest has ended".into() })
}

/// Starts the SSH server on every interface, and returns the addresses to be reported.
async fn answer(
    shared: &Shared,
    guest: &Arc<Guest>,
) -> Result<BTreeMap<u32, Vec<IpAddr>>, GuestError> {
    let mut addresses = BTreeMap::new();
    if guest.has(GuestFault::NoAddress) {
        return Ok(addresses);
    }
    let files = guest.files.clone();
    // A guest without a configuration takes what it is given.
    let configuration =
        blocking(move || Ok(files.read(network::CONFIGURATION).unwrap_or_default())).await?;
    for nic in &guest.machine.nics {
        let listening = match network::address(&configuration, &nic.mac) {
            Some(address) => shared.addresses.listen_at(address).await,
            None => shared.addresses.listen(guest.machine.vm, nic.device).await,
        };
        let (address, listener) = listening.map_err(|error| GuestError {
            message: format!("there is no address for interface {}: {error}", nic.device),
        })?;
        addresses.insert(nic.device, vec![IpAddr::V4(address)]);
        if !guest.has(GuestFault::SshRefuses) {
            guest.tasks.spawn(ssh::serve(listener, Arc::clone(guest)));
        }
    }
    Ok(addresses)
}

/// The first seed among a machine's disks, and the name of its disk.
fn find_seed(store: &Store, machine: &Machine) -> Option<(Seed, String)> {
    machine.disks.iter().find_map(|disk| {
        match read_seed(DiskReader { store, disk: disk.disk, size: disk.size, at: 0 }) {
            Ok(seed) => Some((seed, disk.device.clone())),
            Err(SeedError::NotASeed { .. }) => None,
            Err(error) => {
                tracing::warn!(vm = %machine.vm, device = disk.device, %error, "a seed was not used");
                None
            }
        }
    })
}

/// A disk as a stream.
struct DiskReader<'a> {
    store: &'a Store,
    disk: DiskId,
    size: u64,
    at: u64,
}

impl Read for DiskReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        self.store.0.read_at(self.disk, self.at, &mut buffer[..count])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for DiskReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// Who watches over a booted guest.
struct Supervisor {
    guest: Arc<Guest>,
    sandbox: Sandbox,
    orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
    asked: mpsc::Receiver<Ended>,
    control: pipe::Receiver,
    reports: Reports,
    tasks: EndTasks,
}

/// Ends a guest's tasks, which hold each other, when its supervisor is dropped.
struct EndTasks(Arc<Guest>);

impl Drop for EndTasks {
    fn drop(&mut self) {
        self.0.tasks.abort();
    }
}

/// What a supervisor heard.
enum Heard {
    Order(Order, oneshot::Sender<()>),
    Wish(Ended),
    /// The driver is gone.
    Abandoned,
    /// The first process has ended, though nobody told it to.
    Died,
}

/// How a guest is brought to its end.
struct Ending {
    /// Whether its processes get to know before.
    in_good_order: bool,
    report: Option<Ended>,
    obeyed: Option<oneshot::Sender<()>>,
}

impl Supervisor {
    async fn run(mut self, shared: Arc<Shared>) {
        let ending = self.watch().await;
        let Self { guest, sandbox, reports, mut orders, tasks, .. } = self;
        if ending.in_good_order {
            ask_to_end(&guest).await;
        }
        guest.tasks.end().await;
        drop(tasks);
        let files = guest.files.clone();
        // It cannot fail.
        let _ = blocking(move || {
            files.close();
            Ok(())
        })
        .await;
        sandbox.stop().await;
        let vm = guest.machine.vm;
        {
            let mut running = lock(&shared.running);
            if running.get(&vm).is_some_and(|running| running.boot == guest.machine.boot) {
                running.remove(&vm);
            }
        }
        // Nothing is left of it before anybody hears so.
        if let Some(end) = ending.report {
            reports.send(Report::Ended(end));
        }
        orders.close();
        drop(ending.obeyed);
    }

    /// Until the guest is to end.
    async fn watch(&mut self) -> Ending {
        let mut lines = BufReader::new(&mut self.control).lines();
        let mut frozen = false;
        loop {
            let heard = tokio::select! {
                order = self.orders.recv() => {
                    order.map_or(Heard::Abandoned, |(order, done)| Heard::Order(order, done))
                }
                Some(wish) = self.asked.recv() => Heard::Wish(wish),
                Ok(Some(line)) = lines.next_line() => match line.trim() {
                    "poweroff" => Heard::Wish(Ended::PowerOff),
                    "reboot" => Heard::Wish(Ended::Reboot),
                    "crash" => Heard::Wish(Ended::Crash),
                    _ => continue,
                },
                () = self.sandbox.wait() => Heard::Died,
            };
            let ending = |in_good_order, report| Ending { in_good_order, report, obeyed: None };
            let (order, done) = match heard {
                Heard::Order(order, done) => (order, done),
                Heard::Wish(wish) => return ending(wish != Ended::Crash, Some(wish)),
                Heard::Abandoned => return ending(false, None),
                Heard::Died => return ending(false, Some(Ended::Crash)),
            };
            match order {
                Order::PowerOff => {
                    return Ending { in_good_order: false, report: None, obeyed: Some(done) };
                }
                Order::Shutdown | Order::Reboot
                    if frozen || self.guest.has(GuestFault::IgnoresShutdown) => {}
                Order::Shutdown => return ending(true, Some(Ended::PowerOff)),
                Order::Reboot => return ending(true, Some(Ended::Reboot)),
                Order::Pause | Order::Suspend => {
                    frozen = true;
                    freeze(&self.guest, true).await;
                }
                Order::Unpause | Order::Resume => {
                    frozen = false;
                    freeze(&self.guest, false).await;
                }
                // A guest looks at its disks when it boots, and has its addresses from then on.
                Order::PlugDisk(_)
                | Order::UnplugDisk(_)
                | Order::PlugNic(_)
                | Order::UnplugNic(_) => {}
            }
            drop(done);
        }
    }
}

/// Stops or continues all processes of a guest, and what comes over its connections.
async fn freeze(guest: &Arc<Guest>, frozen: bool) {
    let stalled = frozen || guest.has(GuestFault::SshStalls);
    guest.gate.send_replace(if stalled { Gate::Stalled } else { Gate::Open });
    let signal = if frozen { Signal::STOP } else { Signal::CONT };
    let entry = guest.entry.clone();
    // It cannot fail.
    let _ = blocking(move || {
        entry.signal_all(signal);
        Ok(())
    })
    .await;
}

/// Tells all processes to end, and gives them a while.
async fn ask_to_end(guest: &Guest) {
    let entry = guest.entry.clone();
    let _ = blocking(move || {
        entry.signal_all(Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < GRACE && !entry.processes().is_empty() {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    })
    .await;
}
