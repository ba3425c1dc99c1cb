//! The state as its users see it: in one process, in several, and after a kill.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod processes;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bioxen_core::VmName;
use bioxen_state::{
    Address, Controller, KnownBy, Network, NewVm, Phase, Secret, Source, State, StateError, Vm,
};
use tempfile::TempDir;
use uuid::Uuid;

const POOL: &str = "pool-uuid";
/// A network of that pool.
const NETWORK: Network<'static> = Network { pool: POOL, network: "network-uuid" };

fn name(name: &str) -> VmName {
    name.parse().unwrap()
}

fn new_vm(name: &str) -> NewVm {
    NewVm {
        name: name.parse().unwrap(),
        pool: "lab".into(),
        pool_uuid: POOL.into(),
        source: Source::Template {
            name: "Debian 12".into(),
            uuid: "template-uuid".into(),
            making_label: format!("making {name} {}", Uuid::now_v7()),
        },
        created: "2026-01-05T10:00:00.123456Z".parse().unwrap(),
        expires: None,
        controller: None,
        spec: r#"{"memory":"2GiB"}"#.into(),
    }
}

fn adopted(name: &str, uuid: &str) -> NewVm {
    NewVm { source: Source::Adopted { uuid: uuid.into() }, ..new_vm(name) }
}

fn state() -> (TempDir, State) {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path().join("state")).unwrap();
    (directory, state)
}

fn reopened(state: &State) -> State {
    State::open(state.directory()).unwrap()
}

fn made(state: &State, vm: &str) -> Vm {
    state.begin(new_vm(vm)).unwrap();
    state.update(&name(vm), |row| row.uuid = Some(format!("uuid of {vm}"))).unwrap();
    state.ready(&name(vm)).unwrap()
}

#[test]
fn an_installation_is_made_once() {
    let (_directory, state) = state();
    assert_eq!(state.installation().get_version_num(), 7);
    assert_eq!(reopened(&state).installation(), state.installation());
}

#[test]
fn all_that_is_known_of_a_vm_is_read_back() {
    let (_directory, state) = state();
    let mut new = new_vm("assembler");
    new.expires = Some("2026-02-01T00:00:00Z".parse().unwrap());
    let begun = state.begin(new.clone()).unwrap();
    assert_eq!((begun.phase(), begun.pool(), begun.pool_uuid()), (Phase::Making, "lab", POOL));
    assert_eq!((begun.created(), begun.expires), (new.created, new.expires));
    assert_eq!((begun.source(), begun.adopted()), (&new.source, false));
    let changed = state.update(begun.name(), |vm| {
        vm.uuid = Some("vm-uuid".into());
        vm.address = Some(Address { ip: "fd00::7".parse().unwrap(), known_by: KnownBy::CallHome });
        vm.ssh_user = Some("ada".into());
        vm.ssh_port = 2222;
        vm.host_key = Some("ssh-ed25519 AAAA".into());
        vm.client_key = Some(Secret::from("-----BEGIN".to_owned()));
        vm.seed_digest = Some("sha256:00".into());
        vm.memory = Some(2 << 30);
        vm.vcpus = Some(4);
        vm.disk = Some(20 << 30);
        vm.spec = "{}".into();
        vm.last_verdict = Some("done".into());
    });
    let changed = changed.unwrap();
    assert_ne!(changed, begun);
    let read = reopened(&state).vm(begun.name()).unwrap();
    assert_eq!(read, changed);
    assert!(!format!("{read:?}").contains("BEGIN"), "{read:?}");
}

#[test]
fn a_name_is_given_once_and_the_refusal_says_to_what() {
    let (_directory, state) = state();
    state.begin(new_vm("a")).unwrap();
    let error = reopened(&state).begin(new_vm("a")).unwrap_err();
    assert_eq!(error.to_string(), "there is a vm `a` already, on pool `lab`: it is making");
    assert!(error.hint().unwrap().contains("bioxen vm delete a"));
    state.forget(&name("a")).unwrap();
    state.begin(new_vm("a")).unwrap();
}

