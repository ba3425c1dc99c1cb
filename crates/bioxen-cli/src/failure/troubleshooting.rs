//! Holds `docs/reference/troubleshooting.md` to what the command says.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bioxen::{ByteSize, VmName, VmType};
use bioxen_state::{Phase, StateError};
use bioxen_xcp::import::{Import, ImportError, Wishes};
use bioxen_xcp::machine::{Cause as PoolCause, MachineError, PowerState, Refusal};
use bioxen_xcp::making::{Cause, LuaError, MakeError, NoWorkerImage};
use bioxen_xcp::networks::{NetworkError, User};
use bioxen_xcp::plan::{PlanError, StepKind};
use bioxen_xcp::ssh::files::FileError;
use bioxen_xcp::ssh::{InvalidKey, SshError};
use bioxen_xcp::{
    ConfigurationError, Fingerprint, NoSuchPool, PoolError, PoolName, SecretError, SettingsError,
};
use xenapi::mirror::WaitError;

use super::Failure;
#[cfg(target_os = "linux")]
use crate::commands::SimulatorError;

const DOCUMENT: &str = include_str!("../../../../docs/reference/troubleshooting.md");
const GIB: u64 = 1 << 30;
const CERTIFICATE: &[u8] = b"some certificate";
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

fn refused_by_pool(method: &str, code: &str) -> xenapi::Error {
    let source = xenapi::Failure::new(code, Vec::new());
    xenapi::Error::Api { method: method.to_owned(), source }
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
        StateError::File { path: "state".into(), source: io_error() },
    ];
    let mut failures: Vec<Failure> = errors.into_iter().map(Failure::State).collect();
    failures.extend([
        Failure::NeedsDaemon { vm_type: VmType::Basic },
        Failure::NoEntry { vm: vm() },
        Failure::NoPools,
        Failure::WhichPool { there: "`lab` and `office`".into() },
        Failure::UnknownPool { vm: vm(), pool: "lab".into() },
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
        PlanError::NoAddressFree {
            vm: vm(),
            network: "lab".into(),
            range: "10.0.0.20-10.0.0.99".parse().expect("it is one"),
        },
        PlanError::AddressTaken { vm: vm(), origin: "web".into(), address: [10, 0, 0, 7].into() },
        PlanError::Ambiguous {
            vm: vm(),
            what: "network",
            name: "lab".into(),
            candidates: vec!["UUID".into(), "UUID".into()],
        },
        PlanError::NoStorage { vm: vm(), template: template() },
        PlanError::NotForDisks { vm: vm(), storage: "images".into() },
        PlanError::TooLittleMemory { vm: vm(), template: template(), wanted: GIB / 4, least: GIB },
        PlanError::NoProcessors { vm: vm() },
        PlanError::TooManyInterfaces { vm: vm(), wanted: 9, most: 7 },
        PlanError::SameMac { vm: vm(), mac: "02:00:00:00:00:01".parse().expect("it is one") },
        PlanError::NotAllowed { vm: vm(), address: [10, 0, 0, 7].into() },
        PlanError::Host { vm: vm(), host: "xcp-02".into(), obstacle: "it is disabled".into() },
    ];
    errors.into_iter().map(|error| Failure::Plan(Box::new(error))).collect()
}

