//! Holds `docs/reference/troubleshooting.md` to what the command says.

use std::io;
use std::time::Duration;

use bioxen::{ByteSize, VmName, VmType};
use bioxen_state::{Phase, StateError};
use bioxen_xcp::PoolName;
use bioxen_xcp::machine::{Cause as PoolCause, MachineError, PowerState, Refusal};
use bioxen_xcp::making::{Cause, LuaError, MakeError, NoWorkerImage};
use bioxen_xcp::networks::{NetworkError, User};
use bioxen_xcp::plan::{PlanError, StepKind};
use bioxen_xcp::ssh::files::FileError;
use bioxen_xcp::ssh::{InvalidKey, SshError};
use xenapi::mirror::WaitError;

use super::Failure;

const DOCUMENT: &str = include_str!("../../../../docs/reference/troubleshooting.md");
const GIB: u64 = 1 << 30;
const AFTER: Duration = Duration::from_mins(1);

fn vm() -> VmName {
    VmName::new("gc").expect("it is one")
}

fn io_error() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "…")
}

fn address() -> String {
    "10.0.0.7:22".to_owned()
}

fn api(code: &str) -> xenapi::Error {
    let source = xenapi::Failure::new(code, Vec::new());
    xenapi::Error::Api { method: "VM.start".into(), source }
}

fn wait() -> WaitError {
    WaitError::Timeout { what: "its address".into(), after: AFTER, behind: None }
}

fn remembered() -> Vec<Failure> {
    let errors = [
        StateError::NoSuchVm { name: vm(), there: "`web`".into() },
        StateError::Duplicate { name: vm(), pool: "lab".into(), phase: Phase::Ready },
        StateError::Known { uuid: "UUID".into(), name: vm() },
        StateError::Held { name: vm(), controller: uuid::Uuid::nil() },
        StateError::Deleting { name: vm() },
        StateError::Adopted { name: vm() },
        StateError::Busy { path: "state.db".into() },
        StateError::Newer { path: "state.db".into(), found: 9, known: 2 },
    ];
    let mut failures: Vec<Failure> = errors.into_iter().map(Failure::State).collect();
    failures.extend([
        Failure::NeedsDaemon { vm_type: VmType::Basic },
        Failure::NoEntry { vm: vm() },
        Failure::NoPools,
        Failure::WaitTimeout { vm: vm(), after: AFTER },
        Failure::MakeTimeout { vm: vm(), after: AFTER },
    ]);
    failures
}

fn planned() -> Vec<Failure> {
    let template = || "debian-12".to_owned();
    let errors = [
        PlanError::NoTemplate { vm: vm(), ready: Vec::new() },
        PlanError::Installer {
            vm: vm(),
            template: template(),
            ready: vec!["debian-12-cloud".into()],
        },
        PlanError::NotFound {
            vm: vm(),
            what: "template",
            name: template(),
            there: vec!["debian-12-cloud".into()],
        },
        PlanError::NoNetwork { vm: vm(), template: template(), networks: vec!["lab".into()] },
        PlanError::StorageFull {
            vm: vm(),
            storage: "local".into(),
            needed: 20 * GIB,
            free: 5 * GIB,
        },
        PlanError::DiskTooSmall { vm: vm(), template: template(), wanted: GIB, least: 2 * GIB },
        PlanError::NoHost { vm: vm(), needed: 64 * GIB, hosts: Vec::new() },
        PlanError::AddressTaken { vm: vm(), origin: "web".into(), address: [10, 0, 0, 7].into() },
    ];
    errors.into_iter().map(|error| Failure::Plan(Box::new(error))).collect()
}

fn made() -> Vec<Failure> {
    let image = NoWorkerImage { path: "bioxen-guest-worker".into(), source: io_error() };
    let steps = [
        (StepKind::Clone, Cause::Pool(api("SR_FULL"))),
        (StepKind::Start, Cause::Pool(api("NO_HOSTS_AVAILABLE"))),
        (StepKind::Address, Cause::Deadline { after: 5 * AFTER }),
        (StepKind::Address, Cause::Wait(wait())),
        (
            StepKind::Ssh,
            Cause::Ssh(Box::new(SshError::Connect { address: address(), source: io_error() })),
        ),
        (
            StepKind::CloudInit,
            Cause::CloudInit { errors: vec!["package `lua5.9` is not there".into()] },
        ),
        (StepKind::Lua, Cause::Lua(Box::new(LuaError::Image(image)))),
    ];
    let failure = |(step, cause)| {
        let error = MakeError { vm: vm(), step: Some(step), cause: Box::new(cause), left: vec![] };
        Failure::Make(Box::new(error))
    };
    steps.into_iter().map(failure).collect()
}