#[test]
fn a_vm_that_is_not_there_is_missed_with_those_that_are() {
    let (_directory, state) = state();
    let error = state.vm(&name("c")).unwrap_err().to_string();
    assert_eq!(error, "there is no vm `c`; there are: none");
    state.begin(new_vm("b")).unwrap();
    state.begin(new_vm("a")).unwrap();
    for error in [
        state.vm(&name("c")).unwrap_err(),
        state.forget(&name("c")).unwrap_err(),
        state.update(&name("c"), |_| ()).unwrap_err(),
        state.ready(&name("c")).unwrap_err(),
    ] {
        assert!(error.is_missing(), "{error:?}");
        assert_eq!(error.to_string(), "there is no vm `c`; there are: `a`, `b`");
    }
    assert_eq!(state.find_vm(&name("c")).unwrap(), None);
    let names: Vec<_> = state.vms().unwrap().iter().map(|vm| vm.name().to_string()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_vm_is_ready_once_it_has_a_uuid_and_until_it_is_deleted() {
    let (_directory, state) = state();
    let controller = state.controller().unwrap();
    state.begin(new_vm("a")).unwrap();
    let error = state.ready(&name("a")).unwrap_err();
    assert!(matches!(error, StateError::NotMade { .. }), "{error:?}");
    assert_eq!(state.vm(&name("a")).unwrap().phase(), Phase::Making);
    state.update(&name("a"), |vm| vm.uuid = Some("u".into())).unwrap();
    assert_eq!(state.ready(&name("a")).unwrap().phase(), Phase::Ready);
    assert_eq!(state.ready(&name("a")).unwrap().phase(), Phase::Ready);
    let error = state.update(&name("a"), |vm| vm.uuid = None).unwrap_err();
    assert!(matches!(error, StateError::NotMade { .. }), "{error:?}");
    assert_eq!(state.deleting(&name("a"), &controller).unwrap().phase(), Phase::Deleting);
    let error = state.ready(&name("a")).unwrap_err();
    assert!(matches!(error, StateError::Deleting { .. }), "{error:?}");
}

#[test]
fn what_was_adopted_is_never_deleted_and_has_one_name() {
    let (_directory, state) = state();
    let controller = state.controller().unwrap();
    let vm = state.begin(adopted("old", "u-1")).unwrap();
    assert_eq!((vm.adopted(), vm.uuid.as_deref(), vm.making_label()), (true, Some("u-1"), None));
    assert_eq!(state.vm(&name("old")).unwrap(), vm);
    let error = state.deleting(&name("old"), &controller).unwrap_err();
    assert!(matches!(error, StateError::Adopted { .. }), "{error:?}");
    let error = state.begin(adopted("again", "u-1")).unwrap_err();
    assert_eq!(error.to_string(), "vm u-1 of the pool is known here already, as `old`");
    state.begin(new_vm("made")).unwrap();
    let error = state.update(&name("made"), |vm| vm.uuid = Some("u-1".into())).unwrap_err();
    assert!(matches!(error, StateError::Known { .. }), "{error:?}");
    state.forget(&name("old")).unwrap();
}

#[test]
fn a_spec_that_is_no_json_is_refused() {
    let (_directory, state) = state();
    let error = state.begin(NewVm { spec: "{".into(), ..new_vm("a") }).unwrap_err();
    assert!(matches!(error, StateError::Database { .. }), "{error:?}");
    assert_eq!(state.vms().unwrap(), []);
}

#[test]
fn a_panic_in_a_change_changes_nothing_and_locks_nobody_out() {
    let (_directory, state) = state();
    state.begin(new_vm("a")).unwrap();
    let change = std::panic::AssertUnwindSafe(|| {
        state.update(&name("a"), |vm| {
            vm.vcpus = Some(9);
            panic!("in the middle");
        })
    });
    assert!(std::panic::catch_unwind(change).is_err());
    assert_eq!(state.vm(&name("a")).unwrap().vcpus, None);
    reopened(&state).update(&name("a"), |vm| vm.vcpus = Some(2)).unwrap();
}

#[test]
fn a_vm_expires_when_its_time_has_come() {
    let (_directory, state) = state();
    let at = |text: &str| text.parse().unwrap();
    let vm = state.begin(new_vm("a")).unwrap();
    assert!(!vm.has_expired(at("2999-01-01T00:00:00Z")));
    let expires = Some(at("2026-01-06T10:00:00Z"));
    let vm = state.update(&name("a"), |vm| vm.expires = expires).unwrap();
    assert!(!vm.has_expired(at("2026-01-06T09:59:59Z")));
    assert!(vm.has_expired(at("2026-01-06T10:00:00Z")));
}

#[test]
fn only_its_owner_can_use_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let state = State::open(&path).unwrap();
    state.begin(new_vm("a")).unwrap();
    let _controller = state.controller().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("controllers")), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(&path).unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
            files += 1;
        }
    }
    assert!(files >= 4, "the database, its log and index, and the lock");
    drop(state);
    fs::set_permissions(path.join("state.db"), fs::Permissions::from_mode(0o644)).unwrap();
    State::open(&path).unwrap();
    assert_eq!(mode(&path.join("state.db")), 0o600);
}

