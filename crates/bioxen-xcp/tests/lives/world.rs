//! A simulated pool with its controllers, what is remembered of their VMs, and the look at what is left.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use bioxen_core::VmName;
use bioxen_xcp::leaks::{self, Attempt, Fate, Knowledge};
use bioxen_xcp::making::{Journal, JournalError, Known};
use bioxen_xcp::{Care, ConnectedPool, PoolName, PoolSettings, SecretReference, TrustSettings};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;
use xenapi::class;
use xenapi_sim::guest::ProcessOptions;
use xenapi_sim::{GuestFaultRule, Pool};

use crate::story::{Act, Mishap, Story};

pub(crate) const TEMPLATE: &str = "Debian 12 (cloud-init)";
pub(crate) const PASSWORD: &str = "secret";
const MINUTE: Duration = Duration::from_mins(1);

/// A controller of a pool, with what it remembers of its VMs.
pub(crate) struct Controller {
    pub(crate) pool: Arc<ConnectedPool>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) fleet: Uuid,
}

/// What a controller remembers of its VMs.
#[derive(Default)]
pub(crate) struct Memory {
    rows: Mutex<HashMap<VmName, Row>>,
    /// Attempts that went on, or came to an end, here.
    attempts: Mutex<HashSet<Uuid>>,
    notes: AtomicUsize,
    fails_at: Option<usize>,
}

struct Row {
    making: Uuid,
    uuid: Option<Uuid>,
    is_made: bool,
}

/// The journal of one VM.
pub(crate) struct Notes {
    pub(crate) vm: VmName,
    pub(crate) memory: Arc<Memory>,
}

#[async_trait]
impl Journal for Notes {
    async fn note(&self, known: &Known) -> Result<(), JournalError> {
        let number = self.memory.notes.fetch_add(1, Ordering::Relaxed) + 1;
        if self.memory.fails_at == Some(number) {
            return Err(JournalError("the disk is full".into()));
        }
        self.memory.attempts().insert(known.making.attempt);
        let uuid = known.uuid.as_ref().map(|uuid| uuid.parse().unwrap());
        let row = Row { making: known.making.attempt, uuid, is_made: known.ready };
        self.memory.rows().insert(self.vm.clone(), row);
        Ok(())
    }
}

impl Memory {
    fn rows(&self) -> MutexGuard<'_, HashMap<VmName, Row>> {
        self.rows.lock().unwrap()
    }

    fn attempts(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.attempts.lock().unwrap()
    }

    /// Remembers an attempt that has no journal.
    pub(crate) fn copying(&self, vm: &VmName, making: Uuid) {
        self.attempts().insert(making);
        self.rows().insert(vm.clone(), Row { making, uuid: None, is_made: false });
    }

    pub(crate) fn made(&self, vm: &VmName, uuid: Uuid) {
        if let Some(row) = self.rows().get_mut(vm) {
            (row.uuid, row.is_made) = (Some(uuid), true);
        }
    }

    pub(crate) fn forget(&self, vm: &VmName) {
        self.rows().remove(vm);
    }
}

impl Controller {
    /// Collects what it takes for leaks while its VMs live: nothing of those.
    pub(crate) async fn collect(&self) -> Result<usize, String> {
        let view = {
            let rows = self.memory.rows();
            let making: HashSet<_> =
                rows.iter().filter(|(_, row)| !row.is_made).map(|(vm, _)| vm.clone()).collect();
            let vms: HashSet<_> = rows.values().filter_map(|row| row.uuid).collect();
            let attempts: HashSet<_> = rows.values().map(|row| row.making).collect();
            (making, vms, attempts)
        };
        let (making, vms, going_on) = view;
        let known_attempts = self.memory.attempts().clone();
        let attempt = |id: Uuid| match (going_on.contains(&id), known_attempts.contains(&id)) {
            (true, _) => Attempt::Alive,
            (false, true) => Attempt::Dead,
            (false, false) => Attempt::Unknown,
        };
        let known = Knowledge {
            owner: self.pool.owner(),
            now: Timestamp::UNIX_EPOCH,
            // A fleet that lives, and has forgotten some.
            alive: &|fleet| fleet == self.fleet && !rows_are_empty(&self.memory),
            attempt: &attempt,
            making: &|vm| making.contains(vm),
            vms: &vms,
        };
        let found = leaks::find(&self.pool.mirror().view(), &known);
        let mut removed = 0;
        for outcome in leaks::collect(&self.pool, found).await {
            match outcome.fate {
                Fate::Removed { .. } => removed += 1,
                Fate::Gone | Fate::Changed | Fate::Kept => {}
                Fate::Failed(error) => return Err(format!("{error:?}")),
            }
        }
        Ok(removed)
    }
}