fn used() -> Vec<Failure> {
    let name = || "gc".to_owned();
    let host = || "xcp-02".to_owned();
    let state = |step, state| MachineError::State { vm: name(), step, state };
    let refused =
        |step, reason| MachineError::Refused { vm: name(), step, reason: Box::new(reason) };
    let pool = |step, cause| MachineError::Pool { vm: name(), step, source: Box::new(cause) };
    let errors = [
        MachineError::NotFound { name: name(), pool: "lab".into(), near: Vec::new() },
        MachineError::Gone { vm: name() },
        state("suspend", PowerState::Halted),
        state("resize", PowerState::Suspended),
        MachineError::NoHost {
            vm: name(),
            step: "start",
            hosts: vec![("xcp-01".into(), "HOST_NOT_ENOUGH_FREE_MEMORY".into())],
        },
        MachineError::NoTurn { vm: name(), step: "start", after: AFTER },
        pool("learn the address of", PoolCause::Wait(wait())),
        pool("suspend", PoolCause::Call(api("VM_LACKS_FEATURE"))),
        pool("make a snapshot of", PoolCause::Call(api("SR_FULL"))),
        refused("move", Refusal::HostDown { host: host() }),
        refused(
            "move",
            Refusal::Storage { disk: "root".into(), storage: "local".into(), host: host() },
        ),
        refused(
            "move",
            Refusal::Memory { host: host(), needed: ByteSize::gib(8), free: ByteSize::gib(2) },
        ),
        refused("resize", Refusal::NeedsStop { what: vec!["growing disk `root`".into()] }),
        refused("resize", Refusal::Shrink { disk: "root".into(), is: ByteSize::gib(10) }),
        refused("restore", Refusal::NoSuchSnapshot { snapshot: "fresh".into(), near: vec![] }),
        refused("make a snapshot of", Refusal::SnapshotThere { snapshot: "fresh".into() }),
        refused("delete", Refusal::NotOurs { owner: None }),
        refused("delete", Refusal::Adopted),
        refused("forget", Refusal::Made),
    ];
    let mut failures: Vec<Failure> = errors.into_iter().map(Failure::machine).collect();
    failures.push(Failure::NoConsole { vm: name() });
    failures
}

fn entered() -> Vec<Failure> {
    let fingerprint = || bioxen_xcp::ssh::ClientKey::generate("").public().fingerprint();
    let errors = [
        SshError::Timeout { address: address(), waiting_for: "the login".into(), after: AFTER },
        SshError::WrongHostKey {
            address: address(),
            expected: fingerprint(),
            found: fingerprint(),
        },
        SshError::LoginRefused {
            address: address(),
            user: "ada".into(),
            how: "key".into(),
            offers: "publickey".into(),
        },
        SshError::Lost { address: address(), reason: "it has fallen silent".into() },
    ];
    let mut failures: Vec<Failure> = errors.into_iter().map(Failure::ssh).collect();
    failures.extend([
        Failure::Copy(Box::new(FileError::Remote {
            path: "results".into(),
            what: "looked at",
            reason: "there is no such file or directory".into(),
            missing: true,
        })),
        Failure::NoVmInCopy,
        Failure::Key { path: "id_ed25519".into(), source: InvalidKey::Locked },
        Failure::NoOpenSsh,
    ]);
    failures
}

fn networked() -> Vec<Failure> {
    let name = || "lab".to_owned();
    let users = vec![User { vm: "gc".into(), device: "0".into() }];
    let errors = [
        NetworkError::NotFound { name: name(), near: Vec::new() },
        NetworkError::NameTaken { name: name() },
        NetworkError::Tag { name: name(), tag: 5000 },
        NetworkError::NotPhysical { on: "eth9".into(), there: vec!["`eth0`".into()] },
        NetworkError::VlanTaken { tag: 120, device: "eth0".into(), network: Some("other".into()) },
        NetworkError::NotOurs { name: name() },
        NetworkError::InUse { name: name(), users },
    ];
    errors.into_iter().map(Failure::network).collect()
}

fn of_pools() -> Vec<Failure> {
    let pool = || PoolName::new("lab").expect("it is one");
    let of = |source| Failure::Pool(bioxen_xcp::PoolError::Client { pool: pool(), source });
    let endpoint: bioxen_xcp::Endpoint = "https://xcp-01.example".parse().expect("it is one");
    vec![
        of(Box::new(xenapi::Error::Connect { endpoint, source: io_error() })),
        of(Box::new(api("SESSION_AUTHENTICATION_FAILED"))),
        of(Box::new(api("RBAC_PERMISSION_DENIED"))),
    ]
}

/// An error as a row of the document. What differs from time to time is left out.
fn row(failure: &Failure) -> String {
    let plain = |text: String| {
        let words =
            text.split(' ').map(|word| if word.contains("SHA256:") { "SHA256:…" } else { word });
        words.collect::<Vec<_>>().join(" ").replace('|', "\\|")
    };
    let hint = failure.hint().unwrap_or_else(|| "-".into());
    format!("| {} | {} | {} |", plain(failure.in_one_line()), plain(hint), failure.exit_code())
}

#[test]
fn the_reference_has_every_error_with_its_hint_and_code() {
    let sections = [remembered(), planned(), made(), used(), entered(), networked(), of_pools()];
    let rows = sections.map(|failures| failures.iter().map(row).collect::<Vec<_>>().join("\n"));
    for row in rows.iter().flat_map(|rows| rows.lines()) {
        assert!(
            DOCUMENT.contains(row),
            "docs/reference/troubleshooting.md lacks this row:\n{row}\nAll of them:\n{}",
            rows.join("\n\n")
        );
    }
}
