//! Making a virtual machine: from a plan to Lua in a guest, and back to nothing if that fails.
//!
//! ```text
//!         ┌▶ provision ─▶ size ─▶ disk ─▶ network ┐                                           ┌▶ unseed ───────┐
//! clone ──┤                                       ├─▶ start ─▶ address ─▶ ssh ─▶ cloud-init ──┤                ├─▶ ready
//!   │     └▶ seed ────────────────────────────────┘     │         │        │         │        └▶ files ─▶ lua ─┘
//!   └─────────┴───────────────────────────────────┴─────┴─────────┴────────┴─────────┴─────────────┴──▶ undo
//! ```
//!
//! What goes side by side is waited for to its end, even if the other side has failed: a call that is given up may
//! be carried out all the same.
//!
//! A copy of another machine is made by the same steps, but that it has its sizes and interfaces already.
//!
//! Each step has a deadline and is told of when it begins and when it ends. Whatever fails, and when
//! whoever waits for it goes away, all that was made is removed again. What a controller that was killed
//! leaves behind is found by its name or its [tags](crate::tags).

mod address;
mod copying;
mod error;
mod guest;
mod leasing;
mod machine;
mod setup;
mod undoing;
mod worker_image;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bioxen_core::backend::Report;
use bioxen_core::{Digest, Event, RunId, VmName, VmSpec};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;
use uuid::Uuid;
use xenapi::{Ref, Task, class};

pub use address::AddressSource;
pub(crate) use address::{address_of, told_or};
pub use copying::{copy_spec, make_copy, start_copy};
pub use error::{Cause, JournalError, MakeError};
pub use guest::{GuestLua, LuaError, copy_in, reach, start_lua};
pub use undoing::{DeadAttempt, remove_attempt};
pub use worker_image::{NoWorkerImage, WorkerSource};

use crate::call_home::Expected;
use crate::connected_pool::ConnectedPool;
use crate::machine::Machine;
use crate::plan::{Deadlines, Plan, PoolView, StepKind, Wanted};
use crate::ssh::{ClientKey, Connection, Login, PublicKey};
use crate::tags::{MakingLabel, Tags};

/// What is to be made, for whom, and who is told.
#[derive(Clone)]
pub struct MakeOrder {
    /// Where.
    pub pool: Arc<ConnectedPool>,
    /// What.
    pub spec: VmSpec,
    /// The controller that it is not to outlive, if any.
    pub fleet: Option<Uuid>,
    /// The run that it is made for, if any.
    pub run: Option<RunId>,
    /// Where our worker comes from.
    pub worker: WorkerSource,
    /// Where what is known of it is noted.
    pub journal: Arc<dyn Journal>,
    /// How long each step may take.
    pub deadlines: Deadlines,
    /// Who hears of the steps.
    pub report: Report,
}

/// Where what is known of a virtual machine in the making is noted, so that it can be found again
/// whatever happens to this program.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Notes it. When this has returned, it is to survive a crash; when it fails, making stops.
    async fn note(&self, known: &Known) -> Result<(), JournalError>;

    /// Gives a VM that was noted a free address; `None` where all are taken. Nobody else is to get it for as
    /// long as the VM is there. By default it is the lowest that can be: within one controller, none is given
    /// twice anyway.
    async fn lease(&self, vm: &VmName, wanted: &Wanted) -> Result<Option<IpAddr>, JournalError> {
        let _ = vm;
        Ok(wanted.lowest())
    }
}

/// Notes nothing: for machines that are not to outlive their controller, which their names tell of while they
/// are made, and their tags from then on.
#[derive(Clone, Copy, Debug)]
pub struct NoJournal;

#[async_trait]
impl Journal for NoJournal {
    async fn note(&self, _: &Known) -> Result<(), JournalError> {
        Ok(())
    }
}

/// What is known of a virtual machine.
#[derive(Clone, Debug)]
pub struct Known {
    /// Which attempt it is, and its name until it has been marked as ours.
    pub making: MakingLabel,
    /// Its identity on the pool, once it is there.
    pub uuid: Option<String>,
    /// The plan that it is made by, where that is not over.
    pub plan: Option<Arc<Plan>>,
    /// How its guest is entered, once that is known.
    pub entry: Option<Entry>,
    /// Where it is reached, once that is known.
    pub address: Option<(IpAddr, AddressSource)>,
    /// The digest of the disk by which its guest set itself up, once that was made.
    pub seed: Option<Digest>,
    /// Whether it is ready.
    pub ready: bool,
}

