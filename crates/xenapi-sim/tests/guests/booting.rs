//! What the seed asks for, and what the guest says became of it.

use std::time::Duration;

use bioxen_testkit::block_on;
use serde_json::Value;
use xenapi_sim::driver::{Ended, GuestDriver as _, Order, Report, Reports};
use xenapi_sim::guest::{GuestFault, Isolation, ProcessOptions};

use crate::rig::{Client, Rig, complaint, has_ssh, printed};

#[test]
fn the_seed_is_carried_out() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let more = "bootcmd:\n- echo early > /early\nwrite_files:\n- path: /opt-tool/run.sh\n  content: |\n    \
                    #!/bin/sh\n    echo tool\n  permissions: '0755'\nruncmd:\n- [sh, -c, 'echo $0 > /one', \
                    \"it's\"]\n- /opt-tool/run.sh > /two\n- chown lua:root /two\n";
        let mut booted = rig.boot(&client.user_data(more)).await;
        let address = booted.address().await;
        let waited = client.ssh(address, "lua", &["cloud-init status --wait --format json"]);
        let status: Value = serde_json::from_str(&printed(&waited)).unwrap();
        assert_eq!((&status["status"], &status["errors"]), (&"done".into(), &Value::Array(vec![])));
        let seen =
            client.ssh(address, "lua", &["cat /early /one /two; hostname; cat /etc/hostname"]);
        let seen = printed(&seen);
        assert!(seen.starts_with("early\nit's\ntool\n") && seen.ends_with("node\n"), "{seen}");
        let files = client.ssh(address, "lua", &["cat /run/cloud-init/result.json"]);
        let result: Value = serde_json::from_str(&printed(&files)).unwrap();
        assert_eq!(result["v1"]["datasource"], "DataSourceNoCloud [seed=/dev/xvdb]");
        match rig.guests.isolation(booted.vm).unwrap() {
            Isolation::Namespaces { layers } => assert!(layers),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_failing_command_and_a_missing_package_are_errors() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        for (more, part) in [
            ("runcmd: ['false']\n", "Runparts: 1 failures (runcmd)"),
            ("packages: [no-such-package]\n", "no-such-package"),
        ] {
            let mut booted = rig.boot(&client.user_data(more)).await;
            let address = booted.address().await;
            let waited = client.ssh(address, "lua", &["cloud-init status --wait --format=json"]);
            assert_eq!(waited.status.code(), Some(1));
            let status: Value = serde_json::from_slice(&waited.stdout).unwrap();
            assert_eq!(status["status"], "error");
            assert!(status["errors"][0].as_str().unwrap().contains(part), "{status}");
        }
        rig.guests.set_faults(uuid::Uuid::nil(), [GuestFault::CloudInitFails].into());
        let seed = rig.seed(&client.user_data(""), &[]);
        let mut booted = rig.boot_machine(Rig::machine(uuid::Uuid::nil(), seed)).await;
        let address = booted.address().await;
        let waited = client.ssh(address, "lua", &["cloud-init status --wait"]);
        assert_eq!((waited.status.code(), &*waited.stdout), (Some(1), &b"status: error\n"[..]));
    });
}

#[test]
fn what_is_done_once_is_not_repeated_by_a_restart() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let more = "bootcmd: [echo x >> /every]\nruncmd: [echo x >> /once]\n";
        let mut booted = rig.boot(&client.user_data(more)).await;
        let address = booted.address().await;
        printed(&client.ssh(address, "lua", &["cloud-init status --wait; touch /tmp/gone ~/kept"]));
        rig.order(&booted, Order::Reboot).await;
        assert_eq!(booted.ended().await, Ended::Reboot);
        let disk = rig.seed(&client.user_data(more), &[]);
        let mut again = Rig::machine(booted.vm, disk);
        again.boot = 2;
        let mut booted = rig.boot_machine(again).await;
        assert_eq!(booted.address().await, address, "the address stays");
        printed(&client.ssh(address, "lua", &["cloud-init status --wait"]));
        let seen = client.ssh(address, "lua", &["wc -l < /every; wc -l < /once; ls ~ /tmp"]);
        assert_eq!(printed(&seen), "2\n1\n/home/lua:\nkept\n\n/tmp:\n");
    });
}

#[test]
fn a_guest_without_an_address_reports_none() {
    block_on(async {
        let faults = [GuestFault::NoAddress].into();
        let rig = Rig::with(ProcessOptions { faults, ..ProcessOptions::default() });
        let mut booted = rig.boot("#cloud-config\n").await;
        let Report::Agent(agent) = booted.report().await else { panic!() };
        assert!(agent.addresses.is_empty() && !agent.features.is_empty());
        booted.says_nothing().await;
    });
}

