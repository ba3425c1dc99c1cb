//! What there is to find out, and finding it out.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bioxen::{Fleet, FoundInterpreter, Isolation, Mechanism, Vm, VmName, VmSpec, VmType};
use serde::Serialize;

use super::advice;
use crate::directories::Directories;
use crate::failure::Failure;
use crate::fleet;

/// How many VMs are made to measure how long that takes.
const MEASURED: usize = 20;

/// All that was found.
#[derive(Serialize)]
pub(super) struct Findings {
    /// This program's version.
    pub(super) version: &'static str,
    /// Operating system and processor.
    pub(super) platform: String,
    /// The kernel's release.
    pub(super) kernel: Option<String>,
    /// Kinds of places for VMs.
    pub(super) vm_types: Vec<TypeFinding>,
    /// Making a VM of type `basic`.
    pub(super) basic: BasicFinding,
    /// Interpreters that are there.
    pub(super) interpreters: Vec<InterpreterFinding>,
    /// Interpreters that could be installed.
    pub(super) missing_interpreters: Vec<MissingInterpreter>,
    /// What is started to be a worker.
    pub(super) worker_program: Option<PathBuf>,
    /// Where things are kept, by what is kept there.
    pub(super) directories: BTreeMap<&'static str, DirectoryFinding>,
}

#[derive(Serialize)]
pub(super) struct TypeFinding {
    pub(super) name: &'static str,
    pub(super) built_in: bool,
}

/// What came of making VMs of type `basic`.
#[derive(Serialize)]
pub(super) struct BasicFinding {
    pub(super) works: bool,
    /// Why not, and what to do about it.
    pub(super) problem: Option<String>,
    pub(super) hint: Option<String>,
    /// The first VM, which starts what all later ones share.
    pub(super) first_vm_us: Option<u64>,
    /// Half of the later VMs took less.
    pub(super) median_vm_us: Option<u64>,
    pub(super) isolation: Vec<MechanismFinding>,
}

#[derive(Serialize)]
pub(super) struct MechanismFinding {
    pub(super) mechanism: Mechanism,
    pub(super) active: bool,
    /// Why it is not active.
    pub(super) reason: Option<String>,
    pub(super) how_to_get: Option<&'static str>,
}

#[derive(Serialize)]
pub(super) struct InterpreterFinding {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) program: Option<PathBuf>,
}

#[derive(Serialize)]
pub(super) struct MissingInterpreter {
    pub(super) name: &'static str,
    pub(super) how_to_get: &'static str,
}

#[derive(Serialize)]
pub(super) struct DirectoryFinding {
    pub(super) path: PathBuf,
    pub(super) exists: bool,
}

impl Findings {
    /// Looks at everything.
    pub(super) async fn gather(fleet: &Fleet) -> Self {
        let found = bioxen::interpreters();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            platform: format!("{}-{}", env::consts::OS, env::consts::ARCH),
            kernel: kernel(),
            vm_types: VmType::ALL.map(type_finding).into(),
            basic: BasicFinding::gather(fleet).await,
            missing_interpreters: missing_interpreters(&found),
            interpreters: found.into_iter().map(interpreter_finding).collect(),
            worker_program: worker_program(),
            directories: directories(),
        }
    }

    /// Whether this machine can run VMs at all.
    pub(super) fn can_run_vms(&self) -> bool {
        self.basic.works
    }
}

impl BasicFinding {
    async fn gather(fleet: &Fleet) -> Self {
        match measure(fleet).await {
            Ok(Measured { first, median, isolation }) => Self {
                works: true,
                problem: None,
                hint: None,
                first_vm_us: Some(micros(first)),
                median_vm_us: Some(micros(median)),
                isolation: Mechanism::ALL.map(|one| mechanism_finding(one, &isolation)).into(),
            },
            Err(failure) => Self {
                works: false,
                problem: Some(failure.in_one_line()),
                hint: failure.hint(),
                first_vm_us: None,
                median_vm_us: None,
                isolation: Vec::new(),
            },
        }
    }
}

struct Measured {
    first: Duration,
    median: Duration,
    isolation: Isolation,
}

/// Makes VMs one after another, each ready to evaluate when its time is taken.
async fn measure(fleet: &Fleet) -> Result<Measured, Failure> {
    let spec =
        VmSpec::new(VmName::new("doctor").expect("a constant and valid name"), VmType::Basic);
    let (first, vm) = time_one(fleet, &spec, 0).await?;
    let mut isolation = vm.info().isolation.unwrap_or_default();
    note_cgroup(fleet, &spec, &mut isolation).await;
    let mut later = Vec::with_capacity(MEASURED);
    for index in 1..=MEASURED {
        later.push(time_one(fleet, &spec, index).await?.0);
    }
    later.sort();
    Ok(Measured { first, median: later[MEASURED / 2], isolation })
}

async fn time_one(fleet: &Fleet, spec: &VmSpec, index: usize) -> Result<(Duration, Vm), Failure> {
    let name = VmName::member(&spec.name, index).expect("a group's member has a valid name");
    let start = Instant::now();
    let vm = fleet::create(fleet, spec.clone().named(name)).await?;
    vm.eval("1").await.map_err(Failure::Evaluate)?;
    Ok((start.elapsed(), vm))
}

/// A cgroup is made only for VMs that may start programs: asks one of those.
async fn note_cgroup(fleet: &Fleet, spec: &VmSpec, isolation: &mut Isolation) {
    let spawning = spec.clone().grants(bioxen::Grants::none().spawn());
    let Ok(vm) = fleet::create(fleet, spawning).await else { return };
    let found = vm.info().isolation.unwrap_or_default();
    match found.missing.get(&Mechanism::Cgroup) {
        Some(reason) => isolation.missed(Mechanism::Cgroup, reason),
        None => isolation.reached(Mechanism::Cgroup),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn mechanism_finding(mechanism: Mechanism, isolation: &Isolation) -> MechanismFinding {
    let active = isolation.active.contains(&mechanism);
    MechanismFinding {
        mechanism,
        active,
        reason: isolation.missing.get(&mechanism).cloned(),
        how_to_get: (!active).then(|| advice::for_mechanism(mechanism)),
    }
}

fn type_finding(vm_type: VmType) -> TypeFinding {
    TypeFinding { name: vm_type.name(), built_in: true }
}

fn interpreter_finding(found: FoundInterpreter) -> InterpreterFinding {
    InterpreterFinding { name: found.name, version: found.version, program: found.program }
}

fn missing_interpreters(found: &[FoundInterpreter]) -> Vec<MissingInterpreter> {
    advice::INTERPRETERS
        .iter()
        .filter(|(name, _)| found.iter().all(|found| found.name != *name))
        .map(|(name, how_to_get)| MissingInterpreter { name, how_to_get })
        .collect()
}

fn kernel() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim().to_owned())
}

fn worker_program() -> Option<PathBuf> {
    env::var_os("BIOXEN_WORKER").map(PathBuf::from).or_else(|| env::current_exe().ok())
}

fn directories() -> BTreeMap<&'static str, DirectoryFinding> {
    let Some(directories) = Directories::from_environment() else { return BTreeMap::new() };
    let Directories { config, data, state, cache } = directories;
    [("config", config), ("data", data), ("state", state), ("cache", cache)]
        .map(|(kept, path)| (kept, DirectoryFinding { exists: path.exists(), path }))
        .into()
}
