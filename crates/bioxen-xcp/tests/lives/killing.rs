//! A controller that is killed by SIGKILL while it makes a VM or deletes it, wherever it is: what it leaves is
//! finished or removed by the next one, from what was noted down in the state; of a VM that is not to outlive its
//! controller nothing was, and all that is left of it is collected by what it says of itself on the pool.
//!
//! The controller is this program, started again. It is killed at each of its own events and notes, and,
//! by the connection that it has to its pool, before each of its calls arrives there and before each of the
//! answers arrives here.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bioxen_core::{Event, VmName, VmSpec};
use bioxen_state::{Controller, NewVm, Phase, Source, State, StateError, Vm};
use bioxen_xcp::leaks::{self, Attempt, Fate, Knowledge};
use bioxen_xcp::machine::MachineError;
use bioxen_xcp::making::{
    self, DeadAttempt, Entry, Journal, JournalError, Known, MakeOrder, NoJournal, WorkerSource,
};
use bioxen_xcp::plan::Deadlines;
use bioxen_xcp::ssh::{ClientKey, Login};
use bioxen_xcp::tags::MakingLabel;
use bioxen_xcp::{Care, ConnectedPool, Machine};
use futures::future::join_all;
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use xenapi::class;
use xenapi::enums::VmPowerState;
use xenapi_sim::Pool;
use xenapi_sim::guest::ProcessOptions;

use crate::story::Life;
use crate::world::{PASSWORD, There, port, settings, there};

/// The variable by which this program is told to be a controller.
const ORDER: &str = "BIOXEN_LIVES_CONTROLLER";

/// How many controllers are killed side by side.
const AT_ONCE: usize = 4;

const MINUTE: Duration = Duration::from_mins(1);

/// What a controller is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    url: String,
    password: PathBuf,
    state: PathBuf,
    charge: Charge,
    /// At which of its own moments it is killed, if at one of those.
    dies_at: Option<usize>,
}

/// Who knows of the VM that a controller makes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Charge {
    /// The state: it may outlive its controller.
    Noted,
    /// Its controller alone.
    OfFleet,
}

/// When a controller is killed.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// At its event or note of this number.
    Moment(usize),
    /// Before its call of this number arrives at the pool.
    Call(usize),
    /// Before the answer to its call of this number arrives.
    Answer(usize),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moment(number) => write!(f, "killed at its moment {number}"),
            Self::Call(number) => write!(f, "killed before its call {number}"),
            Self::Answer(number) => write!(f, "killed before the answer to its call {number}"),
        }
    }
}

fn spec() -> VmSpec {
    let life = Life {
        name: "mortal".into(),
        full_copy: false,
        memory: Some(bioxen_core::ByteSize::gib(3)),
        vcpus: None,
        disk: Some(bioxen_core::ByteSize::gib(12)),
        networks: 1,
        is_of_fleet: false,
        patience: None,
        verbs: Vec::new(),
        is_deleted: true,
    };
    life.spec(port())
}

fn worker() -> WorkerSource {
    if Path::new("/usr/bin/lua5.4").exists() { WorkerSource::None } else { WorkerSource::Find }
}

/// Notes in the state what a controller does.
struct Notes {
    state: Arc<State>,
    controller: uuid::Uuid,
    moments: Arc<Moments>,
}

/// Counts what a controller does, and kills it when it is its time.
struct Moments {
    number: AtomicUsize,
    dies_at: Option<usize>,
}

impl Moments {
    fn next(&self) {
        let number = self.number.fetch_add(1, Ordering::SeqCst) + 1;
        if self.dies_at == Some(number) {
            raise(Signal::SIGKILL).unwrap();
        }
    }
}

#[async_trait]
impl Journal for Notes {
    async fn note(&self, known: &Known) -> Result<(), JournalError> {
        self.moments.next();
        let noted = note(&self.state, self.controller, known);
        noted.map_err(|error| JournalError(error.into()))?;
        self.moments.next();
        Ok(())
    }
}

fn note(state: &State, controller: uuid::Uuid, known: &Known) -> Result<(), StateError> {
    let plan = known.plan.as_ref();
    let name: VmName = "mortal".parse().unwrap();
    if state.find_vm(&name)?.is_none() {
        let template = &plan.unwrap().template;
        state.begin(NewVm {
            name: name.clone(),
            pool: "lab".into(),
            pool_uuid: "lab".into(),
            source: Source::Template {
                name: template.name.clone(),
                uuid: template.uuid.clone(),
                making_label: known.making.to_string(),
            },
            created: Timestamp::now(),
            expires: None,
            controller: Some(controller),
            spec: "{}".into(),
        })?;
    }
    state.update(&name, |vm| {
        vm.uuid.clone_from(&known.uuid);
        if let Some(entry) = &known.entry {
            vm.ssh_user = Some(entry.user.clone());
            vm.ssh_port = entry.port;
            vm.host_key = Some(entry.host_key.to_string());
            let key = entry.client_key().unwrap().to_openssh();
            vm.client_key = Some(bioxen_state::Secret::from(key.expose().to_owned()));
        }
    })?;
    if known.ready {
        state.ready(&name)?;
    }
    Ok(())
}