#[test]
fn a_newer_form_is_refused_and_what_is_no_database_is_told() {
    let (_directory, state) = state();
    let path = state.directory().to_owned();
    drop(state);
    let database = rusqlite::Connection::open(path.join("state.db")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let error = State::open(&path).unwrap_err();
    assert!(matches!(error, StateError::Newer { found: 99, known: 2, .. }), "{error:?}");
    assert!(error.to_string().contains("state.db") && error.hint().unwrap().contains("newer"));
    fs::write(path.join("state.db"), "no database at all, but text of some length".repeat(50))
        .unwrap();
    let error = State::open(&path).unwrap_err();
    assert!(error.hint().unwrap().contains("damaged"), "{error:?}");
}

#[test]
fn an_address_is_one_vm_s_until_that_is_forgotten() {
    let (_directory, state) = state();
    let range = "10.0.0.8-10.0.0.9".parse().unwrap();
    let none = BTreeSet::new();
    let lease = |vm: &str| state.lease_address(NETWORK, range, &none, &name(vm));
    assert!(lease("a").unwrap_err().is_missing());
    for vm in ["a", "b", "c"] {
        state.begin(new_vm(vm)).unwrap();
    }
    assert_eq!(lease("a").unwrap().to_string(), "10.0.0.8");
    assert_eq!(lease("b").unwrap().to_string(), "10.0.0.9");
    assert_eq!(lease("a").unwrap().to_string(), "10.0.0.8", "it keeps what it has");
    let error = lease("c").unwrap_err().to_string();
    assert!(error.contains("10.0.0.8-10.0.0.9") && error.contains("2 were given"), "{error}");
    let another = Network { network: "another", ..NETWORK };
    let elsewhere = state.lease_address(another, range, &none, &name("c")).unwrap();
    assert_eq!(elsewhere.to_string(), "10.0.0.8");
    state.forget(&name("a")).unwrap();
    assert_eq!(lease("c").unwrap().to_string(), "10.0.0.8");
    state.release_addresses(&name("b")).unwrap();
    assert_eq!(lease("b").unwrap().to_string(), "10.0.0.9");
    let all: HashSet<_> = [lease("b").unwrap(), lease("c").unwrap()].into();
    assert_eq!(all.len(), 2);
}

#[test]
fn an_address_that_is_in_use_elsewhere_is_not_given() {
    let (_directory, state) = state();
    state.begin(new_vm("a")).unwrap();
    let range = "10.0.0.8-10.0.0.9".parse().unwrap();
    let mut used: BTreeSet<_> = ["10.0.0.8".parse().unwrap()].into();
    let address = state.lease_address(NETWORK, range, &used, &name("a")).unwrap();
    assert_eq!(address.to_string(), "10.0.0.9");
    assert_eq!(state.lease_address(NETWORK, range, &used, &name("a")).unwrap(), address, "its own");
    used.insert(address);
    assert!(state.lease_address(NETWORK, range, &used, &name("a")).is_err(), "not that one");
    state.begin(new_vm("b")).unwrap();
    let full = state.lease_address(NETWORK, range, &used, &name("b")).unwrap_err();
    assert!(matches!(full, StateError::NoAddressFree { given: 1, .. }), "{full}");
}

#[test]
fn a_controller_holds_addresses_until_it_dies() {
    let (_directory, state) = state();
    let (range, none) = ("10.0.0.8-10.0.0.10".parse().unwrap(), BTreeSet::new());
    let (one, other) = (state.controller().unwrap(), state.controller().unwrap());
    let hold = |controller: &Controller| {
        let held = state.hold_address(NETWORK, range, &none, controller);
        held.map(|address| address.to_string())
    };
    assert_eq!(hold(&one).unwrap(), "10.0.0.8");
    assert_eq!(hold(&other).unwrap(), "10.0.0.9");
    state.begin(new_vm("a")).unwrap();
    let leased = state.lease_address(NETWORK, range, &none, &name("a")).unwrap();
    assert_eq!(leased.to_string(), "10.0.0.10");
    assert_eq!(state.given_addresses(NETWORK).unwrap().len(), 3);
    assert!(matches!(hold(&other), Err(StateError::NoAddressFree { .. })));
    drop(one);
    assert_eq!(hold(&other).unwrap(), "10.0.0.8");
    drop(other);
    assert_eq!(state.given_addresses(NETWORK).unwrap(), [leased].into());
}

#[test]
fn a_controller_is_alive_until_it_is_dropped() {
    let (_directory, state) = state();
    let controller = state.controller().unwrap();
    let id = controller.id();
    assert!(state.is_alive(id).unwrap() && reopened(&state).is_alive(id).unwrap());
    assert!(!state.is_alive(Uuid::now_v7()).unwrap());
    let other = state.controller().unwrap();
    assert_ne!(other.id(), id);
    drop(controller);
    assert!(!state.is_alive(id).unwrap());
    assert!(state.is_alive(other.id()).unwrap());
    let files = fs::read_dir(state.directory().join("controllers")).unwrap().count();
    assert_eq!(files, 1, "that of the other one");
}

#[test]
fn a_vm_is_abandoned_when_its_controller_is_dead_and_had_not_released_it() {
    let (_directory, state) = state();
    let (ours, theirs) = (state.controller().unwrap(), state.controller().unwrap());
    for (vm, controller) in [("ours", &ours), ("theirs", &theirs), ("kept", &theirs)] {
        state.begin(NewVm { controller: Some(controller.id()), ..new_vm(vm) }).unwrap();
    }
    made(&state, "free");
    state.release(&name("kept")).unwrap();
    assert_eq!(state.abandoned().unwrap(), []);
    let error = state.claim(&name("theirs"), &ours).unwrap_err();
    assert!(matches!(error, StateError::Held { controller, .. } if controller == theirs.id()));
    let error = state.deleting(&name("theirs"), &ours).unwrap_err();
    assert!(matches!(error, StateError::Held { .. }), "{error:?}");
    drop(theirs);
    let abandoned = state.abandoned().unwrap();
    assert_eq!(abandoned.iter().map(|vm| vm.name().as_str()).collect::<Vec<_>>(), ["theirs"]);
    assert_eq!(state.claim(&name("theirs"), &ours).unwrap().controller(), Some(ours.id()));
    assert_eq!(state.abandoned().unwrap(), []);
    state.claim(&name("free"), &ours).unwrap();
    state.claim(&name("free"), &ours).unwrap();
}
