//! What a VM is asked to be.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use bytesize::ByteSize;

use crate::{
    Grants, InvalidName, Limit, Limits, MachineSpec, Mechanism, NetworkSpec, SizeClass, VmName,
};

/// The kind of place in which a VM lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmType {
    /// A sandboxed process on this machine.
    Basic,
    /// A virtual machine on an XCP-ng pool.
    Xcpng,
}

impl VmType {
    /// Every type that has a name, built in or not.
    pub const ALL: [Self; 2] = [Self::Basic, Self::Xcpng];

    /// The name in flags, records and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Xcpng => "xcpng",
        }
    }
}

impl fmt::Display for VmType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a text names no type of VM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a type of VM; known are {known}", known = VmType::ALL.map(VmType::name).join(", "))]
pub struct UnknownVmType(String);

impl FromStr for VmType {
    type Err = UnknownVmType;
    fn from_str(text: &str) -> Result<Self, UnknownVmType> {
        Self::ALL
            .into_iter()
            .find(|vm_type| vm_type.name() == text)
            .ok_or_else(|| UnknownVmType(text.escape_debug().to_string()))
    }
}

/// Which Lua a VM runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interpreter {
    /// Lua 5.4, built into the worker.
    #[default]
    Embedded,
    /// A program: a path, or a name that is looked up on `PATH`.
    Program(PathBuf),
}

impl Interpreter {
    /// Reads what a person wrote: `embedded` or `5.4` for the built-in one, `5.1` … for `lua5.1` …,
    /// otherwise a program's name or path.
    pub fn parse(text: &str) -> Self {
        match text {
            "embedded" | "5.4" => Self::Embedded,
            version if version.starts_with("5.") => Self::Program(format!("lua{version}").into()),
            program => Self::Program(program.into()),
        }
    }
}

impl fmt::Display for Interpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Program(path) => path.display().fmt(f),
        }
    }
}

/// Where a VM lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a sandboxed process on this machine.
    Basic,
    /// In a virtual machine on an XCP-ng pool.
    Xcpng(Box<MachineSpec>),
}

impl From<VmType> for Place {
    /// With all settings at their defaults.
    fn from(vm_type: VmType) -> Self {
        match vm_type {
            VmType::Basic => Self::Basic,
            VmType::Xcpng => Self::Xcpng(Box::default()),
        }
    }
}

impl From<MachineSpec> for Place {
    fn from(machine: MachineSpec) -> Self {
        Self::Xcpng(Box::new(machine))
    }
}

/// A VM as a user orders it. Whatever is not said has a default: Lua 5.4, all limits, no grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSpec {
    /// What the VM is called; unique within a fleet.
    pub name: VmName,
    /// Where it lives.
    pub place: Place,
    /// Which Lua it runs.
    pub interpreter: Interpreter,
    /// What it may use at most.
    pub limits: Limits,
    /// What it may touch.
    pub grants: Grants,
    /// The directory that relative paths in its code start from; the controller's own by default.
    pub working_directory: Option<PathBuf>,
    /// Mechanisms without which the VM is not to be made.
    pub required_isolation: BTreeSet<Mechanism>,
}

impl VmSpec {
    /// A VM of type `basic`.
    pub fn basic<N: TryInto<VmName, Error = E>, E: Into<InvalidName>>(
        name: N,
    ) -> Result<Self, InvalidName> {
        name.try_into().map(|name| Self::new(name, VmType::Basic)).map_err(Into::into)
    }

    /// A VM of type `xcpng`.
    ///
    /// ```
    /// use bioxen_core::{ByteSize, NetworkSpec, VmSpec};
    ///
    /// let spec = VmSpec::xcpng("assembler")?
    ///     .pool("lab")
    ///     .template("debian-12-cloud")
    ///     .memory(ByteSize::gib(8))
    ///     .vcpus(4)
    ///     .disk(ByteSize::gib(40))
    ///     .network(NetworkSpec::new("lab"));
    /// # Ok::<(), bioxen_core::InvalidName>(())
    /// ```
    pub fn xcpng<N: TryInto<VmName, Error = E>, E: Into<InvalidName>>(
        name: N,
    ) -> Result<Self, InvalidName> {
        name.try_into().map(|name| Self::new(name, VmType::Xcpng)).map_err(Into::into)
    }

    /// A VM that lives there, with every other setting at its default.
    pub fn new(name: VmName, place: impl Into<Place>) -> Self {
        Self {
            name,
            place: place.into(),
            interpreter: Interpreter::default(),
            limits: Limits::default(),
            grants: Grants::none(),
            working_directory: None,
            required_isolation: BTreeSet::new(),
        }
    }

    /// Sets which Lua it runs.
    #[must_use]
    pub fn interpreter(mut self, interpreter: Interpreter) -> Self {
        self.interpreter = interpreter;
        self
    }

    /// Sets what it may use.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets what it may touch.
    #[must_use]
    pub fn grants(mut self, grants: Grants) -> Self {
        self.grants = grants;
        self
    }

