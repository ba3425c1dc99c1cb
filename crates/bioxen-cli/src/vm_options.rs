//! The options that order a VM: `run`, `eval` and `repl` have them in common.

use std::path::{Component, PathBuf};
use std::time::Duration;

use bioxen::{
    ByteSize, Grants, Interpreter, Limit, Limits, Mechanism, NetAddress, Place, VmName, VmSpec,
    VmType,
};
use bioxen_core::FileCopy;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};

use crate::failure::Failure;
use crate::machine_options::PlaceOptions;
use crate::registry;

/// How long a virtual machine may live that ends with its command: should that be killed, it is deleted
/// by whoever comes by after this time.
const LONGEST_LIFE: Duration = Duration::from_hours(24);

const LIMITS: &str = "Limits (each also accepts `unlimited`)";
const GRANTS: &str = "Grants (nothing is allowed without one)";
const VM: &str = "VM";

/// What the command line orders.
#[derive(Clone, Debug, Args)]
pub(crate) struct VmOptions {
    /// Kind of place in which the VM lives
    #[arg(long, value_name = "TYPE", default_value_t = VmType::Basic, value_parser = vm_types(), help_heading = VM)]
    vm_type: VmType,

    #[command(flatten)]
    lua: LuaOptions,

    #[command(flatten)]
    place: PlaceOptions,
}

/// What is ordered of Lua in a VM, wherever that lives.
#[derive(Clone, Debug, Args)]
pub(crate) struct LuaOptions {
    /// Lua to run it on: a version such as 5.1, a program's name or its path
    ///
    /// The built-in Lua 5.4 (`embedded`) needs nothing installed. Other versions are programs of this
    /// machine; `bioxen doctor` lists them.
    #[arg(long, value_name = "LUA", default_value = "embedded", help_heading = VM)]
    lua: String,

    /// Isolation without which nothing is run, as `bioxen doctor` names it; may be repeated
    #[arg(long, value_name = "MECHANISM", value_parser = mechanisms(), hide_possible_values = true, help_heading = VM)]
    require: Vec<Mechanism>,

    /// Directory that relative paths in the code start from [default: the current one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = VM)]
    workdir: Option<PathBuf>,

    /// Memory that Lua may hold at once
    #[arg(long, value_name = "SIZE", default_value = "256MiB", help_heading = LIMITS)]
    memory: Limit<ByteSize>,

    /// Time from start to end, as a clock on the wall shows it
    #[arg(long, value_name = "TIME", default_value_t = Limits::default().wall_time, help_heading = LIMITS)]
    timeout: Limit<Duration>,

    /// Processor time
    #[arg(long, value_name = "TIME", default_value_t = Limits::default().cpu_time, help_heading = LIMITS)]
    cpu_time: Limit<Duration>,

    /// Output and returned values together
    #[arg(long, value_name = "SIZE", default_value = "16MiB", help_heading = LIMITS)]
    max_output: Limit<ByteSize>,

    /// Files open at once
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().open_files, help_heading = LIMITS)]
    open_files: Limit<u32>,

    /// Programs running at once, with --allow-spawn [default: 16]
    #[arg(long, value_name = "COUNT", requires = "allow_spawn", help_heading = LIMITS)]
    max_processes: Option<Limit<u32>>,

    /// File or directory that may be read; may be repeated
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, help_heading = GRANTS)]
    allow_read: Vec<PathBuf>,

    /// File or directory that may be read and written; may be repeated
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, help_heading = GRANTS)]
    allow_write: Vec<PathBuf>,

    /// Address that may be connected to; may be repeated
    #[arg(long, value_name = "HOST:PORT", help_heading = GRANTS)]
    allow_net: Vec<NetAddress>,

    /// Environment variable that may be seen; may be repeated
    #[arg(long, value_name = "NAME", help_heading = GRANTS)]
    allow_env: Vec<String>,

    /// Programs may be started
    #[arg(long, help_heading = GRANTS)]
    allow_spawn: bool,
}

fn vm_types() -> impl TypedValueParser<Value = VmType> {
    PossibleValuesParser::new(VmType::ALL.map(VmType::name)).try_map(|name| name.parse::<VmType>())
}

fn mechanisms() -> impl TypedValueParser<Value = Mechanism> {
    let names = PossibleValuesParser::new(Mechanism::ALL.map(Mechanism::name));
    names.try_map(|name| name.parse::<Mechanism>())
}