/// What a controller does that is started here: it makes a VM, and deletes it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is started, and killed, by the other tests here"]
async fn a_controller() {
    let order = std::env::var(ORDER).expect("the other tests say what it is to do");
    let order: Order = serde_json::from_str(&order).unwrap();
    let state = Arc::new(State::open(&order.state).unwrap());
    let controller = state.controller().unwrap();
    let moments = Arc::new(Moments { number: AtomicUsize::new(0), dies_at: order.dies_at });
    let settings = settings(&order.url, &order.password);
    let pool = ConnectedPool::open(&settings, state.installation(), Care::default());
    let pool = pool.await.unwrap();
    let heard = Arc::clone(&moments);
    let journal: Arc<dyn Journal> = match order.charge {
        Charge::Noted => Arc::new(Notes {
            state: Arc::clone(&state),
            controller: controller.id(),
            moments: Arc::clone(&moments),
        }),
        Charge::OfFleet => Arc::new(NoJournal),
    };
    let fleet = match order.charge {
        Charge::Noted => None,
        Charge::OfFleet => Some(controller.id()),
    };
    let made = making::make(MakeOrder {
        pool: Arc::clone(&pool),
        spec: spec(),
        fleet,
        run: None,
        worker: worker(),
        journal,
        deadlines: Deadlines::default(),
        report: Arc::new(move |event| {
            if matches!(event, Event::StepStarted { .. } | Event::StepEnded { .. }) {
                heard.next();
            }
        }),
    });
    let made = made.await.unwrap();
    drop(made.connection);
    let name: VmName = "mortal".parse().unwrap();
    moments.next();
    if matches!(order.charge, Charge::Noted) {
        state.deleting(&name, &controller).unwrap();
        moments.next();
    }
    Machine::find(&pool, "mortal").unwrap().delete().await.unwrap();
    moments.next();
    if matches!(order.charge, Charge::Noted) {
        state.forget(&name).unwrap();
        moments.next();
    }
    pool.close().await.unwrap();
}

/// A pool, and the way to it that a controller has.
struct Scene {
    sim: Pool,
    password: tempfile::NamedTempFile,
    state: tempfile::TempDir,
    charge: Charge,
}

impl Scene {
    async fn new(charge: Charge) -> Self {
        let options = ProcessOptions { ssh_port: Some(port()), ..ProcessOptions::default() };
        let sim = Pool::builder().http().password(PASSWORD).event_batching(Duration::ZERO);
        let sim = sim.process_guests(options).start().await.unwrap();
        let password = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(password.path(), PASSWORD).unwrap();
        Self { sim, password, state: tempfile::tempdir().unwrap(), charge }
    }