fn rows_are_empty(memory: &Memory) -> bool {
    memory.rows().is_empty()
}

/// A pool with everything that is to happen on it.
pub(crate) struct World {
    pub(crate) sim: Pool,
    pub(crate) controllers: Vec<Controller>,
    pub(crate) port: u16,
    moments: AtomicUsize,
    acts: Vec<(usize, Duration, Act)>,
    under_way: Mutex<JoinSet<()>>,
    hosts: Vec<(Uuid, u64)>,
    storages: Vec<Uuid>,
    template: Uuid,
    before: There,
    /// What was made to vanish, and is not there any more for that.
    vanished: Mutex<bool>,
    _password: tempfile::NamedTempFile,
}

/// Rows of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct There {
    pub(crate) vms: BTreeSet<(String, String)>,
    pub(crate) disks: BTreeSet<(String, String)>,
}

/// How to connect to a simulated pool.
pub(crate) fn settings(url: &str, password: &std::path::Path) -> PoolSettings {
    PoolSettings {
        name: PoolName::new("lab").unwrap(),
        addresses: vec![url.parse().unwrap()],
        user: "root".into(),
        password: SecretReference::File(password.into()),
        trust: TrustSettings::Nothing,
        guests: bioxen_xcp::GuestSettings::default(),
    }
}

/// The port of the guests' SSH servers.
pub(crate) fn port() -> u16 {
    if nix::unistd::geteuid().is_root() { 22 } else { 2222 }
}

/// All VMs and disks of a pool.
pub(crate) async fn there(pool: &ConnectedPool) -> There {
    let client = pool.client();
    let vms = client.vm().get_all_records().await.unwrap();
    let disks = client.vdi().get_all_records().await.unwrap();
    There {
        vms: vms.values().map(|vm| (vm.name_label.clone(), vm.uuid.clone())).collect(),
        disks: disks.values().map(|it| (it.name_label.clone(), it.uuid.clone())).collect(),
    }
}

