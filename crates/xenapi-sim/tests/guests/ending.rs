//! How guests end, and that nothing of them stays.

use std::path::Path;
use std::process::Stdio;

use bioxen_testkit::processes::{self, Process};
use bioxen_testkit::{block_on, eventually, wait_until};
use xenapi_sim::driver::{Ended, GuestDriver, Order};

use crate::rig::{Client, Rig, exists, has_ssh, printed};

fn mark() -> String {
    format!("1{}.25", &uuid::Uuid::new_v4().as_u128().to_string()[..9])
}

#[test]
fn two_guests_do_not_see_each_other() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let mut first = rig.boot(&client.user_data("")).await;
        let mut second = rig.boot(&client.user_data("")).await;
        let (one, two) = (first.address().await, second.address().await);
        assert_ne!(one, two);
        printed(&client.ssh(
            one,
            "lua",
            &["echo secret > /root/x; echo secret > /usr/local/bin/x"],
        ));
        let listed = printed(&client.ssh(two, "lua", &["ls /root /usr/local/bin; ps ax"]));
        assert!(!listed.contains("\nx\n"), "{listed}");
        assert!(listed.lines().filter(|line| line.contains(':')).count() < 8, "{listed}");
    });
}

#[test]
fn a_destroyed_guest_leaves_nothing() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        let mark = mark();
        // One that left its session, and one that a session still has.
        let command = format!("setsid sleep {mark} >/dev/null 2>&1 </dev/null & echo");
        printed(&client.ssh(address, "lua", &[&command]));
        let mut session = client.command(address, "lua", "id", &[&format!("sleep {mark}")]);
        let mut session = session.stdin(Stdio::null()).spawn().unwrap();
        let sleeps = || {
            let found = processes::with_mark(&mark);
            found.into_iter().filter(|p| p.command_line().starts_with("sleep")).count()
        };
        eventually("both run", || sleeps() == 2).await;
        printed(&client.ssh(address, "lua", &["mkdir ~/no; touch ~/no/way; chmod 0 ~/no"]));

        rig.guests.destroyed(booted.vm).await;
        assert_eq!(sleeps(), 0);
        assert!(!exists(&rig.guest_directory(booted.vm)));
        assert!(!session.wait().unwrap().success());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&booted.vm.to_string()));
        let connect = tokio::net::TcpStream::connect((address, rig.guests.ssh_port())).await;
        assert!(connect.is_err(), "nobody answers any more");
        booted.says_nothing().await;
        rig.guests.destroyed(booted.vm).await;
    });
}

#[test]
fn a_guest_shuts_down_when_told_and_when_it_wants_to() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let mut booted = rig.boot(&client.user_data("")).await;
        booted.address().await;
        rig.order(&booted, Order::Shutdown).await;
        assert_eq!(booted.ended().await, Ended::PowerOff);
        rig.order(&booted, Order::Shutdown).await;
        rig.order(&booted, Order::PowerOff).await;

        for (command, end) in [
            ("sudo poweroff", Ended::PowerOff),
            ("sudo shutdown -r now", Ended::Reboot),
            ("sudo -n systemctl reboot", Ended::Reboot),
        ] {
            let mut booted = rig.boot(&client.user_data("")).await;
            let address = booted.address().await;
            client.ssh(address, "lua", &[command]);
            assert_eq!(booted.ended().await, end, "{command}");
        }
    });
}

#[test]
fn processes_may_end_in_good_order() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        let script =
            "trap 'echo bye > /root/bye; exit' TERM; touch /root/up; while :; do sleep 0.1; done";
        let mut session = client.command(address, "lua", "id", &[script]);
        let mut session = session.stdin(Stdio::null()).spawn().unwrap();
        let up = rig.guest_directory(booted.vm).join("fs/root/up");
        eventually("it runs", || exists(&up)).await;
        rig.order(&booted, Order::Shutdown).await;
        assert_eq!(booted.ended().await, Ended::PowerOff);
        session.wait().unwrap();
        assert!(exists(&up.with_file_name("bye")));
    });
}

