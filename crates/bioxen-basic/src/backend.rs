//! The backend: from a spec to a worker that is ready.

use std::collections::HashMap;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bioxen_core::backend::{Backend, Link, ShutdownError, StartError, Started};
use bioxen_core::protocol::zygote::{Kind, Order};
use bioxen_core::protocol::{Decoder, Hello, Reply, decode};
use bioxen_core::{
    Grants, Interpreter, InterpreterFacts, Isolation, Limit, Limits, Mechanism, VmSpec, VmType,
};
use bioxen_worker::Cgroup;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tracing::debug;

use crate::link::SocketLink;
use crate::worker_program::WorkerProgram;
use crate::zygote::{Process, Zygote};
use crate::{interpreters, paths};

/// How long a worker may take to introduce itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many zygotes may turn out to be gone before a VM is given up.
const ZYGOTES_TO_TRY: u32 = 3;

/// The largest message of a worker that has not run any code.
const LARGEST_INTRODUCTION: usize = 64 << 10;

/// Makes VMs of type `basic`. Starts nothing before the first one is asked for.
pub struct BasicBackend {
    shared: Arc<Shared>,
}

struct Shared {
    program: WorkerProgram,
    standby: usize,
    /// One for each kind of worker that was asked for.
    zygotes: Mutex<HashMap<Kind, Slot>>,
    retired: Mutex<Vec<Arc<Zygote>>>,
    ready: Mutex<Vec<Worker>>,
    /// Makes workers that stand by, as long as there are too few.
    refill: Mutex<Option<JoinHandle<()>>>,
}

/// A place for a zygote, locked while one is started.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Zygote>>>>;

/// A worker that has introduced itself.
struct Worker {
    link: SocketLink,
    process: Process,
    hello: Hello,
    isolation: Isolation,
}

impl BasicBackend {
    /// A backend whose workers come from `program`, and which keeps `standby` of them ready for
    /// VMs that ask for nothing special.
    pub fn new(program: WorkerProgram, standby: usize) -> Self {
        let shared = Shared {
            program,
            standby,
            zygotes: Mutex::default(),
            retired: Mutex::default(),
            ready: Mutex::default(),
            refill: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }
}

#[async_trait]
impl Backend for BasicBackend {
    fn vm_type(&self) -> VmType {
        VmType::Basic
    }

    async fn start(&self, spec: &VmSpec) -> Result<Started, StartError> {
        let program = match &spec.interpreter {
            Interpreter::Embedded => None,
            Interpreter::Program(program) => Some(interpreters::probe(program)?),
        };
        let standing_by = if fits_standby(spec) { self.shared.take_standby() } else { None };
        let (worker, order) = if let Some(worker) = standing_by {
            (worker, standby_order())
        } else {
            let order = order(spec, program.as_ref().map(|(path, _)| path.as_path()))?;
            (self.shared.make_worker(order.clone(), spec.name.as_str()).await?, order)
        };
        worker.isolation.meets(spec)?;
        let platform = match worker.hello.platform.as_str() {
            "unknown" => format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            known => known.to_owned(),
        };
        let interpreter = match program {
            Some((path, version)) => InterpreterFacts { version, program: Some(path), platform },
            None => InterpreterFacts { version: worker.hello.interpreter, program: None, platform },
        };
        Ok(Started {
            link: Box::new(worker.link),
            machine: Box::new(worker.process),
            interpreter,
            isolation: worker.isolation,
            grants: order.grants,
            environment: order.environment,
            working_directory: order.working_directory,
            machine_facts: None,
        })
    }

