//! Whole lives on a pool where things go wrong: each ends in success or in an error that names the VM,
//! and after a collection nothing of ours is left.

use std::collections::HashSet;
use std::time::Duration;

use bioxen_core::ByteSize;
use bioxen_xcp::Machine;
use bioxen_xcp::leaks::{self, Attempt, Fate, Knowledge};
use bioxen_xcp::machine::{MachineError, NewVm, Resize, Stop};
use jiff::Timestamp;
use uuid::Uuid;
use xenapi::class;
use xenapi_sim::{Fault, FaultRule};

use crate::support::{Lab, MINUTE, OWNER, lab, name};

/// Stops at the first thing that goes wrong, as a command does.
async fn live(machine: &Machine, making: Uuid) -> Result<(), MachineError> {
    let stop = Stop { grace: Duration::from_secs(1) };
    machine.start(None).await?;
    machine.snapshot("fresh").await?;
    let copy = NewVm::new(name(&format!("copy-{making}")), making);
    let copy = machine.clone_as(&copy).await?.finish().await?;
    let more =
        Resize { memory: Some(ByteSize::gib(3)), stop_if_needed: Some(stop), ..Resize::default() };
    copy.resize(&more).await?;
    machine.suspend().await?;
    machine.start(None).await?;
    machine.restore("fresh", true).await?;
    machine.reboot(stop.grace).await?;
    machine.delete_snapshot("fresh").await?;
    machine.stop(stop).await?;
    copy.delete().await?;
    machine.delete().await?;
    Ok(())
}

fn faults() -> Vec<FaultRule> {
    let error = |code: &str| Fault::Error([code, "OpaqueRef:x", "x"].map(Into::into).to_vec());
    let all = [
        ("VM.*", Fault::DropBefore),
        ("VM.*", Fault::DropAfter),
        ("VM.*", Fault::Garbage),
        ("VM.*", error("OTHER_OPERATION_IN_PROGRESS")),
        ("VM.*", error("INTERNAL_ERROR")),
        ("VDI.*", error("VDI_IN_USE")),
        ("VDI.*", Fault::DropAfter),
        ("VM.snapshot", error("SR_BACKEND_FAILURE_44")),
        ("VM.clone", error("SR_BACKEND_FAILURE_44")),
    ];
    all.map(|(call, fault)| FaultRule::new(call, fault).probability(0.02)).to_vec()
}

/// Collects until there is nothing left to collect.
async fn collect(lab: &Lab) {
    let vms = HashSet::new();
    let known = Knowledge {
        owner: OWNER,
        now: Timestamp::UNIX_EPOCH,
        alive: &|_| false,
        attempt: &|_| Attempt::Dead,
        making: &|_| false,
        vms: &vms,
    };
    // What was under way when its controller gave up ends first.
    let quiet = lab.pool.mirror().wait_until("all operations to end", MINUTE, |view| {
        view.iter::<class::Vm>().all(|(_, vm)| vm.current_operations.is_empty()).then_some(())
    });
    quiet.await.unwrap();
    lab.caught_up().await;
    let found = leaks::find(&lab.pool.mirror().view(), &known);
    for outcome in leaks::collect(&lab.pool, found).await {
        assert!(matches!(outcome.fate, Fate::Removed { .. } | Fate::Gone), "{outcome:?}");
    }
    lab.caught_up().await;
    assert_eq!(leaks::find(&lab.pool.mirror().view(), &known), []);
}

#[tokio::test]
async fn a_life_on_a_pool_that_fails_ends_clearly_and_leaves_nothing() {
    let lab = lab().await;
    let before = lab.counts().await;
    let (mut well, mut badly) = (0, 0);
    for life in 0..20_u128 {
        let machine = lab.ours(&format!("vm-{life}")).await;
        for fault in faults() {
            lab.sim.fault(fault);
        }
        let making = Uuid::from_u128(life + 1);
        match tokio::time::timeout(MINUTE * 2, live(&machine, making)).await.unwrap() {
            Ok(()) => well += 1,
            Err(error) => {
                badly += 1;
                let label = NewVm::new(name("copy"), making).label(OWNER).to_string();
                let copy = format!("copy-{making}");
                let names = [machine.name(), &label, &copy];
                let text = error.to_string();
                assert!(names.iter().any(|name| text.contains(name)), "{text}");
            }
        }
        lab.sim.forget_fault(None);
        collect(&lab).await;
        assert_eq!(lab.counts().await, before, "life {life}");
    }
    assert!(well > 0 && badly > 0, "{well} ended well and {badly} badly");
}