#[test]
fn a_guest_can_restart_or_crash_while_it_is_set_up() {
    block_on(async {
        let rig = Rig::new();
        let vm = uuid::Uuid::new_v4();
        let seed = rig.seed("#cloud-config\n", &[]);
        let mut machine = Rig::machine(vm, seed);
        let faults = "reboots-during-setup".to_owned();
        machine.xenstore_data.insert(GuestFault::KEY.into(), faults);
        let mut booted = rig.boot_machine(machine.clone()).await;
        booted.address().await;
        assert_eq!(booted.ended().await, Ended::Reboot);
        machine.boot = 2;
        let mut booted = rig.boot_machine(machine).await;
        booted.address().await;
        booted.says_nothing().await;

        rig.guests.set_faults(vm, [GuestFault::CrashesDuringSetup].into());
        let mut booted = rig.boot_machine(Rig::machine(vm, seed)).await;
        booted.address().await;
        assert_eq!(booted.ended().await, Ended::Crash);
    });
}

#[test]
fn programs_that_are_copied_into_a_guest_can_be_refused() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let seed = rig.seed(&client.user_data(""), &[]);
        let mut machine = Rig::machine(uuid::Uuid::new_v4(), seed);
        machine.xenstore_data.insert(GuestFault::KEY.into(), "programs-refused".into());
        let mut booted = rig.boot_machine(machine).await;
        let address = booted.address().await;
        for place in ["~", "/tmp", "/var/tmp", "/dev/shm"] {
            let copied = format!("cp /bin/true {place}/copied && chmod +x {place}/copied");
            printed(&client.ssh(address, "lua", &[&copied]));
            let refused = client.ssh(address, "lua", &[&format!("{place}/copied")]);
            assert_eq!(refused.status.code(), Some(126), "{place}");
            assert!(complaint(&refused).contains("Permission denied"), "{place}");
        }
        // What the guest has itself goes on.
        printed(&client.ssh(address, "lua", &["cloud-init status --wait; true"]));
    });
}

#[test]
fn a_guest_in_a_directory_cannot_refuse_programs() {
    block_on(async {
        let faults = [GuestFault::ProgramsRefused].into();
        let rig = Rig::with(ProcessOptions {
            faults,
            directories_only: true,
            ..ProcessOptions::default()
        });
        let seed = rig.seed("#cloud-config\n", &[]);
        let machine = Rig::machine(uuid::Uuid::new_v4(), seed);
        let refused = rig.guests.boot(machine, Reports::new(|_| ())).await.unwrap_err();
        assert!(refused.message.contains("`programs-refused`"), "{refused}");
    });
}

#[test]
fn the_clock_of_a_guest_can_be_wrong() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = Rig::new();
        let client = Client::new(rig.guests.ssh_port());
        let seed = rig.seed(&client.user_data(""), &[]);
        let vm = uuid::Uuid::new_v4();
        rig.guests.set_faults(vm, [GuestFault::WrongClock].into());
        let mut booted = rig.boot_machine(Rig::machine(vm, seed)).await;
        let address = booted.address().await;
        let wait = "cloud-init status --wait >/dev/null; date +%s; cat /run/cloud-init/status.json";
        let said = printed(&client.ssh(address, "lua", &[wait]));
        let (told, status) = said.split_once('\n').unwrap();
        let status: Value = serde_json::from_str(status).unwrap();
        let start = status["v1"]["init-local"]["start"].as_f64().unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        for told in [told.parse::<f64>().unwrap(), start] {
            let days = (now - told) / 86400.0;
            assert!((364.9..365.1).contains(&days), "{days} days: {said}");
        }
    });
}

#[test]
fn a_boot_takes_as_long_as_it_was_told_to() {
    block_on(async {
        let boot_delay = Duration::from_millis(400);
        let rig = Rig::with(ProcessOptions { boot_delay, ..ProcessOptions::default() });
        let start = std::time::Instant::now();
        let mut booted = rig.boot("#cloud-config\n").await;
        booted.address().await;
        assert!(start.elapsed() >= boot_delay);
    });
}

#[test]
fn guests_see_a_shared_directory_at_its_own_path_and_nothing_beside_it() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let above = tempfile::tempdir().unwrap();
        let open_to_all = std::os::unix::fs::PermissionsExt::from_mode;
        std::fs::set_permissions(above.path(), open_to_all(0o755)).unwrap();
        let directory = above.path().join("with a space");
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, open_to_all(0o777)).unwrap();
        std::fs::write(directory.join("theirs"), "for guests").unwrap();
        std::fs::write(above.path().join("beside"), "not for guests").unwrap();
        let shared = vec![directory.clone()];
        let rig = Rig::with(ProcessOptions { shared, ..ProcessOptions::default() });
        let client = Client::new(rig.guests.ssh_port());
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        let there = directory.display();
        let command =
            format!("cat '{there}/theirs'; echo from the guest > '{there}/ours'; ls '{there}/..'");
        let seen = client.ssh(address, "lua", &[&command]);
        assert_eq!(printed(&seen), "for guestswith a space\n");
        let ours = std::fs::read_to_string(directory.join("ours")).unwrap();
        assert_eq!(ours, "from the guest\n");
    });
}