fn made() -> Vec<Failure> {
    let image = NoWorkerImage { path: "bioxen-guest-worker".into(), source: io_error() };
    let steps = [
        (StepKind::Clone, Cause::Pool(refused_by_pool("VM.clone", "SR_FULL"))),
        (StepKind::Start, Cause::Pool(refused_by_pool("VM.start", "NO_HOSTS_AVAILABLE"))),
        (
            StepKind::Resolve,
            Cause::Listen { at: "10.0.0.5:8740".parse().expect("it is one"), source: io_error() },
        ),
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
        (StepKind::Disk, Cause::NoDisk { device: "0".into() }),
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
        pool("suspend", PoolCause::Call(refused_by_pool("VM.suspend", "VM_LACKS_FEATURE"))),
        pool("make a snapshot of", PoolCause::Call(refused_by_pool("VM.snapshot", "SR_FULL"))),
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
        MachineError::NotAVm { name: name(), kind: "template" },
        refused("move", Refusal::NoSuchHost { host: host(), near: Vec::new() }),
        refused("move", Refusal::AmbiguousHost { host: host() }),
        refused("move", Refusal::SameHost { host: host() }),
        refused("start", Refusal::OtherHost { host: host() }),
        refused("move", Refusal::HostDisabled { host: host() }),
        refused("resize", Refusal::NoDisk),
        refused("clone", Refusal::NameTaken { name: "web".into() }),
        refused(
            "restore",
            Refusal::AmbiguousSnapshot {
                snapshot: "fresh".into(),
                uuids: vec![uuid::Uuid::nil(); 2],
            },
        ),
    ];
    let mut failures: Vec<Failure> = errors.into_iter().map(Failure::machine).collect();
    let port = SocketAddr::from(([127, 0, 0, 1], 5900));
    failures.extend([
        Failure::NoConsole { vm: name() },
        Failure::Listen { address: port, source: io_error() },
        Failure::NotConfirmed { what: "vm `gc` was not deleted".into() },
    ]);
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
        SshError::Connect { address: address(), source: io_error() },
        SshError::NothingInCommon { address: address(), what: "kind of host key".into() },
        SshError::Handshake { address: address(), source: io_error().into() },
        SshError::Agent { reason: "SSH_AUTH_SOCK is not set".into() },
        SshError::Refused {
            address: address(),
            what: "a channel".into(),
            reason: "it is prohibited".into(),
        },
        SshError::Command { program: "lua5.4".into(), reason: "it has a zero byte".into() },
        SshError::NoWay {
            jump: "bastion:22".into(),
            address: address(),
            reason: "ConnectFailed".into(),
        },
        SshError::Jump {
            source: Box::new(SshError::WrongHostKey {
                address: "bastion:22".into(),
                expected: fingerprint(),
                found: fingerprint(),
            }),
        },
        SshError::Identity { path: "id_ed25519".into(), reason: "…".into() },
    ];
    let mut failures: Vec<Failure> = errors.into_iter().map(Failure::ssh).collect();
    failures.extend([
        Failure::Copy(Box::new(FileError::Remote {
            path: "results".into(),
            what: "looked at",
            reason: "there is no such file or directory".into(),
            missing: true,
        })),
        Failure::Copy(Box::new(FileError::Local {
            path: "genome.fasta".into(),
            what: "read",
            source: io_error(),
        })),
        Failure::UnknownHostKey {
            address: [10, 0, 0, 7].into(),
            found: Box::new(bioxen_xcp::ssh::ClientKey::generate("").public()),
        },
        Failure::ReadOption { path: "id_ed25519".into(), source: io_error() },
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
        NetworkError::Name { name: " ".into() },
        NetworkError::Ambiguous { name: name(), uuids: vec!["UUID".into(), "UUID".into()] },
    ];
    errors.into_iter().map(Failure::network).collect()
}

fn of_pools() -> Vec<Failure> {
    let pool = || PoolName::new("lab").expect("it is one");
    let endpoint = || "https://xcp-01.example".parse().expect("it is one");
    let of = |source| Failure::Pool(PoolError::Client { pool: pool(), source: Box::new(source) });
    let no_variable = SecretError::NoVariable { name: "LAB_PASSWORD".into() };
    let no_pool = NoSuchPool { name: "lba".into(), there: "`lab`".into() };
    let clients = [
        xenapi::Error::Connect { endpoint: endpoint(), source: io_error() },
        refused_by_pool("session.login_with_password", "SESSION_AUTHENTICATION_FAILED"),
        refused_by_pool("VM.clone", "RBAC_PERMISSION_DENIED"),
        xenapi::Error::Transport { endpoint: endpoint(), sent: true, source: io_error() },
        xenapi::Error::Http { endpoint: endpoint(), status: 503, excerpt: "busy".into() },
        xenapi::Error::Timeout {
            endpoint: endpoint(),
            after: AFTER,
            waiting: xenapi::Waiting::Connection,
        },
    ];
    let mut failures: Vec<Failure> = clients.into_iter().map(of).collect();
    failures.extend([
        Failure::Pool(PoolError::NoSuchPool(no_pool)),
        Failure::Pool(PoolError::Password { pool: pool(), source: no_variable }),
        Failure::Pool(PoolError::ReadAuthority {
            pool: pool(),
            path: "ca.pem".into(),
            source: io_error(),
        }),
        Failure::Pool(PoolError::Mirror { pool: pool(), source: Box::new(wait()) }),
        Failure::UnknownCertificate { address: endpoint(), found: Fingerprint::of(CERTIFICATE) },
    ]);
    failures
}