    async fn shutdown(&self) -> Result<(), ShutdownError> {
        // It would start another zygote in the place of the one that ends.
        let refill = self.shared.refill.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(refill) = refill {
            refill.abort();
            let _ = refill.await;
        }
        self.shared.lock_ready().clear();
        let mut zygotes = std::mem::take(
            &mut *self.shared.retired.lock().unwrap_or_else(PoisonError::into_inner),
        );
        let slots = std::mem::take(&mut *self.shared.lock_zygotes());
        for slot in slots.into_values() {
            zygotes.extend(slot.lock().await.take());
        }
        let mut outcome = Ok(());
        for zygote in zygotes {
            let ended = tokio::task::spawn_blocking(move || match Arc::try_unwrap(zygote) {
                Ok(mut zygote) => zygote.end(),
                // An order is under way; the last one to hold it ends it.
                Err(_) => Ok(()),
            });
            outcome = outcome.and(ended.await.unwrap_or_else(|_| {
                Err(ShutdownError { left: "the zygote".into(), source: None })
            }));
        }
        outcome
    }
}

/// Whether a worker that was made for nobody in particular will do.
fn fits_standby(spec: &VmSpec) -> bool {
    let usual = Limits::default();
    let small_enough = matches!((spec.limits.memory, usual.memory), (Limit::Of(asked), Limit::Of(usual)) if asked <= usual);
    spec.interpreter == Interpreter::Embedded
        && spec.grants.is_none()
        && spec.working_directory.is_none()
        && spec.limits.open_files == usual.open_files
        && small_enough
}

fn order(spec: &VmSpec, program: Option<&Path>) -> Result<Order, StartError> {
    let home = paths::home(spec)?;
    let grants = paths::resolve(spec, &home)?;
    let environment =
        grants.env.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
    Ok(Order {
        id: 0,
        program: program.map(Path::to_owned),
        environment: environment.collect(),
        grants,
        limits: spec.effective_limits(),
        working_directory: Some(home),
        cgroup: Vec::new(),
    })
}

/// The order for a worker that will stand by.
fn standby_order() -> Order {
    Order {
        id: 0,
        program: None,
        grants: Grants::none(),
        limits: Limits::default(),
        environment: std::collections::BTreeMap::new(),
        working_directory: None,
        cgroup: Vec::new(),
    }
}

impl Shared {
    fn lock_ready(&self) -> std::sync::MutexGuard<'_, Vec<Worker>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_zygotes(&self) -> std::sync::MutexGuard<'_, HashMap<Kind, Slot>> {
        self.zygotes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a worker that stands by, and has another one made in the background.
    fn take_standby(self: &Arc<Self>) -> Option<Worker> {
        if self.standby == 0 {
            return None;
        }
        let taken = self.lock_ready().pop();
        let mut refill = self.refill.lock().unwrap_or_else(PoisonError::into_inner);
        if refill.as_ref().is_some_and(|refill| !refill.is_finished()) {
            return taken;
        }
        let shared = Arc::downgrade(self);
        *refill = Some(tokio::spawn(async move {
            while let Some(shared) = shared.upgrade() {
                if shared.lock_ready().len() >= shared.standby {
                    return;
                }
                match shared.make_worker(standby_order(), "standby").await {
                    Ok(worker) => shared.lock_ready().push(worker),
                    Err(error) => return debug!(%error, "no worker could be made to stand by"),
                }
            }
        }));
        taken
    }

    async fn make_worker(&self, mut order: Order, vm: &str) -> Result<Worker, StartError> {
        let is_program = order.program.is_some();
        let cgroup = Kind::of(&order).spawn.then(|| Cgroup::create(&order.limits));
        let (cgroup, no_cgroup) = match cgroup {
            Some(Ok(cgroup)) => (Some(cgroup), None),
            Some(Err(reason)) => (None, Some(reason)),
            None => (None, None),
        };
        order.cgroup =
            cgroup.as_ref().map_or_else(Vec::new, |cgroup| cgroup.directories().to_vec());
        let (mut process, socket) = self.fork(&order).await?;
        process.hold(cgroup);
        let failed = |reason: String| StartError::Worker { vm: vm.to_owned(), reason };
        let socket = UnixStream::from_std(socket).map_err(|error| failed(error.to_string()))?;
        let mut link = SocketLink(socket);
        let introduced = tokio::time::timeout(PATIENCE, introduce(&mut link, is_program)).await;
        let (mut isolation, hello) = match introduced {
            Ok(Ok(introduced)) => introduced,
            Ok(Err(reason)) => {
                let said = process.last_words().await;
                return Err(failed(reason + &said));
            }
            Err(_) => return Err(failed(format!("it said nothing for {} s", PATIENCE.as_secs()))),
        };
        if let Some(reason) = no_cgroup {
            isolation.missed(Mechanism::Cgroup, reason);
        }
        Ok(Worker { link, process, hello, isolation })
    }

    /// Has a worker forked; where its zygote turns out to be gone, by another one.
    async fn fork(&self, order: &Order) -> Result<(Process, StdUnixStream), StartError> {
        for _ in 0..ZYGOTES_TO_TRY {
            let zygote = self.zygote(Kind::of(order)).await?;
            if let Some(forked) = zygote.fork(order.clone()).await? {
                return Ok(forked);
            }
        }
        let what = format!("{ZYGOTES_TO_TRY} zygotes ended, one after another, before they forked");
        Err(StartError::WorkerProgram { what, source: None })
    }

    /// The zygote of a kind, started if there is none that lives.
    async fn zygote(&self, kind: Kind) -> Result<Arc<Zygote>, StartError> {
        let slot = Arc::clone(self.lock_zygotes().entry(kind).or_default());
        let mut slot = slot.lock().await;
        if let Some(zygote) = slot.as_ref().filter(|zygote| !zygote.is_gone()) {
            return Ok(Arc::clone(zygote));
        }
        let program = self.program.locate()?;
        let zygote = Arc::new(Zygote::start(&program, kind).await?);
        if let Some(gone) = slot.replace(Arc::clone(&zygote)) {
            // Its workers live on, and with them what holds them to this process.
            self.retire(gone);
        }
        Ok(zygote)
    }

    /// Keeps a zygote that has died: its workers live on, and its lifeline holds them to this
    /// process.
    fn retire(&self, gone: Arc<Zygote>) {
        gone.reap();
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(gone);
    }
}

/// Reads a worker's first messages; to another interpreter, gives it the shim first.
async fn introduce(link: &mut SocketLink, is_program: bool) -> Result<(Isolation, Hello), String> {
    if is_program {
        link.send(bioxen_worker::SHIM.as_bytes()).await.map_err(|error| error.to_string())?;
    }
    let mut decoder = Decoder::new(LARGEST_INTRODUCTION);
    let mut isolation = None;
    loop {
        while let Some(payload) = decoder.next_payload().map_err(|error| error.to_string())? {
            match decode(&payload).map_err(|error| error.to_string())? {
                Reply::Sandboxed(reached) => isolation = Some(reached),
                Reply::Hello(hello) => {
                    hello.check_version().map_err(|error| error.to_string())?;
                    let isolation = isolation.ok_or("it was not held in")?;
                    return Ok((isolation, hello));
                }
                Reply::Fatal(reason) => return Err(reason.into_owned()),
                other => return Err(format!("it began with {other:?}")),
            }
        }
        match link.receive(decoder.space()).await {
            Ok(0) => return Err("it ended before it was ready".into()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}