impl World {
    pub(crate) async fn new(story: &Story) -> Arc<Self> {
        let mut builder = Pool::builder().http().seed(story.seed).password(PASSWORD);
        builder = builder.hosts(story.hosts).event_batching(Duration::ZERO);
        if story.enters {
            let port = Some(port());
            let options = ProcessOptions { ssh_port: port, ..ProcessOptions::default() };
            builder = builder.process_guests(options);
        }
        let sim = builder.start().await.unwrap();
        let password = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(password.path(), PASSWORD).unwrap();
        let settings = settings(&sim.url(), password.path());
        let care = Care { between_power_operations: Duration::ZERO, ..Care::default() };
        let fails_at = story.mishaps.iter().find_map(|mishap| match mishap {
            Mishap::Journal(number) => Some(*number),
            _ => None,
        });
        let mut controllers = Vec::new();
        for number in 0..story.controllers {
            let owner = Uuid::from_u128(0xb10 + number as u128);
            let pool = ConnectedPool::open(&settings, owner, care).await.unwrap();
            let memory = Arc::new(Memory { fails_at, ..Memory::default() });
            let fleet = Uuid::from_u128(0xf1ee7 + number as u128);
            controllers.push(Controller { pool, memory, fleet });
        }
        let pool = &controllers[0].pool;
        let (hosts, storages, template) = {
            let view = pool.mirror().view();
            let hosts = view.iter::<class::Host>().map(|(_, host)| {
                let memory = view.get(&host.metrics).map_or(0, |it| it.memory_total);
                (host.uuid.parse().unwrap(), memory.cast_unsigned())
            });
            let mut hosts: Vec<_> = hosts.collect();
            hosts.sort_unstable();
            let kinds = ["nfs", "lvm"];
            let storages = view.iter::<class::Sr>().filter(|(_, sr)| kinds.contains(&&*sr.r#type));
            let storages = storages.map(|(_, sr)| sr.uuid.parse().unwrap()).collect();
            let template = view.by_name::<class::Vm>(TEMPLATE).next().unwrap().1;
            (hosts, storages, template.uuid.parse().unwrap())
        };
        let before = there(pool).await;
        let acts = story.mishaps.iter().filter_map(|mishap| match mishap {
            Mishap::At(moment, after, act) => Some((*moment, *after, *act)),
            _ => None,
        });
        let world = Arc::new(Self {
            acts: acts.collect(),
            moments: AtomicUsize::new(0),
            under_way: Mutex::default(),
            vanished: Mutex::new(false),
            port: port(),
            sim,
            controllers,
            hosts,
            storages,
            template,
            before,
            _password: password,
        });
        for mishap in &story.mishaps {
            match mishap {
                Mishap::Calls(rule) => {
                    world.sim.fault(rule.clone());
                }
                Mishap::Guests(fault) => {
                    world.sim.guest_fault(GuestFaultRule::new("*", [*fault]));
                }
                Mishap::Slow(call, time) => world.sim.set_latency(*call, *time),
                Mishap::Journal(_) | Mishap::At(..) => {}
            }
        }
        world
    }

    /// Tells that the next thing happens in a life, and lets go wrong what is due then.
    pub(crate) fn moment(self: &Arc<Self>) {
        let now = self.moments.fetch_add(1, Ordering::Relaxed);
        for (_, after, act) in self.acts.iter().filter(|(moment, ..)| *moment == now) {
            let (world, after, act) = (Arc::clone(self), *after, *act);
            self.under_way.lock().unwrap().spawn(async move {
                tokio::time::sleep(after).await;
                world.act(act).await;
            });
        }
    }

    async fn act(&self, act: Act) {
        match act {
            Act::RestartToolstack => self.sim.restart_toolstack(),
            Act::LoseSessions => self.sim.lose_sessions(),
            Act::LoseEvents => self.sim.lose_events(),
            Act::FillStorage => {
                for storage in &self.storages {
                    self.sim.fill_storage(*storage, true);
                }
            }
            Act::TakeMemory => {
                for (host, _) in &self.hosts {
                    self.sim.set_host_memory(*host, 1 << 29);
                }
            }
            Act::KillHost => {
                // A pool whose master is dead answers nothing, which other mishaps try.
                let master = self.master();
                for (host, _) in self.hosts.iter().filter(|(host, _)| Some(*host) != master) {
                    self.sim.kill_host(*host).await;
                }
            }
            Act::VanishTemplate => {
                *self.vanished.lock().unwrap() = true;
                self.sim.vanish(self.template).await;
            }
            Act::VanishVm => {
                for vm in self.ours() {
                    self.sim.vanish(vm).await;
                }
            }
            Act::EndGuest(how) => {
                for vm in self.ours() {
                    self.control(&format!("/_sim/vms/{vm}/{how}")).await;
                }
            }
        }
    }

    fn master(&self) -> Option<Uuid> {
        let view = self.controllers[0].pool.mirror().view();
        let (_, pool) = view.iter::<class::Pool>().next()?;
        view.get(&pool.master)?.uuid.parse().ok()
    }

    /// The VMs that were not there before.
    fn ours(&self) -> Vec<Uuid> {
        let view = self.controllers[0].pool.mirror().view();
        let vms = view.iter::<class::Vm>().filter(|(_, vm)| !vm.is_a_template);
        let ours = vms
            .filter(|(_, vm)| !self.before.vms.contains(&(vm.name_label.clone(), vm.uuid.clone())));
        ours.map(|(_, vm)| vm.uuid.parse().unwrap()).collect()
    }

    /// Asks the simulator for something that may have come too late.
    async fn control(&self, path: &str) {
        let url = self.sim.url();
        let address: SocketAddr = url.trim_start_matches("http://").parse().unwrap();
        let login = format!("root:{PASSWORD}");
        let login = base64::engine::general_purpose::STANDARD.encode(login);
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: sim\r\nAuthorization: Basic {login}\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let mut answer = post(address, &request).await;
        // The toolstack may have been restarted just now, which ends all connections.
        for _ in 0..3 {
            if answer.is_ok() {
                break;
            }
            answer = post(address, &request).await;
        }
        let answer = answer.unwrap();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["200", "204", "404", "409"].contains(&status), "{path}: {answer}");
    }

    /// Ends whatever goes wrong.
    pub(crate) async fn heal(&self) {
        let mut under_way = std::mem::take(&mut *self.under_way.lock().unwrap());
        while let Some(ended) = under_way.join_next().await {
            ended.unwrap();
        }
        self.sim.forget_fault(None);
        self.sim.forget_guest_fault(None);
        for call in ["VM.*", "VDI.*", "VM.clone"] {
            self.sim.set_latency(call, Duration::ZERO);
        }
        for (host, memory) in &self.hosts {
            self.sim.revive_host(*host);
            self.sim.set_host_memory(*host, *memory);
        }
        for storage in &self.storages {
            self.sim.fill_storage(*storage, false);
        }
    }

    /// Collects what was left when all is over; how much that was, or what is wrong with it.
    pub(crate) async fn collect(&self) -> Result<usize, String> {
        let mut removed = 0;
        for controller in &self.controllers {
            let pool = &controller.pool;
            pool.settled().await;
            let quiet = pool.mirror().wait_until("all operations to end", MINUTE, |view| {
                let mut vms = view.iter::<class::Vm>();
                vms.all(|(_, vm)| vm.current_operations.is_empty()).then_some(())
            });
            quiet.await.map_err(|error| format!("it does not become quiet: {error:?}"))?;
            controller.memory.rows().clear();
            for _ in 0..2 {
                let barrier = pool.mirror().barrier(MINUTE).await;
                barrier.map_err(|error| format!("the mirror is lost: {error:?}"))?;
                removed += controller.collect().await?;
            }
        }
        let after = there(&self.controllers[0].pool).await;
        let more = |after: &BTreeSet<_>, before: &BTreeSet<_>| -> Vec<(String, String)> {
            after.difference(before).cloned().collect()
        };
        let left = more(&after.vms, &self.before.vms);
        let left_disks = more(&after.disks, &self.before.disks);
        if !left.is_empty() || !left_disks.is_empty() {
            let mirror = self.controllers[0].pool.mirror();
            let shown = left.iter().map(|(_, uuid)| {
                let shown = mirror.by_uuid::<class::Vm>(uuid);
                shown.map(|(_, vm)| {
                    (vm.name_label.clone(), vm.is_a_template, vm.other_config.clone())
                })
            });
            let shown: Vec<_> = shown.collect();
            return Err(format!(
                "left behind: vms {left:?}, disks {left_disks:?}; the mirror shows {shown:?}"
            ));
        }
        let gone = more(&self.before.vms, &after.vms);
        let gone_disks = more(&self.before.disks, &after.disks);
        let may_be_gone = *self.vanished.lock().unwrap();
        let is_whole = gone.is_empty() && gone_disks.is_empty();
        if !may_be_gone && !is_whole {
            return Err(format!("removed what is not ours: vms {gone:?}, disks {gone_disks:?}"));
        }
        Ok(removed)
    }
}

/// Sends a request over a connection of its own.
async fn post(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}