impl VmOptions {
    /// The order for a VM of this name, which ends with the command.
    ///
    /// In a virtual machine, granted paths are the guest's: files of this machine that are granted go
    /// there first, to where they are from the working directory.
    pub(crate) fn spec(&self, name: VmName) -> Result<VmSpec, Failure> {
        match self.vm_type {
            VmType::Basic => match self.place.first_said() {
                None => Ok(self.lua.spec(name, Place::Basic)),
                Some(option) => Err(Failure::NeedsMachine { option }),
            },
            VmType::Xcpng => {
                let (_, mut machine) = registry::complete(self.place.machine()?)?;
                machine.lifetime.get_or_insert(LONGEST_LIFE);
                machine.files = self.lua.files()?;
                Ok(self.lua.spec(name, machine))
            }
        }
    }

    /// What is brought back from a virtual machine once the code has run: what it could write.
    pub(crate) fn results(&self) -> Vec<PathBuf> {
        match self.vm_type {
            VmType::Basic => Vec::new(),
            VmType::Xcpng => self.lua.allow_write.clone(),
        }
    }
}

impl LuaOptions {
    /// The order for a VM of this name that lives there.
    pub(crate) fn spec(&self, name: VmName, place: impl Into<Place>) -> VmSpec {
        VmSpec {
            interpreter: Interpreter::parse(&self.lua),
            limits: self.limits(),
            grants: self.grants(),
            working_directory: self.workdir.clone(),
            required_isolation: self.require.iter().copied().collect(),
            ..VmSpec::new(name, place)
        }
    }

    /// What code in a virtual machine is to find there of this machine's files.
    fn files(&self) -> Result<Vec<FileCopy>, Failure> {
        let granted = self.allow_read.iter().chain(&self.allow_write);
        let mut files = Vec::new();
        for path in granted {
            let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
            let to = path.to_str().filter(|_| is_below);
            let Some(to) = to else { return Err(Failure::GuestPath { path: path.clone() }) };
            // What is to be written need not be there yet.
            if path.exists() {
                files.push(FileCopy { from: path.clone(), to: to.to_owned() });
            }
        }
        Ok(files)
    }

    fn limits(&self) -> Limits {
        Limits {
            wall_time: self.timeout,
            cpu_time: self.cpu_time,
            memory: self.memory,
            output: self.max_output,
            child_processes: self.max_processes.unwrap_or(Limits::default().child_processes),
            open_files: self.open_files,
        }
    }

    fn grants(&self) -> Grants {
        Grants {
            read: self.allow_read.iter().cloned().collect(),
            write: self.allow_write.iter().cloned().collect(),
            net: self.allow_net.iter().cloned().collect(),
            env: self.allow_env.iter().cloned().collect(),
            spawn: self.allow_spawn,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        vm: VmOptions,
    }

    fn spec(line: &str) -> VmSpec {
        let words = std::iter::once("bioxen").chain(line.split_whitespace());
        Line::parse_from(words).vm.spec(VmName::new("test").unwrap()).unwrap()
    }

    #[test]
    fn an_empty_command_line_orders_the_library_s_defaults() {
        assert_eq!(spec(""), VmSpec::new(VmName::new("test").unwrap(), VmType::Basic));
    }

    #[test]
    fn each_option_reaches_its_place_in_the_order() {
        let found = spec(
            "--lua 5.1 --require seccomp --workdir /w --memory 1MiB --timeout unlimited \
             --cpu-time 2s --max-output 3KiB --open-files 9 --allow-read /r --allow-write /w \
             --allow-net a:1 --allow-env A --allow-spawn --max-processes 4",
        );
        let limits = Limits {
            wall_time: Limit::Unlimited,
            cpu_time: Duration::from_secs(2).into(),
            memory: ByteSize::mib(1).into(),
            output: ByteSize::kib(3).into(),
            child_processes: 4.into(),
            open_files: 9.into(),
        };
        let grants = Grants::none().read("/r").write("/w").net("a:1".parse().unwrap());
        let expected = VmSpec::new(VmName::new("test").unwrap(), VmType::Basic)
            .interpreter(Interpreter::Program("lua5.1".into()))
            .limits(limits)
            .grants(grants.env("A").spawn())
            .working_directory("/w")
            .require(Mechanism::Seccomp);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_grant_to_start_programs_lets_some_run_at_once() {
        let limits = spec("--allow-spawn").effective_limits();
        assert_eq!(limits.child_processes, Limit::Of(16), "as the help text says");
    }
}