    fn start(&self, url: String, dies_at: Option<usize>) -> Child {
        let order = Order {
            url,
            password: self.password.path().into(),
            state: self.state.path().into(),
            charge: self.charge,
            dies_at,
        };
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killing::a_controller", "--ignored", "--nocapture"])
            .env(ORDER, serde_json::to_string(&order).unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Lets a controller live until then; whether it was killed.
    async fn kill(&self, death: Death) -> bool {
        let to = self.sim.url().trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let dies_at = match death {
            Death::Moment(number) => Some(number),
            Death::Call(_) | Death::Answer(_) => None,
        };
        let mut child = self.start(url, dies_at);
        let pid = Pid::from_raw(child.id().unwrap().cast_signed());
        let (open, mut closed) = mpsc::channel::<()>(1);
        let way = tokio::spawn(Way::new(death, pid, open).open(listener, to));
        let ended = tokio::time::timeout(MINUTE * 3, child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{death}: it does not end")).unwrap();
        way.abort();
        // What was on its way to the pool arrives before anybody cleans up: what comes later is found later.
        let arrived = tokio::time::timeout(MINUTE, closed.recv()).await;
        assert_eq!(arrived, Ok(None), "{death}: the pool still speaks to a dead controller");
        let was_killed = std::os::unix::process::ExitStatusExt::signal(&ended) == Some(9);
        assert!(was_killed || ended.success(), "{death}: {ended}");
        was_killed
    }
}

/// The way of a controller to its pool, on which death waits.
#[derive(Clone)]
struct Way {
    death: Death,
    controller: Pid,
    calls: Arc<AtomicUsize>,
    /// Held for as long as anything can come this way.
    _open: mpsc::Sender<()>,
}

impl Way {
    fn new(death: Death, controller: Pid, open: mpsc::Sender<()>) -> Self {
        Self { death, controller, calls: Arc::default(), _open: open }
    }

    async fn open(self, listener: TcpListener, to: String) {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(&to).await.unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let answer_is_last = Arc::new(AtomicBool::new(false));
            let (there, last) = (self.clone(), Arc::clone(&answer_is_last));
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
                    match there.passes(&buffer[..count]) {
                        Passage::Free => {}
                        Passage::Answerless => last.store(true, Ordering::SeqCst),
                        Passage::None => return end(there.controller),
                    }
                    if to_server.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
            let controller = self.controller;
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                    if answer_is_last.load(Ordering::SeqCst) {
                        return end(controller);
                    }
                    if to_client.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    }

    /// What becomes of bytes that a controller sends.
    fn passes(&self, bytes: &[u8]) -> Passage {
        let text = String::from_utf8_lossy(bytes);
        let method = text.split_once("\"method\":\"").and_then(|(_, rest)| rest.split_once('"'));
        // Those come whenever they come.
        let is_call = method.is_some_and(|(method, _)| {
            !method.starts_with("event.") && !method.starts_with("session.")
        });
        if !is_call && !text.starts_with("PUT /") {
            return Passage::Free;
        }
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        match self.death {
            Death::Call(last) if number == last => Passage::None,
            Death::Answer(last) if number == last => Passage::Answerless,
            Death::Call(_) | Death::Answer(_) | Death::Moment(_) => Passage::Free,
        }
    }
}

fn end(controller: Pid) {
    // It may have ended by itself in this moment.
    let _ = kill(controller, Signal::SIGKILL);
}

enum Passage {
    Free,
    Answerless,
    None,
}

/// What a controller does first: it finishes or removes what dead ones have left.
async fn recover(state: &State, pool: &Arc<ConnectedPool>, controller: &Controller) {
    for vm in state.abandoned().unwrap() {
        let name = vm.name().clone();
        let vm = state.claim(&name, controller).unwrap();
        match vm.phase() {
            Phase::Ready => drop(state.release(&name).unwrap()),
            Phase::Making if finish(state, pool, controller, &vm).await => {
                state.release(&name).unwrap();
            }
            Phase::Making | Phase::Deleting => {
                remove(pool, &vm).await.unwrap();
                state.forget(&name).unwrap();
            }
        }
    }
}

/// Whether a VM could be finished.
async fn finish(
    state: &State,
    pool: &Arc<ConnectedPool>,
    controller: &Controller,
    vm: &Vm,
) -> bool {
    pool.mirror().barrier(MINUTE).await.unwrap();
    let Some(uuid) = &vm.uuid else { return false };
    let Some((reference, record)) = pool.mirror().by_uuid::<class::Vm>(uuid) else { return false };
    let (Some(host_key), Some(client_key)) = (&vm.host_key, &vm.client_key) else { return false };
    if record.power_state != VmPowerState::Running {
        return false;
    }
    let client_key = xenapi::Secret::from(client_key.expose().to_owned());
    let known = Known {
        making: vm.making_label().and_then(MakingLabel::read).unwrap(),
        uuid: Some(uuid.clone()),
        plan: None,
        entry: Some(Entry {
            user: vm.ssh_user.clone().unwrap(),
            port: vm.ssh_port,
            host_key: host_key.parse().unwrap(),
            login: Login::Key(ClientKey::from_openssh(&client_key).unwrap()),
        }),
        address: None,
        seed: None,
        ready: false,
    };
    let order = MakeOrder {
        pool: Arc::clone(pool),
        spec: spec(),
        fleet: None,
        run: None,
        worker: worker(),
        journal: Arc::new(NoJournal),
        deadlines: Deadlines::default(),
        report: Arc::new(|_| {}),
    };
    let made = making::finish(order, reference, known).await;
    assert!(state.is_alive(controller.id()).unwrap());
    made.unwrap();
    state.ready(vm.name()).unwrap();
    true
}

async fn remove(pool: &Arc<ConnectedPool>, vm: &Vm) -> Result<(), MachineError> {
    let Source::Template { uuid: template, .. } = vm.source() else { panic!("it was made") };
    let attempt = DeadAttempt {
        vm: vm.name().clone(),
        making: vm.making_label().and_then(MakingLabel::read).unwrap(),
        template: template.clone(),
        uuid: vm.uuid.clone(),
    };
    making::remove_attempt(pool, &attempt).await
}

/// Collects what the state does not know of, once the pool has done what it was asked for.
async fn collect(state: &State, pool: &Arc<ConnectedPool>) {
    let mirror = pool.mirror();
    let quiet = mirror.wait_until("all operations to end", MINUTE, |view| {
        view.iter::<class::Vm>().all(|(_, vm)| vm.current_operations.is_empty()).then_some(())
    });
    quiet.await.unwrap();
    mirror.barrier(MINUTE).await.unwrap();
    let rows = state.vms().unwrap();
    let vms: HashSet<_> = rows.iter().filter_map(|vm| vm.uuid.as_ref()?.parse().ok()).collect();
    let known = Knowledge {
        owner: state.installation(),
        now: Timestamp::now(),
        alive: &|id| state.is_alive(id).unwrap(),
        attempt: &|_| Attempt::Unknown,
        making: &|_| false,
        vms: &vms,
    };
    let found = leaks::find(&pool.mirror().view(), &known);
    for outcome in leaks::collect(pool, found).await {
        assert!(matches!(outcome.fate, Fate::Removed { .. } | Fate::Gone), "{outcome:?}");
    }
}

/// Collects until it is clean: what was on the wire when a controller died comes when it comes, and is found by
/// the collection after that.
async fn collect_until(
    state: &State,
    pool: &Arc<ConnectedPool>,
    death: Death,
    is_clean: impl Fn(&There) -> bool,
) {
    let began = Instant::now();
    loop {
        collect(state, pool).await;
        let left = there(pool).await;
        if is_clean(&left) {
            return;
        }
        assert!(began.elapsed() < MINUTE, "{death}: there is {left:?}");
    }
}

/// Kills a controller, lets another one clean up, and looks whether it has; whether the first was killed.
async fn die_and_recover(charge: Charge, death: Death) -> bool {
    let scene = Scene::new(charge).await;
    let state = State::open(scene.state.path()).unwrap();
    let settings = settings(&scene.sim.url(), scene.password.path());
    let pool = ConnectedPool::open(&settings, state.installation(), Care::default());
    let pool = pool.await.unwrap();
    let before = there(&pool).await;
    let was_killed = scene.kill(death).await;
    let controller = state.controller().unwrap();
    recover(&state, &pool, &controller).await;
    assert_eq!(state.abandoned().unwrap(), [], "{death}");
    let rows = state.vms().unwrap();
    assert!(rows.iter().all(|vm| vm.phase() == Phase::Ready), "{death}: {rows:?}");
    let names = |there: &There| -> HashSet<(String, String)> {
        there.vms.difference(&before.vms).cloned().collect()
    };
    let ready: HashSet<_> =
        rows.iter().map(|vm| (vm.name().to_string(), vm.uuid.clone().unwrap())).collect();
    collect_until(&state, &pool, death, |there| names(there) == ready).await;
    for vm in rows {
        Machine::find(&pool, vm.uuid.as_deref().unwrap()).unwrap().delete().await.unwrap();
        state.forget(vm.name()).unwrap();
    }
    collect_until(&state, &pool, death, |there| *there == before).await;
    pool.close().await.unwrap();
    was_killed
}

/// Dies one death after the other, until a controller comes to its end before that.
async fn every(charge: Charge, death: impl Fn(usize) -> Death) -> usize {
    let mut died = 0;
    for first in (1..).step_by(AT_ONCE) {
        let deaths = (first..first + AT_ONCE).map(|number| die_and_recover(charge, death(number)));
        let killed = join_all(deaths).await;
        died += killed.iter().filter(|was_killed| **was_killed).count();
        if killed.contains(&false) {
            return died;
        }
    }
    unreachable!("there is an end to what a controller does")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_killed_at_any_of_its_steps_leaves_what_the_next_one_sees_to() {
    let died = every(Charge::Noted, Death::Moment).await;
    assert!(died > 30, "it was killed {died} times only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_killed_before_any_of_its_calls_leaves_what_the_next_one_sees_to() {
    let died = every(Charge::Noted, Death::Call).await;
    assert!(died > 20, "it was killed {died} times only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_is_killed_after_any_of_its_calls_leaves_what_the_next_one_sees_to() {
    let died = every(Charge::Noted, Death::Answer).await;
    assert!(died > 20, "it was killed {died} times only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_is_killed_at_any_of_its_steps_leaves_what_is_collected() {
    let died = every(Charge::OfFleet, Death::Moment).await;
    assert!(died > 20, "it was killed {died} times only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_is_killed_before_any_of_its_calls_leaves_what_is_collected() {
    let died = every(Charge::OfFleet, Death::Call).await;
    assert!(died > 20, "it was killed {died} times only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_is_killed_after_any_of_its_calls_leaves_what_is_collected() {
    let died = every(Charge::OfFleet, Death::Answer).await;
    assert!(died > 20, "it was killed {died} times only");
}
