//! Guests where there are no namespaces to be had.

use std::process::Stdio;

use bioxen_testkit::{block_on, eventually, processes};
use xenapi_sim::driver::{Ended, GuestDriver, Order};
use xenapi_sim::guest::{Isolation, ProcessOptions};

use crate::rig::{Client, Rig, exists, has_ssh, printed};

fn rig() -> Rig {
    Rig::with(ProcessOptions { directories_only: true, ..ProcessOptions::default() })
}

#[test]
fn a_guest_in_a_directory_says_so_and_can_be_used() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = rig();
        let client = Client::new(rig.guests.ssh_port());
        let more = "runcmd: ['echo ran > ~/ran']\n";
        let mut booted = rig.boot(&client.user_data(more)).await;
        let address = booted.address().await;
        let isolation = rig.guests.isolation(booted.vm).unwrap();
        assert!(matches!(isolation, Isolation::Directory { .. }), "{isolation:?}");
        let waited = client.ssh(address, "lua", &["cloud-init status --wait"]);
        assert_eq!(printed(&waited), "status: done\n");
        let root = rig.guest_directory(booted.vm).join("fs");
        let shown = printed(&client.ssh(address, "lua", &["pwd; exit 0"]));
        assert_eq!(shown.trim_end(), root.join("home/lua").to_str().unwrap());
        assert!(exists(&root.join("root/ran")));

        std::fs::write(client.path("file"), "contents").unwrap();
        let local = client.path("file").display().to_string();
        let target = format!("lua@{address}:file");
        printed(&client.transfer("scp", address, &[&local, &target]).output().unwrap());
        assert_eq!(printed(&client.ssh(address, "lua", &["cat file"])), "contents");
        let target = format!("lua@{address}:{}", root.join("tmp/x").display());
        printed(&client.transfer("scp", address, &[&local, &target]).output().unwrap());
        assert_eq!(printed(&client.ssh(address, "lua", &["cat $TMPDIR/x"])), "contents");
        let output = client.ssh(address, "lua", &["kill -TERM $$"]);
        assert_eq!(output.status.code(), Some(255));
        let mut shell = client.command(address, "lua", "id", &["-tt", "test -t 0 && exit 4"]);
        assert_eq!(shell.stdin(Stdio::null()).status().unwrap().code(), Some(4));
    });
}

#[test]
fn a_guest_in_a_directory_ends_with_all_that_it_started() {
    if !has_ssh() {
        return;
    }
    block_on(async {
        let rig = rig();
        let client = Client::new(rig.guests.ssh_port());
        let mark = format!("1{}.5", &uuid::Uuid::new_v4().as_u128().to_string()[..9]);
        let command = format!("setsid sleep {mark} >/dev/null 2>&1 </dev/null & echo");
        let sleeps = || processes::with_mark(&format!("sleep {mark}")).len();
        let mut booted = rig.boot(&client.user_data("")).await;
        let address = booted.address().await;
        printed(&client.ssh(address, "lua", &[&command]));
        eventually("it runs", || sleeps() == 1).await;
        client.ssh(address, "lua", &["sudo poweroff"]);
        assert_eq!(booted.ended().await, Ended::PowerOff);
        assert_eq!(sleeps(), 0);

        let seed = rig.seed(&client.user_data(""), &[]);
        let mut booted = rig.boot_machine(Rig::machine(booted.vm, seed)).await;
        booted.address().await;
        printed(&client.ssh(address, "lua", &[&command]));
        rig.order(&booted, Order::Suspend).await;
        rig.guests.destroyed(booted.vm).await;
        assert_eq!(sleeps(), 0);
        assert!(!exists(&rig.guest_directory(booted.vm)));
    });
}
