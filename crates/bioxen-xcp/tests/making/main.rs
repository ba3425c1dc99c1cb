//! Machines are made on a simulated pool, with Lua in their guests, and leave nothing behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

mod addresses;
mod calling;
mod lab;
#[path = "../ssh/server.rs"]
#[expect(dead_code, reason = "the tests of connections need more of it")]
mod server;
mod ways;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bioxen_core::backend::Report;
use bioxen_core::{ByteSize, Event};
use bioxen_xcp::Machine;
use bioxen_xcp::machine::Done;
use bioxen_xcp::making::{Cause, MakeOrder, finish, make, make_copy, start};
use bioxen_xcp::plan::{PlanError, StepKind};
use bioxen_xcp::tags::Tags;
use tokio::sync::Notify;
use xenapi::enums::VbdType;
use xenapi_sim::{Fault, FaultRule};

use lab::Lab;

const GIB: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_made_with_lua_in_it_and_removed_with_all_that_is_its() {
    let lab = Lab::new().await;
    let before = lab.ours().await;
    let made = make(lab.order(lab.spec("gc"))).await.unwrap();
    let timeline: Vec<_> = made.timeline.iter().map(|timed| (timed.step, timed.took)).collect();
    println!("{timeline:?}");
    assert_eq!(made.warnings, Vec::<String>::new());
    assert_eq!(made.lua.interpreter.version, "Lua 5.4.9");
    assert_eq!(made.lua.fallback, None);
    Machine::find(&lab.pool, "gc").unwrap().delete().await.unwrap();
    assert_eq!(lab.ours().await, before);
    let events = lab.events.lock().unwrap();
    let ended =
        events.iter().filter(|event| matches!(event, Event::StepEnded { failed: None, .. }));
    assert_eq!(ended.count(), made.timeline.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_made_is_found_and_deleted_with_its_snapshots() {
    let lab = Lab::new().await;
    let before = lab.ours().await;
    let spec = lab.spec("kept");
    make(lab.order(spec)).await.unwrap();
    let machine = Machine::find(&lab.pool, "kept").unwrap();
    machine.snapshot("fresh").await.unwrap();
    let deleted = machine.delete().await.unwrap();
    assert_eq!((deleted.snapshots, deleted.disks, deleted.kept), (1, 1, vec![]));
    assert_eq!(lab.ours().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_as_large_and_connected_as_was_ordered() {
    let lab = Lab::new().await;
    let client = lab.pool.client();
    let networks = client.network().get_all_records().await.unwrap();
    let network = networks.values().find(|network| !network.pifs.is_empty()).unwrap();
    let interface = format!("{},mac=0a:00:00:00:00:07", network.name_label);
    let spec = lab
        .spec("large")
        .memory(ByteSize::gib(3))
        .vcpus(3)
        .disk(ByteSize::gib(12))
        .network(interface.parse().unwrap())
        .lifetime(Duration::from_hours(1));
    let made = make(lab.order(spec)).await.unwrap();
    let vm = client.vm().get_record(&made.vm).await.unwrap();
    assert_eq!((vm.name_label.as_str(), vm.is_a_template), ("large", false));
    assert_eq!(vm.memory_static_max.cast_unsigned(), 3 * GIB);
    assert_eq!((vm.vcpus_max, vm.vcpus_at_startup), (3, 3));
    let tags = Tags::read(&vm.other_config).unwrap();
    assert_eq!((tags.owner, tags.vm), (lab.pool.owner(), Some("large".parse().unwrap())));
    assert!(tags.expires.is_some());
    let [vif] = &vm.vifs[..] else { panic!("{} interfaces", vm.vifs.len()) };
    assert_eq!(client.vif().get_mac(vif).await.unwrap(), "0a:00:00:00:00:07");
    // The seed disk is gone, and the one that is left has grown.
    let mut sizes = Vec::new();
    for vbd in &vm.vbds {
        let vbd = client.vbd().get_record(vbd).await.unwrap();
        if vbd.r#type == VbdType::Disk {
            let size = client.vdi().get_virtual_size(&vbd.vdi).await.unwrap();
            sizes.push(size.cast_unsigned());
        }
    }
    assert_eq!(sizes, [12 * GIB]);
    let machine = Machine::find(&lab.pool, "large").unwrap();
    assert_eq!(machine.delete().await.unwrap().vm, Done::Now);
    assert_eq!(machine.delete().await.unwrap().vm, Done::Already);
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_call_fails_nothing_is_left_and_the_step_is_named() {
    let lab = Lab::new().await;
    let before = lab.ours().await;
    for (call, step) in [
        ("VM.clone", StepKind::Clone),
        ("VM.get_record", StepKind::Clone),
        ("VM.add_to_other_config", StepKind::Provision),
        ("VM.provision", StepKind::Provision),
        ("VM.set_memory_limits", StepKind::Size),
        ("VDI.resize", StepKind::Disk),
        ("VIF.create", StepKind::Network),
        ("VDI.create", StepKind::Seed),
        ("VBD.create", StepKind::Seed),
        ("VM.start", StepKind::Start),
    ] {
        lab.sim.fail_next(call, "INTERNAL_ERROR", &["the test says so"]);
        let network = "Pool-wide network associated with eth0".parse().unwrap();
        let spec = lab.spec("gc").memory(ByteSize::gib(3)).disk(ByteSize::gib(12)).network(network);
        let error = make(lab.order(spec)).await.unwrap_err();
        assert_eq!(error.step, Some(step), "{call}: {error}: {:?}", error.cause);
        assert_eq!(error.left, Vec::<String>::new(), "{call}");
        assert_eq!(lab.ours().await, before, "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_answer_is_lost_and_that_comes_while_it_is_undone_holds_nobody_up() {
    let lab = Lab::new().await;
    let before = lab.ours().await;
    for undone in [true, false] {
        lab.sim.fault(FaultRule::new("VM.start", Fault::DropAfter).times(1));
        lab.sim.set_latency("VM.start", Duration::from_millis(500));
        lab.sim.set_latency("VDI.destroy", Duration::from_secs(1));
        if !undone {
            lab.sim.fault(FaultRule::new("VM.get_power_state", Fault::Garbage).times(1));
        }
        let began = Instant::now();
        let error = make(lab.order(lab.spec("gc"))).await.unwrap_err();
        // Not as long as a disk is waited for that is used by a VM that has just ended.
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        assert_eq!(error.step, Some(StepKind::Start), "{error}: {:?}", error.cause);
        let left = lab.ours().await;
        if undone {
            assert_eq!((error.left.len(), &left), (0, &before), "{:?}", error.left);
        } else {
            // What the VM has goes with it, and is not told apart.
            assert_eq!(error.left.len(), 1, "{:?}", error.left);
            assert!(left.contains(&"gc seed".into()), "{left:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_nobody_waits_for_any_more_is_removed() {
    let lab = Lab::new().await;
    let before = lab.ours().await;
    for step in [StepKind::Clone, StepKind::Seed, StepKind::Start, StepKind::Address, StepKind::Ssh]
    {
        let begun = Arc::new(Notify::new());
        let beginning = Arc::clone(&begun);
        let report: Report = Arc::new(move |event| {
            if matches!(event, Event::StepStarted { step: name, .. } if name == step.name()) {
                beginning.notify_one();
            }
        });
        let order = MakeOrder { report, ..lab.order(lab.spec("gc")) };
        tokio::select! {
            biased;
            () = begun.notified() => {}
            made = make(order) => panic!("{step:?} did not begin: {made:?}"),
        }
        lab.pool.settled().await;
        assert_eq!(lab.ours().await, before, "given up in {step:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_only_started_is_finished_later_and_its_seed_goes_then() {
    let lab = Lab::new().await;
    let before = lab.ours().await;
    let known = start(lab.order(lab.spec("gc"))).await.unwrap();
    assert!(!known.ready && known.address.is_none());
    let uuid = known.uuid.clone().unwrap();
    let vm = lab.pool.client().vm().get_by_uuid(&uuid).await.unwrap();
    for _ in 0..2 {
        let made = finish(lab.order(lab.spec("gc")), vm.clone(), known.clone()).await.unwrap();
        assert!(made.known.ready && made.known.address.is_some());
        let ours = lab.ours().await;
        assert!(!ours.iter().any(|name| name == "gc seed"), "{ours:?}");
    }
    Machine::find(&lab.pool, "gc").unwrap().delete().await.unwrap();
    assert_eq!(lab.ours().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_running_machine_has_lua_and_keys_of_its_own() {
    let lab = Lab::new().await;
    let before = lab.ours().await;
    let first = make(lab.order(lab.spec("first"))).await.unwrap();
    let origin = Machine::find(&lab.pool, "first").unwrap();
    let copy = make_copy(lab.order(lab.spec("second")), origin).await.unwrap();
    let [one, other] = [&first, &copy].map(|made| made.known.entry.as_ref().unwrap());
    assert_ne!(one.host_key, other.host_key);
    assert_ne!(one.client_key().unwrap().public(), other.client_key().unwrap().public());
    assert_ne!(first.known.address, copy.known.address);
    assert_eq!(copy.lua.interpreter.version, "Lua 5.4.9");
    let second = Machine::find(&lab.pool, "second").unwrap();
    assert_eq!(second.tags().unwrap().vm, Some("second".parse().unwrap()));
    assert_eq!(second.details().unwrap().disks.len(), 1, "its seed is gone");
    for name in ["first", "second"] {
        Machine::find(&lab.pool, name).unwrap().delete().await.unwrap();
    }
    assert_eq!(lab.ours().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_call_fails_nothing_is_left_of_a_copy_and_its_origin_stays() {
    let lab = Lab::new().await;
    make(lab.order(lab.spec("first"))).await.unwrap();
    let before = lab.ours().await;
    let origin = Machine::find(&lab.pool, "first").unwrap();
    for (call, step) in [
        ("VM.snapshot", StepKind::Clone),
        ("VM.clone", StepKind::Clone),
        ("VDI.create", StepKind::Seed),
        ("VBD.create", StepKind::Seed),
        ("VM.set_name_label", StepKind::Seed),
        ("VM.start", StepKind::Start),
    ] {
        lab.sim.fail_next(call, "INTERNAL_ERROR", &["the test says so"]);
        let order = lab.order(lab.spec("second"));
        let error = make_copy(order, origin.clone()).await.map(drop).unwrap_err();
        assert_eq!(error.step, Some(step), "{call}: {error}: {:?}", error.cause);
        assert_eq!(error.left, Vec::<String>::new(), "{call}");
        assert_eq!(lab.ours().await, before, "{call}");
    }
    for patience in [5, 60, 200].map(Duration::from_millis) {
        let copying = make_copy(lab.order(lab.spec("second")), origin.clone());
        assert!(tokio::time::timeout(patience, copying).await.is_err(), "within {patience:?}");
        lab.pool.settled().await;
        assert_eq!(lab.ours().await, before, "given up after {patience:?}");
    }
    let fixed = "lab,address=10.0.0.7/24".parse().unwrap();
    let order = lab.order(lab.spec("second").network(fixed));
    let error = make_copy(order, origin).await.map(drop).unwrap_err();
    let cause = error.cause.as_ref();
    assert!(matches!(cause, Cause::Plan(PlanError::AddressTaken { .. })), "{cause:?}");
}