/// How a guest is entered.
#[derive(Clone)]
pub struct Entry {
    /// The guest's user.
    pub user: String,
    /// The port of its SSH server.
    pub port: u16,
    /// The key that the guest shows.
    pub host_key: PublicKey,
    /// How we prove who we are.
    pub login: Login,
}

impl Entry {
    /// The key that we show, where it is ours and not an agent's.
    pub fn client_key(&self) -> Option<&ClientKey> {
        match &self.login {
            Login::Key(key) => Some(key),
            Login::Agent(_) | Login::Password(_) => None,
        }
    }
}

/// A virtual machine that was made, with Lua in it.
pub struct Made {
    /// How the pool refers to it.
    pub vm: Ref<class::Vm>,
    /// All that is known of it.
    pub known: Known,
    /// The connection to its guest.
    pub connection: Connection,
    /// Lua in it.
    pub lua: GuestLua,
    /// What cloud-init complained about, but went on.
    pub warnings: Vec<String>,
    /// How long each step took, in the order in which they began.
    pub timeline: Vec<Timed>,
}

impl Made {
    /// How long it took until the last step had ended.
    pub fn took(&self) -> Duration {
        let ends = self.timeline.iter().map(|timed| timed.began + timed.took);
        ends.max().unwrap_or_default()
    }
}

/// How long a step took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Timed {
    /// Which.
    pub step: StepKind,
    /// How long after the making began, in microseconds in JSON. Some steps go side by side.
    #[serde(rename = "began_us", serialize_with = "as_microseconds")]
    pub began: Duration,
    /// How long, in microseconds in JSON.
    #[serde(rename = "took_us", serialize_with = "as_microseconds")]
    pub took: Duration,
}

fn as_microseconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Started,
    Lua,
}

/// Makes a virtual machine and starts it, without waiting for its guest: [`finish`] does that later.
///
/// When this fails, or its future is dropped, it is as with [`make`].
pub async fn start(order: MakeOrder) -> Result<Known, MakeError> {
    Ok(attempt(order, Origin::Template, Until::Started).await?.known())
}

/// Waits for the guest of a machine that was started, and starts Lua in it. A repeat does the same again.
///
/// When this fails the machine stays as it is.
pub async fn finish(order: MakeOrder, vm: Ref<class::Vm>, known: Known) -> Result<Made, MakeError> {
    let (_alive, abandoned) = watch::channel(());
    let (origin, making) = (Origin::Template, known.making);
    let attempt = Attempt::new(order, origin, making, abandoned);
    let seed = attempt.seed_of(&vm);
    let mut progress = Progress { vm: Some(vm), seed, known: Some(known), ..Progress::default() };
    let lua = async {
        let address = attempt.address(&mut progress).await?;
        attempt.in_the_guest(address, &mut progress).await
    };
    match lua.await {
        Ok((connection, lua)) => Ok(attempt.made(progress, connection, lua)),
        Err((step, cause)) => {
            let (vm, cause) = (attempt.order.spec.name.clone(), Box::new(cause));
            Err(MakeError { vm, step, cause, left: Vec::new() })
        }
    }
}

/// Makes a virtual machine and starts Lua in it.
///
/// When this fails, what had been made is removed first; the error says if some of it could not be.
/// When its future is dropped, the same happens behind it: [`ConnectedPool::settled`] waits for that.
pub async fn make(order: MakeOrder) -> Result<Made, MakeError> {
    Ok(attempt(order, Origin::Template, Until::Lua).await?.made())
}

/// What a machine is made from.
enum Origin {
    /// The template that the plan names.
    Template,
    /// Another machine.
    Machine(Box<Machine>),
}

/// What came of an attempt.
enum Outcome {
    Started(Box<Known>),
    Lua(Box<Made>),
}

impl Outcome {
    fn known(self) -> Known {
        match self {
            Self::Started(known) => *known,
            Self::Lua(made) => made.known,
        }
    }

