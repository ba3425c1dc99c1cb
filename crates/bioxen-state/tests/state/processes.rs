//! Several processes at once, and what is left when one is killed.
//!
//! The other processes are this test program again: a test that finds a role in its environment plays
//! that role and does nothing else.

use std::collections::{BTreeSet, HashSet};
use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bioxen_state::{NewVm, Phase, State};
use uuid::Uuid;

use super::{NETWORK, name, new_vm};

const ROLE: &str = "BIOXEN_STATE_TEST_ROLE";
const PLACE: &str = "BIOXEN_STATE_TEST_PLACE";
/// Marks a line that a role writes, among those of the test harness.
const MARK: &str = "role: ";

/// Starts this program again in a role.
fn start(role: &str, place: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["processes::a_role_is_played", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(PLACE, place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The lines that a role has written, as they come.
fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| {
        let (_, said) = line.split_once(MARK)?;
        Some(said.to_owned())
    })
}

/// Runs several processes in one role to their ends, and returns what they wrote.
fn all(role: &str, count: usize, place: &Path) -> Vec<String> {
    let mut children: Vec<Child> = (0..count).map(|_| start(role, place)).collect();
    let mut said = Vec::new();
    for child in &mut children {
        said.extend(lines(child));
        assert!(child.wait().unwrap().success());
    }
    said
}

#[expect(clippy::print_stdout, reason = "it is the role's line to the test that started it")]
fn say(what: impl std::fmt::Display) {
    println!("{MARK}{what}");
}

#[test]
fn a_role_is_played() {
    let Ok(role) = env::var(ROLE) else { return };
    let state = State::open(PathBuf::from(env::var_os(PLACE).unwrap())).unwrap();
    match role.as_str() {
        "opens" => say(state.installation()),
        "leases" => (0..20).for_each(|_| lease_one(&state)),
        "counts" => {
            for _ in 0..50 {
                let count = |vm: &mut bioxen_state::Vm| vm.vcpus = Some(vm.vcpus.unwrap_or(0) + 1);
                state.update(&name("shared"), count).unwrap();
            }
        }
        "claims" => {
            let controller = state.controller().unwrap();
            if state.claim(&name("prize"), &controller).is_ok() {
                say("mine");
            }
            // Whoever ended now would leave it to the next.
            say("done");
            std::thread::park();
        }
        "writes until it is killed" => write_for_ever(&state),
        other => panic!("nobody plays {other}"),
    }
}

fn lease_one(state: &State) {
    let vm = format!("vm-{}", Uuid::now_v7());
    state.begin(new_vm(&vm)).unwrap();
    let range = "10.0.0.1-10.0.0.80".parse().unwrap();
    say(state.lease_address(NETWORK, range, &BTreeSet::new(), &name(&vm)).unwrap());
}

/// Whole lives of VMs, with a line after each step that was acknowledged.
fn write_for_ever(state: &State) {
    let controller = state.controller().unwrap();
    say(format!("controller {}", controller.id()));
    let range = "10.0.0.1-10.0.255.254".parse().unwrap();
    for number in 0_u32.. {
        let vm = format!("vm-{number}-{}", std::process::id());
        let row = name(&vm);
        state.begin(NewVm { controller: Some(controller.id()), ..new_vm(&vm) }).unwrap();
        say(format!("making {vm}"));
        let address = state.lease_address(NETWORK, range, &BTreeSet::new(), &row).unwrap();
        say(format!("leased {vm} {address}"));
        state.update(&row, |row| row.uuid = Some(Uuid::now_v7().to_string())).unwrap();
        state.ready(&row).unwrap();
        say(format!("ready {vm}"));
        if number % 2 == 0 {
            state.deleting(&row, &controller).unwrap();
            say(format!("deleting {vm}"));
            state.forget(&row).unwrap();
            say(format!("forgotten {vm}"));
        }
    }
}

#[test]
fn processes_that_open_a_new_state_at_once_agree_on_it() {
    let directory = tempfile::tempdir().unwrap();
    let said = all("opens", 8, &directory.path().join("new"));
    assert_eq!((said.len(), said.into_iter().collect::<HashSet<_>>().len()), (8, 1));
}

#[test]
fn processes_never_get_the_same_address() {
    let directory = tempfile::tempdir().unwrap();
    let said = all("leases", 4, directory.path());
    assert_eq!((said.len(), said.into_iter().collect::<HashSet<_>>().len()), (80, 80));
}

#[test]
fn processes_that_change_one_vm_lose_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    state.begin(new_vm("shared")).unwrap();
    all("counts", 4, directory.path());
    assert_eq!(state.vm(&name("shared")).unwrap().vcpus, Some(200));
}

#[test]
fn of_several_that_want_an_abandoned_vm_one_gets_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    let dead = state.controller().unwrap();
    state.begin(NewVm { controller: Some(dead.id()), ..new_vm("prize") }).unwrap();
    drop(dead);
    let mut children: Vec<Child> = (0..4).map(|_| start("claims", directory.path())).collect();
    let mut winners = 0;
    for child in &mut children {
        winners += lines(child).take_while(|said| said != "done").count();
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(winners, 1);
    assert_eq!(state.abandoned().unwrap().len(), 1, "the winner was killed");
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(directory.path()).unwrap();
    for round in 0..20_usize {
        let mut child = start("writes until it is killed", directory.path());
        let mut said = lines(&mut child);
        // Each round is killed at another step.
        let mut acknowledged: Vec<String> = said.by_ref().take(3 + round * 7).collect();
        child.kill().unwrap();
        acknowledged.extend(said);
        child.wait().unwrap();
        let controller = acknowledged[0].strip_prefix("controller ").unwrap().parse().unwrap();
        assert!(!state.is_alive(controller).unwrap());
        check(&state, &acknowledged);
        let abandoned = state.abandoned().unwrap();
        assert_eq!(abandoned.len(), state.vms().unwrap().len(), "all of them were the dead one's");
        for vm in abandoned {
            state.forget(vm.name()).unwrap();
        }
    }
    let database = rusqlite::Connection::open(directory.path().join("state.db")).unwrap();
    let verdict: String =
        database.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let leases: u32 =
        database.query_row("SELECT count(*) FROM leases", [], |row| row.get(0)).unwrap();
    assert_eq!(leases, 0, "with the vms their addresses were given back");
    let _sweeping = state.controller().unwrap();
    assert_eq!(directory.path().join("controllers").read_dir().unwrap().count(), 1);
}

/// Checks what was acknowledged last of each VM. One step more may have been done.
fn check(state: &State, acknowledged: &[String]) {
    let mut last: Vec<(&str, &str)> = Vec::new();
    for line in &acknowledged[1..] {
        let mut words = line.split(' ');
        let (step, vm) = (words.next().unwrap(), words.next().unwrap());
        match last.iter_mut().find(|(known, _)| *known == vm) {
            Some((_, reached)) => *reached = step,
            None => last.push((vm, step)),
        }
    }
    for (vm, step) in last {
        let phase = state.find_vm(&name(vm)).unwrap().map(|vm| vm.phase());
        let expected: &[Option<Phase>] = match step {
            "making" => &[Some(Phase::Making)],
            "leased" => &[Some(Phase::Making), Some(Phase::Ready)],
            "ready" => &[Some(Phase::Ready), Some(Phase::Deleting)],
            "deleting" => &[Some(Phase::Deleting), None],
            "forgotten" => &[None],
            other => panic!("no step is called {other}"),
        };
        assert!(expected.contains(&phase), "{vm} was {step}, and is {phase:?}");
    }
}