    /// Sets the directory that relative paths start from.
    #[must_use]
    pub fn working_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.working_directory = Some(directory.into());
        self
    }

    /// Sets the pool, by its name in the configuration. Makes it a VM of type `xcpng`.
    #[must_use]
    pub fn pool(mut self, pool: impl Into<String>) -> Self {
        self.machine_mut().pool = Some(pool.into());
        self
    }

    /// Sets what the virtual machine is made from. Makes it a VM of type `xcpng`.
    #[must_use]
    pub fn template(mut self, template: impl Into<String>) -> Self {
        self.machine_mut().template = Some(template.into());
        self
    }

    /// Sets memory and processors by one word. Makes it a VM of type `xcpng`.
    #[must_use]
    pub fn size(mut self, size: SizeClass) -> Self {
        self.machine_mut().size = Some(size);
        self
    }

    /// Sets the memory of the virtual machine. What Lua may use of it is a [limit](Self::limits). Makes it a VM of type `xcpng`.
    #[must_use]
    pub fn memory(mut self, memory: ByteSize) -> Self {
        self.machine_mut().memory = Some(memory);
        self
    }

    /// Sets the processors of the virtual machine. Makes it a VM of type `xcpng`.
    #[must_use]
    pub fn vcpus(mut self, vcpus: u32) -> Self {
        self.machine_mut().vcpus = Some(vcpus);
        self
    }

    /// Sets the size to which the first disk grows. Makes it a VM of type `xcpng`.
    #[must_use]
    pub fn disk(mut self, size: ByteSize) -> Self {
        self.machine_mut().disk = Some(size);
        self
    }

    /// Sets the storage repository of the disks. Makes it a VM of type `xcpng`.
    #[must_use]
    pub fn storage(mut self, storage: impl Into<String>) -> Self {
        self.machine_mut().storage = Some(storage.into());
        self
    }

    /// Adds an interface; with the first one, those of the template are left out. Makes it a VM of type `xcpng`.
    #[must_use]
    pub fn network(mut self, network: NetworkSpec) -> Self {
        self.machine_mut().networks.push(network);
        self
    }

    /// Sets the host that it is to run on, if that can take it. Makes it a VM of type `xcpng`.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.machine_mut().host = Some(host.into());
        self
    }

    /// Sets how long it may live. Makes it a VM of type `xcpng`.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.machine_mut().lifetime = Some(lifetime);
        self
    }

    /// Adds a mechanism without which the VM is not to be made.
    #[must_use]
    pub fn require(mut self, mechanism: Mechanism) -> Self {
        self.required_isolation.insert(mechanism);
        self
    }

    /// What kind of place it lives in.
    pub fn vm_type(&self) -> VmType {
        match self.place {
            Place::Basic => VmType::Basic,
            Place::Xcpng(_) => VmType::Xcpng,
        }
    }

    /// The virtual machine that it lives in, if it lives in one.
    pub fn machine(&self) -> Option<&MachineSpec> {
        match &self.place {
            Place::Basic => None,
            Place::Xcpng(machine) => Some(machine),
        }
    }

    /// The virtual machine to say more about; a VM that had none gets one.
    fn machine_mut(&mut self) -> &mut MachineSpec {
        if self.place == Place::Basic {
            self.place = VmType::Xcpng.into();
        }
        match &mut self.place {
            Place::Xcpng(machine) => machine,
            Place::Basic => unreachable!("it was just replaced"),
        }
    }

    /// The limits with what the grants imply: code that may not start programs has none of them.
    pub fn effective_limits(&self) -> Limits {
        let mut limits = self.limits.clone();
        if !self.grants.spawn {
            limits.child_processes = Limit::Of(0);
        }
        limits
    }

    /// The same order under another name.
    #[must_use]
    pub fn named(mut self, name: VmName) -> Self {
        self.name = name;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_type_is_refused_with_the_known_ones() {
        let error = "docker".parse::<VmType>().unwrap_err().to_string();
        assert_eq!(error, "`docker` is not a type of VM; known are basic, xcpng");
    }

    #[test]
    fn programs_are_limited_as_ordered_where_they_are_granted() {
        let spec = VmSpec::basic("vm").unwrap();
        let programs = |spec: &VmSpec| spec.effective_limits().child_processes;
        assert_eq!(programs(&spec), Limit::Of(0));
        let spec = spec.grants(Grants::none().spawn());
        assert_eq!(programs(&spec), Limit::Of(16));
        let none = Limits { child_processes: Limit::Of(0), ..Limits::default() };
        assert_eq!(programs(&spec.limits(none)), Limit::Of(0));
    }

    #[test]
    fn a_bare_version_names_an_interpreter() {
        assert_eq!(Interpreter::parse("5.4"), Interpreter::Embedded);
        assert_eq!(Interpreter::parse("5.1"), Interpreter::Program("lua5.1".into()));
        assert_eq!(Interpreter::parse("luajit"), Interpreter::Program("luajit".into()));
    }
}