fn configured() -> Vec<Failure> {
    let pool = || PoolName::new("lab").expect("it is one");
    let configuration = [
        ConfigurationError::Read { path: "config.toml".into(), source: io_error() },
        ConfigurationError::Write { path: "config.toml".into(), source: io_error() },
        ConfigurationError::Malformed { path: "config.toml".into(), reason: "…".into() },
        ConfigurationError::Newer { path: "config.toml".into(), found: 9 },
        ConfigurationError::Duplicate { name: pool() },
    ];
    let settings = [
        SettingsError::Read { path: "bioxen.toml".into(), source: io_error() },
        SettingsError::Malformed { path: "bioxen.toml".into(), reason: "…".into() },
        SettingsError::Newer { path: "bioxen.toml".into(), found: 9 },
        SettingsError::NotForProjects {
            path: "bioxen.toml".into(),
            line: 3,
            key: "pools".into(),
            what: "pools",
        },
        SettingsError::Variable { variable: "BIOXEN_MEMORY".into(), reason: "…".into() },
    ];
    let secrets = [
        SecretError::NoVariable { name: "LAB_PASSWORD".into() },
        SecretError::File { path: "lab.password".into(), source: io_error() },
        SecretError::Write { path: "lab.password".into(), source: io_error() },
        SecretError::Taken { path: "lab.password".into() },
        SecretError::Command { program: "pass".into(), source: io_error() },
        SecretError::CommandTimeout { program: "pass".into() },
        SecretError::Unusable { reference: "env:LAB_PASSWORD".into(), reason: "it is empty" },
    ];
    let name = pool();
    let imports = [
        Import::parse("A B=1", &Wishes::default()).expect_err("it has no equals sign"),
        ImportError::SeveralPools { name: pool(), count: 2 },
        ImportError::Taken { name, address: "https://xcp-01.example".parse().expect("it is one") },
    ];
    let import = |source| Failure::Import { path: "xcpng_config.json".into(), source };
    let mut failures: Vec<Failure> =
        configuration.into_iter().map(Failure::Configuration).collect();
    failures.extend(settings.into_iter().map(Failure::Settings));
    failures.extend(secrets.into_iter().map(Failure::Secret));
    failures.extend(imports.into_iter().map(import));
    failures.extend([
        Failure::ReadOld { path: "xcpng_config.json".into(), source: io_error() },
        Failure::NoHome,
    ]);
    failures
}

#[cfg(target_os = "linux")]
fn simulated() -> Vec<Failure> {
    let log = || "sim/log".into();
    let errors = [
        SimulatorError::NameTaken,
        SimulatorError::File { action: "write", path: "sim/pool.json".into(), source: io_error() },
        SimulatorError::Malformed { path: "sim/pool.json".into(), reason: "it is empty".into() },
        SimulatorError::Ended { log: log(), complaint: "the port is taken".into() },
        SimulatorError::NotReady { log: log(), limit: AFTER },
        SimulatorError::DoesNotEnd { pid: 4711 },
        SimulatorError::NotConfirmed,
        SimulatorError::Runs,
    ];
    errors.into_iter().map(Failure::Simulator).collect()
}

#[cfg(not(target_os = "linux"))]
fn simulated() -> Vec<Failure> {
    Vec::new()
}

/// An error as a row of the document. What differs from time to time is left out.
fn row(failure: &Failure) -> String {
    let fingerprint = Fingerprint::of(CERTIFICATE).to_string();
    let plain = |text: String| {
        let text = text.replace(&fingerprint, "…");
        let words = text.split(' ').map(|word| match word {
            word if word.contains("SHA256:") => "SHA256:…",
            word if word.starts_with("AAAA") => "…'`",
            word => word,
        });
        words.collect::<Vec<_>>().join(" ").replace('|', "\\|")
    };
    let hint = failure.hint().unwrap_or_else(|| "-".into());
    format!("| {} | {} | {} |", plain(failure.in_one_line()), plain(hint), failure.exit_code())
}

#[test]
fn the_reference_has_every_error_with_its_hint_and_code() {
    let sections = [
        remembered(),
        planned(),
        made(),
        used(),
        entered(),
        networked(),
        of_pools(),
        configured(),
        simulated(),
    ];
    let rows = sections.map(|failures| failures.iter().map(row).collect::<Vec<_>>().join("\n"));
    for row in rows.iter().flat_map(|rows| rows.lines()) {
        assert!(
            DOCUMENT.contains(row),
            "docs/reference/troubleshooting.md lacks this row:\n{row}\nAll of them:\n{}",
            rows.join("\n\n")
        );
    }
}
