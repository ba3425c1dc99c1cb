//! Living a story, and judging how it ends.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bioxen_core::backend::Link;
use bioxen_core::protocol::{Decoder, Evaluate, Form, Reply, Request, Status, decode, encode};
use bioxen_core::{ByteSize, Event, VmName};
use bioxen_xcp::Machine;
use bioxen_xcp::machine::{MachineError, NewVm, Resize, Stop};
use bioxen_xcp::making::{self, GuestLua, MakeError, MakeOrder, WorkerSource};
use bioxen_xcp::plan::{Deadlines, StepKind};
use uuid::Uuid;

use crate::story::{Life, Story, Verb};
use crate::world::{Controller, Notes, World};

/// How long each step of a VM's making may take, and each verb.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long each step may take where nothing goes wrong, on a machine that has much else to do.
const CALM_PATIENCE: Duration = Duration::from_secs(100);

/// How long a story may take.
const END: Duration = Duration::from_mins(3);

/// How lives ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) well: usize,
    /// By what could not be done.
    pub(crate) badly: BTreeMap<String, usize>,
    /// How many VMs were left on purpose, to be collected.
    pub(crate) left: usize,
    /// What was collected afterwards.
    pub(crate) collected: usize,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.well += other.well;
        self.left += other.left;
        self.collected += other.collected;
        for (step, count) in other.badly {
            *self.badly.entry(step).or_default() += count;
        }
    }
}

/// Why a life that went wrong did.
#[derive(Debug)]
enum Trouble {
    Make(MakeError),
    Machine(MachineError),
    Lua(String),
}

/// Lives a story to its end; the error says what is wrong with the product.
pub(crate) async fn live(story: &Story) -> Result<Tally, String> {
    match tokio::time::timeout(END, Box::pin(all(story))).await {
        Ok(ended) => ended,
        Err(_) => Err(format!("it did not end within {END:?}")),
    }
}

async fn all(story: &Story) -> Result<Tally, String> {
    let world = World::new(story).await;
    let lives = story.lives.iter().enumerate().map(|(number, life)| {
        let controller = &world.controllers[number % world.controllers.len()];
        one(&world, controller, story, life)
    });
    let ended = futures::future::join_all(lives).await;
    world.heal().await;
    let mut tally = Tally::default();
    for (life, ended) in story.lives.iter().zip(ended) {
        match ended {
            Ok(()) => {
                tally.well += 1;
                tally.left += usize::from(!life.is_deleted);
            }
            Err(trouble) => {
                let is_impatient = life.patience.is_some();
                if story.mishaps.is_empty() && !is_impatient {
                    return Err(format!("nothing went wrong, and yet: {trouble:?}"));
                }
                *tally.badly.entry(judge(&life.name, &trouble)?).or_default() += 1;
            }
        }
    }
    tally.collected = world.collect().await?;
    for controller in &world.controllers {
        controller.pool.close().await.map_err(|error| format!("it does not close: {error:?}"))?;
    }
    Ok(tally)
}

async fn one(
    world: &Arc<World>,
    controller: &Controller,
    story: &Story,
    life: &Life,
) -> Result<(), Trouble> {
    let name: VmName = life.name.parse().unwrap();
    let made = make(world, controller, story, life).await;
    let Ok(()) = made else {
        // As a command does that failed: what it had made was removed, or is left to be collected.
        controller.memory.forget(&name);
        return made;
    };
    let ended = verbs(world, controller, life, &name).await;
    controller.memory.forget(&name);
    ended
}

async fn make(
    world: &Arc<World>,
    controller: &Controller,
    story: &Story,
    life: &Life,
) -> Result<(), Trouble> {
    let events = Arc::clone(world);
    let notes = Notes { vm: life.name.parse().unwrap(), memory: Arc::clone(&controller.memory) };
    let order = MakeOrder {
        pool: Arc::clone(&controller.pool),
        spec: life.spec(world.port),
        fleet: life.is_of_fleet.then_some(controller.fleet),
        run: None,
        worker: worker(story),
        journal: Arc::new(notes),
        deadlines: deadlines(life, story.mishaps.is_empty()),
        report: Arc::new(move |event| {
            if matches!(event, Event::StepStarted { .. }) {
                events.moment();
            }
        }),
    };
    if story.enters {
        let made = making::make(order).await.map_err(Trouble::Make)?;
        world.moment();
        evaluate(made.lua).await.map_err(Trouble::Lua)
    } else {
        let known = making::start(order).await.map_err(Trouble::Make)?;
        let uuid = known.uuid.unwrap().parse().unwrap();
        controller.memory.made(&life.name.parse().unwrap(), uuid);
        Ok(())
    }
}

/// How long each step may take.
fn deadlines(life: &Life, is_calm: bool) -> Deadlines {
    let usual = if is_calm { CALM_PATIENCE } else { PATIENCE };
    let mut deadlines = Deadlines::default();
    for step in StepKind::ALL {
        deadlines.set(step, life.patience.unwrap_or(usual));
    }
    deadlines
}

/// Our worker is copied into one guest of four, as that takes long; the others run the interpreter that
/// guests have of this machine, if it has one.
fn worker(story: &Story) -> WorkerSource {
    let has_lua = Path::new("/usr/bin/lua5.4").exists();
    if has_lua && !story.seed.is_multiple_of(4) { WorkerSource::None } else { WorkerSource::Find }
}

