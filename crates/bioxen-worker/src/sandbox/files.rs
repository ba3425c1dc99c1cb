//! Landlock: which files and ports a worker reaches, by rules that it cannot lift.

use std::path::{Path, PathBuf};

use bioxen_core::{Grants, Isolation, Mechanism};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    Scope,
};

/// The newest rules that we ask for; an older kernel gives what it has, which is reported.
const NEWEST: ABI = ABI::V6;

/// What installed programs and their libraries need.
const SYSTEM: [&str; 8] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/dev/null",
];

/// What an interpreter needs that is a program: its libraries.
const LIBRARIES: [&str; 6] =
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"];

/// What the C library reads to turn host names into addresses.
const NAMES: [&str; 5] =
    ["/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/services"];

/// Restricts this process and all that it starts to what was granted and, where the interpreter is a
/// program, what that needs. `no_new_privs` must be set.
pub(super) fn restrict(grants: &Grants, program: Option<&Path>, isolation: &mut Isolation) {
    match build(grants, program).and_then(landlock::RulesetCreated::restrict_self) {
        Ok(status) => report(&status, isolation),
        Err(error) => {
            for mechanism in LANDLOCK {
                isolation.missed(mechanism, error.to_string());
            }
        }
    }
}

const LANDLOCK: [Mechanism; 3] =
    [Mechanism::LandlockFiles, Mechanism::LandlockNetwork, Mechanism::LandlockScope];

fn report(status: &RestrictionStatus, isolation: &mut Isolation) {
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi,
        LandlockStatus::NotEnabled => return miss_all(isolation, "landlock is switched off"),
        LandlockStatus::NotImplemented => {
            return miss_all(isolation, "this kernel has no landlock (5.13 or newer has)");
        }
    };
    let since = [ABI::V1, ABI::V4, ABI::V6];
    let kernels = ["5.13", "6.7", "6.12"];
    for ((mechanism, since), kernel) in LANDLOCK.into_iter().zip(since).zip(kernels) {
        if abi >= since {
            isolation.reached(mechanism);
        } else {
            isolation.missed(mechanism, format!("needs Linux {kernel} or newer"));
        }
    }
}

fn miss_all(isolation: &mut Isolation, reason: &str) {
    for mechanism in LANDLOCK {
        isolation.missed(mechanism, reason);
    }
}

fn build(
    grants: &Grants,
    program: Option<&Path>,
) -> Result<landlock::RulesetCreated, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .no_new_privs(false);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let execute = read | AccessFs::Execute;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    rules = add(rules, grants.read.iter(), read)?;
    rules = add(rules, grants.write.iter(), write)?;
    if grants.spawn {
        rules = add(rules, SYSTEM.iter(), execute)?;
        rules = add(rules, ["/dev/null"].iter(), read | AccessFs::WriteFile)?;
    }
    if let Some(program) = program {
        rules = add(rules, [program].into_iter(), execute)?;
        rules = add(rules, LIBRARIES.iter(), execute)?;
    }
    if !grants.net.is_empty() {
        rules = add(rules, NAMES.iter(), read)?;
    }
    for address in &grants.net {
        rules = rules.add_rule(NetPort::new(address.port(), AccessNet::ConnectTcp))?;
    }
    Ok(rules)
}

/// Adds a rule for each path that is there.
fn add<P: AsRef<Path>>(
    mut rules: landlock::RulesetCreated,
    paths: impl Iterator<Item = P>,
    access: BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, RulesetError> {
    for path in paths {
        let path: PathBuf = path.as_ref().to_owned();
        if let Ok(open) = PathFd::new(&path) {
            let fits = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
            rules = rules.add_rule(PathBeneath::new(open, fits))?;
        }
    }
    Ok(rules)
}