    fn made(self) -> Made {
        match self {
            Self::Lua(made) => *made,
            Self::Started(_) => unreachable!("it was to go on to Lua"),
        }
    }
}

async fn attempt(order: MakeOrder, origin: Origin, until: Until) -> Result<Outcome, MakeError> {
    let (alive, abandoned) = watch::channel(());
    let busy = order.pool.busy();
    let task = tokio::spawn(async move {
        let _busy = busy;
        let (owner, fleet) = (order.pool.owner(), order.fleet);
        let making = MakingLabel { attempt: Uuid::now_v7(), owner, fleet };
        Attempt::new(order, origin, making, abandoned).run(until).await
    });
    let made = task.await;
    drop(alive);
    match made {
        Ok(made) => made,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => unreachable!("nobody else can abort it: {error}"),
    }
}

/// What has been made so far.
#[derive(Default)]
struct Progress {
    /// The server's task that makes the VM, until that is known.
    cloning: Option<Task<Ref<class::Vm>>>,
    vm: Option<Ref<class::Vm>>,
    /// The call of its guest, where one is to come.
    call: Option<Expected>,
    /// Whether the seed disk was asked for.
    seeding: bool,
    seed: Option<machine::SeedOnPool>,
    known: Option<Known>,
    warnings: Vec<String>,
}

struct Attempt {
    order: MakeOrder,
    origin: Origin,
    making: MakingLabel,
    /// Closed once nobody waits for it any more.
    abandoned: watch::Receiver<()>,
    began: Instant,
    /// The steps that have ended.
    timeline: Mutex<Vec<Timed>>,
}

/// Why an attempt failed, and at which step.
type Failed = (Option<StepKind>, Cause);

/// What came of two things that went side by side. Of two failures the one is told that leaves it open what
/// was made, or else the first.
fn both<A, B>(one: Result<A, Failed>, other: Result<B, Failed>) -> Result<(A, B), Failed> {
    match (one, other) {
        (Ok(one), Ok(other)) => Ok((one, other)),
        (Err(failed), Err(other)) if !failed.1.is_unclear() && other.1.is_unclear() => Err(other),
        (Err(failed), _) | (Ok(_), Err(failed)) => Err(failed),
    }
}

impl Attempt {
    fn new(
        order: MakeOrder,
        origin: Origin,
        making: MakingLabel,
        abandoned: watch::Receiver<()>,
    ) -> Self {
        let (began, timeline) = (Instant::now(), Mutex::default());
        Self { order, origin, making, abandoned, began, timeline }
    }

    /// What was made, once Lua runs in it.
    fn made(&self, progress: Progress, connection: Connection, lua: GuestLua) -> Made {
        let Progress { vm, known, warnings, .. } = progress;
        let (Some(vm), Some(known)) = (vm, known) else {
            unreachable!("Lua runs in a machine that was made")
        };
        let mut timeline = std::mem::take(&mut *self.timeline());
        timeline.sort_by_key(|timed| timed.began);
        Made { vm, known, connection, lua, warnings, timeline }
    }

