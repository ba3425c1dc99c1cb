//! Addresses that are declared for a network are given to machines, each to one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use bioxen_core::VmSpec;
use bioxen_xcp::making::{AddressSource, Cause, Known, MakeOrder, make, start};
use bioxen_xcp::plan::{PlanError, PoolView, StepKind};
use bioxen_xcp::{DeclaredRange, GuestSettings, Machine};

use crate::lab::Lab;

const NETWORK: &str = "Pool-wide network associated with eth0";

async fn lab(addresses: &str) -> Lab {
    let range = DeclaredRange::new(addresses.parse().unwrap(), 24, None, Vec::new()).unwrap();
    let ranges = [(NETWORK.to_owned(), range)].into();
    Lab::with(GuestSettings { ranges, ..GuestSettings::default() }).await
}

fn on_network(lab: &Lab, name: &str) -> VmSpec {
    lab.spec(name).network(NETWORK.parse().unwrap())
}

/// The address that was chosen for a machine.
fn chosen(known: &Known) -> IpAddr {
    let (address, source) = known.address.expect("it is known before the guest is");
    assert_eq!(source, AddressSource::Static);
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_are_made_at_once_get_an_address_each_and_the_next_gets_none() {
    let lab = lab("10.0.3.8-10.0.3.10").await;
    let before = lab.ours().await;
    let making = ["one", "two", "three"].map(|name| start(lab.order(on_network(&lab, name))));
    let made = futures::future::join_all(making).await;
    let given: BTreeSet<IpAddr> = made.iter().map(|it| chosen(it.as_ref().unwrap())).collect();
    let all: BTreeSet<IpAddr> = [8, 9, 10].map(|last| [10, 0, 3, last].into()).into();
    assert_eq!(given, all);

    let here = lab.ours().await;
    let error = start(lab.order(on_network(&lab, "four"))).await.unwrap_err();
    assert_eq!(error.step, Some(StepKind::Resolve));
    let full = matches!(*error.cause, Cause::Plan(PlanError::NoAddressFree { .. }));
    assert!(full, "{:?}", error.cause);
    assert_eq!(lab.ours().await, here, "nothing was made for it");

    // Another controller, which was told of none of this, sees what is taken.
    let pool = lab.another().await;
    let order = MakeOrder { pool: Arc::clone(&pool), ..lab.order(on_network(&lab, "four")) };
    start(order.clone()).await.unwrap_err();
    Machine::find(&lab.pool, "two").unwrap().delete().await.unwrap();
    let mirror = pool.mirror();
    let gone = mirror.wait_until("its end", bioxen_testkit::PATIENCE, |view| {
        view.by_name::<xenapi::class::Vm>("two").next().is_none().then_some(())
    });
    gone.await.unwrap();
    let four = start(order).await.unwrap();
    assert_eq!(chosen(&four), chosen(made[1].as_ref().unwrap()), "the one that is free again");
    let deleting = [("one", &lab.pool), ("three", &lab.pool), ("four", &pool)];
    for (name, pool) in deleting {
        Machine::find(pool, name).unwrap().delete().await.unwrap();
    }
    assert_eq!(lab.ours().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_fails_gives_its_address_back() {
    let lab = lab("10.0.3.8").await;
    lab.sim.fail_next("VM.start", "INTERNAL_ERROR", &["the test says so"]);
    let error = start(lab.order(on_network(&lab, "gc"))).await.unwrap_err();
    assert_eq!(error.step, Some(StepKind::Start));
    // Its interface is gone from the pool, and so it is from what we know of that.
    lab.pool.mirror().barrier(bioxen_testkit::PATIENCE).await.unwrap();
    let known = start(lab.order(on_network(&lab, "gc"))).await.unwrap();
    assert_eq!(chosen(&known).to_string(), "10.0.3.8");
    Machine::find(&lab.pool, "gc").unwrap().delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_guest_tools_tell_is_in_use_and_dhcp_can_be_asked_for() {
    let lab = lab("10.0.3.8").await;
    let asking = lab.spec("gc").network(format!("{NETWORK},address=dhcp").parse().unwrap());
    let made = make(lab.order(asking)).await.unwrap();
    let (address, source) = made.known.address.unwrap();
    assert_eq!(source, AddressSource::GuestMetrics);
    let view = PoolView::of_pool(&lab.pool);
    let network = view.networks.iter().find(|network| network.named.name == NETWORK).unwrap();
    assert!(network.in_use.contains(&address), "{address}: {:?}", network.in_use);
    assert!(network.range.is_some());
    Machine::find(&lab.pool, "gc").unwrap().delete().await.unwrap();
}
