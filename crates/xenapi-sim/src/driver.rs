//! What a pool tells the guests of its VMs, and what it hears back from them.
//!
//! A pool knows VMs as rows: power states, disks, interfaces. What runs inside is a [`GuestDriver`]'s
//! business: it is told when a VM boots and when it ends, and answers through [`Reports`]. Calls to a
//! driver return soon; whatever takes long, the driver does in tasks of its own.
//!
//! ```text
//! pool ──boot(Machine)──▶ driver          guest ──Report::Agent──▶ pool: VM_guest_metrics
//! pool ──order(Shutdown)─▶ driver         guest ──Report::Ended──▶ pool: Halted, or boot again
//! pool ──order(PowerOff)─▶ driver         (late reports of an earlier boot are dropped)
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::guest::GuestFault;
use crate::store::DiskId;

/// What runs inside the VMs of a pool.
#[async_trait]
pub trait GuestDriver: Send + Sync + 'static {
    /// The name of this kind of guest, as `--guests` takes it.
    fn name(&self) -> &'static str;

    /// Boots a VM that was off. Returns when the machine is running, not when its system is up: that
    /// is told by [`Report::Agent`]. A failure is what the caller of `VM.start` gets.
    async fn boot(&self, machine: Machine, reports: Reports) -> Result<(), GuestError>;

    /// Tells a booted VM's guest what to do. A repeated order changes nothing.
    async fn order(&self, vm: Uuid, order: Order) -> Result<(), GuestError>;

    /// The VM is gone: what the driver kept of it must go too. Its disks are the disk store's.
    async fn destroyed(&self, vm: Uuid);

    /// The pool ends, and all guests with it.
    async fn stop(&self) {}
}

/// A VM as it stands when it boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The VM's uuid.
    pub vm: Uuid,
    /// Its name.
    pub name: String,
    /// Which boot of the pool this is: it grows with each.
    pub boot: u64,
    /// How many virtual processors it has.
    pub vcpus: u32,
    /// How much memory it has, in bytes.
    pub memory: u64,
    /// Its disks, in the order of their positions.
    pub disks: Vec<MachineDisk>,
    /// Its network interfaces, in the order of their devices.
    pub nics: Vec<MachineNic>,
    /// The VM's `platform` map.
    pub platform: BTreeMap<String, String>,
    /// The VM's `xenstore_data` map.
    pub xenstore_data: BTreeMap<String, String>,
}

/// A disk or CD that a machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineDisk {
    /// Its position, as in `VBD.userdevice`.
    pub position: u32,
    /// Its name in the guest: `xvda`.
    pub device: String,
    /// Where its bytes are.
    pub disk: DiskId,
    /// Its size in bytes.
    pub size: u64,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// Whether it is a CD.
    pub cd: bool,
}

/// A network interface that a machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineNic {
    /// Its device number, as in `VIF.device`.
    pub device: u32,
    /// Its hardware address, as text.
    pub mac: String,
    /// The uuid of the network that it is on.
    pub network: Uuid,
    /// The name of that network.
    pub network_name: String,
}

/// What a running VM's guest is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Shut down in good order; [`Report::Ended`] follows when done.
    Shutdown,
    /// Restart in good order; [`Report::Ended`] follows when down, and then a boot.
    Reboot,
    /// Stop at once. Nothing is reported.
    PowerOff,
    /// Stand still, keeping all state.
    Pause,
    /// Go on after [`Order::Pause`].
    Unpause,
    /// Stand still with state on disk; the VM leaves its host.
    Suspend,
    /// Go on after [`Order::Suspend`].
    Resume,
    /// A disk was plugged in.
    PlugDisk(MachineDisk),
    /// The disk at this position was taken out.
    UnplugDisk(u32),
    /// An interface was plugged in.
    PlugNic(MachineNic),
    /// The interface with this device number was taken out.
    UnplugNic(u32),
}

/// Why a guest did not do as told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GuestError {
    /// What went wrong.
    pub message: String,
}

/// What a guest lets its pool know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The guest's agent is up, or says something new. What it says replaces what it said before.
    Agent(Agent),
    /// The guest has ended.
    Ended(Ended),
}

/// What the agent in a guest tells about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// The agent's version: major, minor, micro, build.
    pub version: [u32; 4],
    /// What runs there: keys as in `VM_guest_metrics.os_version`.
    pub os_version: BTreeMap<String, String>,
    /// Addresses by the device number of the interface that has them.
    pub addresses: BTreeMap<u32, Vec<IpAddr>>,
    /// What the guest can do, as in `VM_guest_metrics.other` (`feature-shutdown`).
    pub features: Vec<String>,
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It powered itself off.
    PowerOff,
    /// It asked for a restart.
    Reboot,
    /// It crashed.
    Crash,
}