#[test]
fn a_suspended_guest_stands_still_and_goes_on() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        let ticks = "while :; do echo >> /root/ticks; sleep 0.01; done";
        let mut session = client.command(address, "lua", "id", &[ticks]);
        let mut session = session.stdin(Stdio::null()).spawn().unwrap();
        let path = rig.guest_directory(booted.vm).join("fs/root/ticks");
        let count = || std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        eventually("it ticks", || count() > 3).await;

        rig.order(&booted, Order::Suspend).await;
        let before = count();
        let mut waiting = client.command(address, "lua", "id", &["echo awake"]);
        let waiting = waiting.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert!(count() <= before + 1, "it stands still");

        rig.order(&booted, Order::Resume).await;
        let stopped = count();
        eventually("it goes on", || count() > stopped + 3).await;
        assert_eq!(printed(&waiting.wait_with_output().unwrap()), "awake\n");
        session.kill().unwrap();
        session.wait().unwrap();
    });
}

#[test]
fn a_guest_whose_first_process_dies_has_crashed() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        let mark = mark();
        let mut session = client.command(address, "lua", "id", &[&format!("sleep {mark}")]);
        let mut session = session.stdin(Stdio::null()).spawn().unwrap();
        let sleep = || {
            let found = processes::with_mark(&mark);
            found.into_iter().find(|process| process.command_line().starts_with("sleep"))
        };
        eventually("it runs", || sleep().is_some()).await;
        let first = first_process(&rig.guest_directory(booted.vm));
        first.signal(nix::sys::signal::Signal::SIGKILL);
        assert_eq!(booted.ended().await, Ended::Crash);
        assert_eq!(sleep(), None);
        session.wait().unwrap();
    });
}

/// A guest's first process: the child of the `unshare` that works in its directory.
fn first_process(directory: &Path) -> Process {
    let works_there = |process: &Process| {
        std::fs::read_link(format!("/proc/{}/cwd", process.pid)).is_ok_and(|cwd| cwd == directory)
    };
    let ours = Process::current().children();
    ours.into_iter().find(works_there).unwrap().children()[0]
}

#[test]
fn a_driver_that_is_dropped_takes_its_guests_with_it() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        let mark = mark();
        let command = format!("setsid sleep {mark} >/dev/null 2>&1 </dev/null & echo");
        printed(&client.ssh(address, "lua", &[&command]));
        assert_eq!(processes::with_mark(&mark).len(), 1);
        drop(rig.guests);
        eventually("it is gone", || processes::with_mark(&mark).is_empty()).await;
    });
}

#[test]
fn a_simulator_that_is_killed_takes_its_guests_with_it() {
    const MARK: &str = "XENAPI_SIM_TEST_MARK";
    if !has_ssh() {
        return;
    }
    let name = "ending::a_simulator_that_is_killed_takes_its_guests_with_it";
    if let Ok(mark) = std::env::var(MARK) {
        block_on(async {
            let rig = Rig::new();
            let client = Client::new(rig.guests.ssh_port());
            let mut booted = rig.boot(&client.user_data("")).await;
            let address = booted.address().await;
            let command = format!("setsid sleep {mark} >/dev/null 2>&1 </dev/null & echo");
            printed(&client.ssh(address, "lua", &[&command]));
            std::future::pending::<()>().await;
        });
    }
    let mark = mark();
    let sleep = || {
        let found = processes::with_mark(&mark);
        found.into_iter().find(|process| process.command_line().starts_with("sleep"))
    };
    let mut other = std::process::Command::new(std::env::current_exe().unwrap());
    other.args([name, "--exact", "--nocapture"]).env(MARK, &mark).stdout(Stdio::null());
    let mut other = other.spawn().unwrap();
    wait_until("its guest runs", || sleep().is_some());
    let sleep = sleep().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    sleep.wait_for_end();
}