/// Evaluates one piece of code.
async fn evaluate(mut lua: GuestLua) -> Result<(), String> {
    let request = Request::Evaluate(Evaluate {
        id: 1,
        form: Form::Input,
        fresh: false,
        name: "=life".into(),
        code: b"return 6 * 7",
        arguments: Vec::new(),
        environment: None,
        working_directory: None,
        wall_time_us: None,
        cpu_time_us: None,
        output: None,
    });
    lua.link.send(&encode(&request)).await.map_err(|error| error.to_string())?;
    let mut decoder = Decoder::new(1 << 20);
    loop {
        while let Some(payload) = decoder.next_payload().map_err(|error| error.to_string())? {
            if let Reply::End(end) = decode(&payload).map_err(|error| error.to_string())? {
                assert_eq!(end.status, Status::Finished, "{end:?}");
                return Ok(());
            }
        }
        let received = lua.link.receive(decoder.space());
        match tokio::time::timeout(PATIENCE, received).await {
            Ok(Ok(0)) => return Err("the worker is gone".into()),
            Ok(received) => drop(received.map_err(|error| error.to_string())?),
            Err(_) => return Err("the worker does not answer".into()),
        }
    }
}

async fn verbs(
    world: &Arc<World>,
    controller: &Controller,
    life: &Life,
    name: &VmName,
) -> Result<(), Trouble> {
    // The command that made it has its identity, and a later one finds it by name.
    controller.pool.mirror().barrier(PATIENCE).await.map_err(|source| {
        let source = Box::new(bioxen_xcp::machine::Cause::from(source));
        Trouble::Machine(MachineError::Pool { vm: name.to_string(), step: "find", source })
    })?;
    let machine = Machine::find(&controller.pool, name.as_str()).map_err(Trouble::Machine)?;
    let machine = machine.within(PATIENCE);
    for verb in &life.verbs {
        world.moment();
        verb_of(controller, &machine, *verb).await.map_err(Trouble::Machine)?;
    }
    world.moment();
    if life.is_deleted {
        machine.delete().await.map_err(Trouble::Machine)?;
        let again = machine.delete().await.map_err(Trouble::Machine)?;
        assert_eq!(again.vm, bioxen_xcp::machine::Done::Already);
    }
    Ok(())
}

async fn verb_of(
    controller: &Controller,
    machine: &Machine,
    verb: Verb,
) -> Result<(), MachineError> {
    const GRACE: Duration = Duration::from_millis(500);
    match verb {
        Verb::Start => drop(machine.start(None).await?),
        Verb::Stop => drop(machine.stop(Stop { grace: GRACE }).await?),
        Verb::Cut => drop(machine.stop(Stop { grace: Duration::ZERO }).await?),
        Verb::Reboot => {
            machine.start(None).await?;
            machine.reboot(GRACE).await?;
        }
        Verb::Suspend => {
            machine.start(None).await?;
            machine.suspend().await?;
        }
        Verb::Snapshot => {
            if machine.snapshots()?.iter().all(|snapshot| snapshot.name != "one") {
                machine.snapshot("one").await?;
            }
        }
        Verb::Restore => {
            if machine.snapshots()?.iter().any(|snapshot| snapshot.name == "one") {
                machine.restore("one", true).await?;
            }
        }
        Verb::DeleteSnapshot => {
            if machine.snapshots()?.iter().any(|snapshot| snapshot.name == "one") {
                machine.delete_snapshot("one").await?;
            }
        }
        Verb::Copy => {
            let making = Uuid::now_v7();
            let name: VmName = format!("{}-copy", machine.name()).parse().unwrap();
            controller.memory.copying(&name, making);
            let copied = async {
                let copy = machine.clone_as(&NewVm::new(name.clone(), making)).await?;
                copy.finish().await?.delete().await
            };
            let copied = copied.await;
            controller.memory.forget(&name);
            copied?;
        }
        Verb::Grow => {
            let stop = Some(Stop { grace: GRACE });
            machine.start(None).await?;
            let memory = Some(ByteSize::gib(3));
            let (vcpus, disk) = (Some(2), Some(ByteSize::gib(24)));
            machine.resize(&Resize { memory, vcpus, disk, stop_if_needed: stop }).await?;
        }
        Verb::Collect => {
            // What cannot be collected while things go wrong is collected later.
            if let Err(error) = controller.collect().await {
                eprintln!("not collected yet: {error}");
            }
        }
    }
    Ok(())
}

/// By which step a life failed, if its error says all that it should.
fn judge(name: &str, trouble: &Trouble) -> Result<String, String> {
    let (error, step, hint): (&dyn Error, String, Option<String>) = match trouble {
        Trouble::Make(error) => {
            let step = error.step.ok_or_else(|| format!("names no step: {error:?}"))?;
            (error, step.name().to_owned(), Some(error.hint()))
        }
        Trouble::Machine(error) => {
            let step = match error {
                MachineError::Refused { step, .. }
                | MachineError::State { step, .. }
                | MachineError::NoHost { step, .. }
                | MachineError::NoTurn { step, .. }
                | MachineError::Pool { step, .. } => (*step).to_owned(),
                MachineError::Gone { .. } | MachineError::NotFound { .. } => "find".into(),
                other => return Err(format!("an error that should not come: {other:?}")),
            };
            (error, step, error.hint())
        }
        Trouble::Lua(reason) if reason.is_empty() => return Err("says nothing".into()),
        Trouble::Lua(_) => return Ok("evaluate".into()),
    };
    if !error.to_string().contains(name) {
        return Err(format!("does not name vm `{name}`: {error}"));
    }
    if hint.is_none_or(|hint| hint.trim().is_empty()) {
        return Err(format!("has no hint: {error}: {error:?}"));
    }
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if told.contains(&text) {
            return Err(format!("says `{text}` twice: {told}"));
        }
        told = format!("{told}: {text}");
        cause = error.source();
    }
    Ok(step)
}