/// The way from one boot of a guest back to its pool.
#[derive(Clone)]
pub struct Reports {
    sink: Arc<dyn Fn(Report) + Send + Sync>,
}

impl Reports {
    /// Hands each report to `sink`.
    pub fn new(sink: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self { sink: Arc::new(sink) }
    }

    /// Tells the pool. A report of a boot that has ended is dropped.
    pub fn send(&self, report: Report) {
        (self.sink)(report);
    }
}

impl std::fmt::Debug for Reports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reports").finish_non_exhaustive()
    }
}

/// Guests without an inside: an address appears some time after the boot, orders are obeyed at once. Of the
/// faults of guests they have [`GuestFault::NoAddress`] and [`GuestFault::IgnoresShutdown`].
#[derive(Debug)]
pub struct NoGuests {
    boot_delay: Duration,
    running: std::sync::Mutex<BTreeMap<Uuid, Running>>,
}

#[derive(Debug)]
struct Running {
    reports: Reports,
    ignores_shutdown: bool,
    boot: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.boot.abort();
    }
}

impl NoGuests {
    /// Guests whose agent reports this long after they boot.
    pub fn new(boot_delay: Duration) -> Self {
        Self { boot_delay, running: std::sync::Mutex::default() }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, Running>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What a guest with a usual agent says of itself, with these addresses.
pub(crate) fn usual_agent(addresses: BTreeMap<u32, Vec<IpAddr>>) -> Agent {
    let os = [("name", "Debian GNU/Linux 12 (bookworm)"), ("distro", "debian")];
    let more = [("uname", "6.1.0-25-amd64"), ("major", "12"), ("minor", "7")];
    let features = ["poweroff", "reboot", "shutdown", "suspend", "vcpu-hotplug", "balloon"];
    Agent {
        version: [7, 33, 0, 11],
        os_version: os.iter().chain(&more).map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        addresses,
        features: features.map(|name| format!("feature-{name}")).to_vec(),
    }
}

/// The addresses that a machine without a real guest shows: its own in 10.0.0.0/8, and a link-local one.
fn made_up_addresses(machine: &Machine) -> BTreeMap<u32, Vec<IpAddr>> {
    let octets = |mac: &str| -> Option<[u8; 6]> {
        let mut octets = [0; 6];
        let mut parts = mac.split(':');
        for octet in &mut octets {
            *octet = u8::from_str_radix(parts.next()?, 16).ok()?;
        }
        Some(octets)
    };
    let with_mac = machine.nics.iter().filter_map(|nic| Some((nic.device, octets(&nic.mac)?)));
    with_mac
        .map(|(device, [a, b, c, d, e, f])| {
            let v4 = IpAddr::from([10, d, e, f.clamp(1, 254)]);
            let host = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
            let mut v6 = [0; 16];
            v6[..2].copy_from_slice(&[0xfe, 0x80]);
            v6[8..].copy_from_slice(&host);
            (device, vec![v4, IpAddr::from(v6)])
        })
        .collect()
}

#[async_trait]
impl GuestDriver for NoGuests {
    fn name(&self) -> &'static str {
        "none"
    }

    async fn boot(&self, machine: Machine, reports: Reports) -> Result<(), GuestError> {
        let faults = GuestFault::of(&machine)?;
        let addresses = if faults.contains(&GuestFault::NoAddress) {
            BTreeMap::new()
        } else {
            made_up_addresses(&machine)
        };
        let agent = usual_agent(addresses);
        let ignores_shutdown = faults.contains(&GuestFault::IgnoresShutdown);
        let (delay, report) = (self.boot_delay, reports.clone());
        let boot = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            report.send(Report::Agent(agent));
        });
        self.running().insert(machine.vm, Running { reports, ignores_shutdown, boot });
        Ok(())
    }

    async fn order(&self, vm: Uuid, order: Order) -> Result<(), GuestError> {
        match order {
            Order::Shutdown | Order::Reboot | Order::PowerOff => {
                let running = {
                    let mut all = self.running();
                    let deaf = all.get(&vm).is_some_and(|running| running.ignores_shutdown);
                    if deaf && order != Order::PowerOff { None } else { all.remove(&vm) }
                };
                let Some(running) = running else { return Ok(()) };
                match order {
                    Order::Shutdown => running.reports.send(Report::Ended(Ended::PowerOff)),
                    Order::Reboot => running.reports.send(Report::Ended(Ended::Reboot)),
                    _ => {}
                }
            }
            Order::Pause
            | Order::Unpause
            | Order::Suspend
            | Order::Resume
            | Order::PlugDisk(_)
            | Order::UnplugDisk(_)
            | Order::PlugNic(_)
            | Order::UnplugNic(_) => {}
        }
        Ok(())
    }

    async fn destroyed(&self, vm: Uuid) {
        self.running().remove(&vm);
    }
}