    fn timeline(&self) -> MutexGuard<'_, Vec<Timed>> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tags(&self, plan: &Plan) -> Tags {
        let lifetime = plan.lifetime.and_then(|time| jiff::SignedDuration::try_from(time).ok());
        Tags {
            owner: self.order.pool.owner(),
            vm: Some(plan.vm.clone()),
            fleet: self.order.fleet,
            run: self.order.run,
            expires: lifetime.and_then(|time| Timestamp::now().checked_add(time).ok()),
            adopted: false,
        }
    }

    async fn run(self, until: Until) -> Result<Outcome, MakeError> {
        let mut progress = Progress::default();
        match self.steps(until, &mut progress).await {
            Ok(Some((connection, lua))) => {
                Ok(Outcome::Lua(Box::new(self.made(progress, connection, lua))))
            }
            Ok(None) => match progress.known {
                Some(known) => Ok(Outcome::Started(Box::new(known))),
                None => unreachable!("a machine that was started is known"),
            },
            Err((step, cause)) => {
                let left = self.undo(progress, &cause).await;
                self.order.pool.take_back(self.making.attempt);
                let (vm, cause) = (self.order.spec.name.clone(), Box::new(cause));
                Err(MakeError { vm, step, cause, left })
            }
        }
    }

    async fn steps(
        &self,
        until: Until,
        progress: &mut Progress,
    ) -> Result<Option<(Connection, GuestLua)>, Failed> {
        let resolved = self.resolve(progress);
        let plan = self.step(StepKind::Resolve, resolved).await?;
        if until == Until::Lua && plan.chosen_address().is_none() {
            let expected = self.expect_call().await;
            progress.call = expected.map_err(|cause| (Some(StepKind::Resolve), cause))?;
        }
        match &self.origin {
            Origin::Template => self.on_the_pool(&plan, progress).await?,
            Origin::Machine(machine) => self.copy_on_the_pool(machine, &plan, progress).await?,
        }
        if until == Until::Started {
            return Ok(None);
        }
        let address = self.address(progress).await?;
        self.in_the_guest(address, progress).await.map(Some)
    }

    /// Finds out what the names of the spec mean, notes what is to be made, and finds it addresses.
    async fn resolve(&self, progress: &mut Progress) -> Result<Arc<Plan>, Cause> {
        let plan = match &self.origin {
            Origin::Template => Plan::new(&self.order.spec, &PoolView::of_pool(&self.order.pool))?,
            Origin::Machine(machine) => copying::plan(&self.order.spec, machine)?,
        };
        progress.known = Some(Known {
            making: self.making,
            uuid: None,
            plan: Some(Arc::new(plan.clone())),
            entry: None,
            address: None,
            seed: None,
            ready: false,
        });
        // Whatever happens from here on, the machine can be found by its label.
        self.note(progress).await?;
        let plan = Arc::new(self.lease(plan).await?);
        if let Some(known) = &mut progress.known {
            known.plan = Some(Arc::clone(&plan));
            let chosen = plan.chosen_address();
            known.address = chosen.map(|address| (address, AddressSource::Static));
        }
        Ok(plan)
    }

    /// Does one step: tells of it, bounds it, and notes how long it took.
    async fn step<T>(
        &self,
        step: StepKind,
        work: impl Future<Output = Result<T, Cause>>,
    ) -> Result<T, Failed> {
        self.step_within(self.order.deadlines.of(step), step, work).await
    }

    /// Does one step within a time of its own.
    async fn step_within<T>(
        &self,
        limit: Duration,
        step: StepKind,
        work: impl Future<Output = Result<T, Cause>>,
    ) -> Result<T, Failed> {
        let vm = || self.order.spec.name.clone();
        let name = step.name();
        (self.order.report)(Event::StepStarted { vm: vm(), step: name, at: Timestamp::now() });
        let started = Instant::now();
        // Futures of this size would make those that hold them large.
        let done = tokio::time::timeout(limit, Box::pin(work)).await;
        let took = started.elapsed();
        let began = started.duration_since(self.began);
        self.timeline().push(Timed { step, began, took });
        let mut outcome = done.unwrap_or(Err(Cause::Deadline { after: limit }));
        if outcome.is_ok() && self.abandoned.has_changed().is_err() {
            outcome = Err(Cause::Abandoned);
        }
        let failed = outcome.as_ref().err().map(ToString::to_string);
        let ended = Event::StepEnded { vm: vm(), step: name, took, failed, at: Timestamp::now() };
        (self.order.report)(ended);
        outcome.map_err(|cause| (Some(step), cause))
    }

    /// Waits for something unless nobody waits for the machine any more. Calls that change something on the
    /// pool are not given up: what came of them would not be known.
    async fn unless_abandoned<T>(&self, work: impl Future<Output = T>) -> Result<T, Cause> {
        let mut abandoned = self.abandoned.clone();
        tokio::select! {
            biased;
            _ = abandoned.changed() => Err(Cause::Abandoned),
            done = work => Ok(done),
        }
    }

    async fn note(&self, progress: &Progress) -> Result<(), Cause> {
        match &progress.known {
            Some(known) => Ok(self.order.journal.note(known).await?),
            None => Ok(()),
        }
    }
}

/// An error with all that caused it, in one line.
pub(crate) struct Chain<'e>(pub(crate) &'e dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = self.host_key.fingerprint();
        write!(f, "Entry({} on port {}, {fingerprint})", self.user, self.port)
    }
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Made").field("known", &self.known).finish_non_exhaustive()
    }
}
