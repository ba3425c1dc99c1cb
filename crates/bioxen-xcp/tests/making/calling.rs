//! Guests without guest tools call, and are found by that.

use std::net::TcpListener;
use std::time::Duration;

use bioxen_xcp::making::{AddressSource, Cause, finish, make, start};
use bioxen_xcp::plan::StepKind;
use bioxen_xcp::{GuestSettings, Machine};
use xenapi_sim::GuestFaultRule;
use xenapi_sim::guest::GuestFault;

use crate::lab::Lab;

/// A pool whose guests call home, and have no guest tools.
async fn lab(call_home: &str) -> Lab {
    let call_home = Some(call_home.parse().unwrap());
    let lab = Lab::with(GuestSettings { call_home, ..GuestSettings::default() }).await;
    lab.sim.guest_fault(GuestFaultRule::new("*", [GuestFault::NoTools]));
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_tell_the_pool_nothing_are_found_by_their_calls() {
    let lab = lab("127.0.0.1").await;
    let before = lab.ours().await;
    let making = ["one", "two"].map(|name| make(lab.order(lab.spec(name))));
    let mut addresses = Vec::new();
    for made in futures::future::join_all(making).await {
        let made = made.unwrap();
        let (address, source) = made.known.address.unwrap();
        assert_eq!(source, AddressSource::CallHome);
        let stays = |warning: &String| warning.contains("VM_MISSING_PV_DRIVERS");
        assert!(made.warnings.iter().any(stays), "its seed disk does: {:?}", made.warnings);
        addresses.push(address);
        // Made once more, it is looked for where it was.
        let again = finish(
            lab.order(lab.spec(made.known.plan.as_ref().unwrap().vm.as_str())),
            made.vm,
            made.known,
        );
        assert_eq!(again.await.unwrap().known.address, Some((address, source)));
    }
    assert_ne!(addresses[0], addresses[1]);
    for name in ["one", "two"] {
        let machine = Machine::find(&lab.pool, name).unwrap();
        assert_eq!(machine.told_address(), None);
        machine.delete().await.unwrap();
    }
    assert_eq!(lab.ours().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_guest_tools_tell_comes_before_the_call_and_nobody_calls_whom_nobody_hears() {
    let call_home = Some("0.0.0.0".parse().unwrap());
    let lab = Lab::with(GuestSettings { call_home, ..GuestSettings::default() }).await;
    let made = make(lab.order(lab.spec("told"))).await.unwrap();
    assert_eq!(made.known.address.unwrap().1, AddressSource::GuestMetrics);
    assert_eq!(made.warnings, Vec::<String>::new(), "its call was heard all the same");
    let known = start(lab.order(lab.spec("later"))).await.unwrap();
    let vm = lab.pool.client().vm().get_by_uuid(known.uuid.as_ref().unwrap()).await.unwrap();
    let made = finish(lab.order(lab.spec("later")), vm, known).await.unwrap();
    assert_eq!(made.warnings, Vec::<String>::new(), "it did not try to call");
    for name in ["told", "later"] {
        Machine::find(&lab.pool, name).unwrap().delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_neither_tells_nor_calls_is_given_up() {
    let lab = lab("127.0.0.1").await;
    let before = lab.ours().await;
    lab.sim.guest_fault(GuestFaultRule::new("*", [GuestFault::NoAddress]));
    let mut order = lab.order(lab.spec("gc"));
    order.deadlines.set(StepKind::Address, Duration::from_secs(1));
    order.deadlines.set(StepKind::CloudInit, Duration::from_secs(1));
    let error = make(order).await.unwrap_err();
    assert_eq!(error.step, Some(StepKind::Address));
    assert!(matches!(*error.cause, Cause::Wait(_)), "{:?}", error.cause);
    assert!(error.hint().contains("--call-home"), "{}", error.hint());
    assert_eq!(lab.ours().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_listen_nothing_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let lab = lab(&taken.local_addr().unwrap().to_string()).await;
    let before = lab.ours().await;
    let error = make(lab.order(lab.spec("gc"))).await.unwrap_err();
    assert_eq!(error.step, Some(StepKind::Resolve));
    assert!(matches!(*error.cause, Cause::Listen { .. }), "{:?}", error.cause);
    assert_eq!(lab.ours().await, before);
}
