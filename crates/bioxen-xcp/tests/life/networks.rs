use bioxen_xcp::machine::Done;
use bioxen_xcp::networks::{self, NetworkError};
use uuid::Uuid;
use xenapi::{Ref, class, vif};
use xenapi_sim::Pool;

use crate::support::{Lab, lab, lab_of};

async fn count(lab: &Lab) -> (usize, usize) {
    let client = lab.pool.client();
    let networks = client.network().get_all().await.unwrap().len();
    (networks, client.pif().get_all().await.unwrap().len())
}

async fn plug(lab: &Lab, machine: &bioxen_xcp::Machine, network: Uuid) -> Ref<class::Vif> {
    let network = lab.pool.client().network().get_by_uuid(&network.to_string()).await.unwrap();
    let wanted = vif::Record {
        vm: machine.reference().clone(),
        network,
        device: "1".into(),
        mtu: 1500,
        ..Default::default()
    };
    let vif = lab.pool.client().vif().create(&wanted).await.unwrap();
    lab.caught_up().await;
    vif
}

#[tokio::test]
async fn an_internal_network_is_made_listed_and_deleted() {
    let lab = lab().await;
    let before = count(&lab).await;
    let made = networks::create_internal(&lab.pool, "backplane").await.unwrap();
    let listed = networks::list(&lab.pool).await.unwrap();
    let row = listed.iter().find(|row| row.network.name == "backplane").unwrap();
    assert!(row.ours && !row.network.external);
    assert_eq!(row.network.uuid, made.uuid.to_string());
    assert_eq!(listed.iter().filter(|row| row.ours).count(), 1);
    assert_eq!(networks::delete(&lab.pool, "backplane").await.unwrap(), Done::Now);
    assert_eq!(count(&lab).await, before);
    let error = networks::delete(&lab.pool, "backplane").await.unwrap_err();
    assert!(matches!(error, NetworkError::NotFound { .. }));
}

#[tokio::test]
async fn a_vlan_is_there_on_all_hosts() {
    let lab = lab_of(Pool::builder().hosts(3)).await;
    let (networks, pifs) = count(&lab).await;
    let made = networks::create_vlan(&lab.pool, "lab-7", "eth0", 7).await.unwrap();
    assert_eq!(count(&lab).await, (networks + 1, pifs + 3));
    let listed = networks::list(&lab.pool).await.unwrap();
    let row = listed.iter().find(|row| row.network.name == "lab-7").unwrap();
    assert_eq!((row.network.vlan, row.network.hosts, row.ours), (Some(7), 3, true));
    let error = networks::create_vlan(&lab.pool, "lab-8", "eth0", 7).await.unwrap_err();
    assert_eq!(error.hint().unwrap(), "use network `lab-7`");
    networks::delete(&lab.pool, &made.uuid.to_string()).await.unwrap();
    assert_eq!(count(&lab).await, (networks, pifs));
}

#[tokio::test]
async fn wrong_requests_are_refused_before_anything_is_made() {
    let lab = lab().await;
    networks::create_internal(&lab.pool, "backplane").await.unwrap();
    let before = count(&lab).await;
    let pool = &lab.pool;
    for (error, wrong) in [
        (networks::create_internal(pool, "backplane").await, "already"),
        (networks::create_internal(pool, " ").await, "needs a name"),
        (networks::create_internal(pool, &Uuid::nil().to_string()).await, "needs a name"),
        (networks::create_vlan(pool, "backplane", "eth0", 7).await, "already"),
        (networks::create_vlan(pool, "v", "eth0", 0).await, "from 1 to 4094"),
        (networks::create_vlan(pool, "v", "eth0", 4095).await, "from 1 to 4094"),
        (networks::create_vlan(pool, "v", "eth9", 7).await, "`eth9` is neither"),
        (networks::create_vlan(pool, "v", "backplane", 7).await, "`backplane` is neither"),
    ] {
        let error = error.unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
        assert!(error.hint().is_some(), "{error}");
    }
    assert_eq!(count(&lab).await, before);
}

#[tokio::test]
async fn a_vlan_that_the_pool_does_not_make_leaves_no_network() {
    let lab = lab().await;
    let before = count(&lab).await;
    lab.sim.fail_next("pool.create_VLAN_from_PIF", "INTERNAL_ERROR", &["no"]);
    let error = networks::create_vlan(&lab.pool, "lab-7", "eth0", 7).await.unwrap_err();
    assert!(matches!(&error, NetworkError::Pool { step: "create", .. }), "{error:?}");
    assert_eq!(count(&lab).await, before);
}

#[tokio::test]
async fn a_network_in_use_names_those_who_use_it() {
    let lab = lab().await;
    let made = networks::create_internal(&lab.pool, "backplane").await.unwrap();
    let machine = lab.ours("web").await;
    let vif = plug(&lab, &machine, made.uuid).await;
    let error = networks::delete(&lab.pool, "backplane").await.unwrap_err();
    assert_eq!(error.to_string(), "network `backplane` is in use by `web` (interface 1)");
    lab.pool.client().vif().destroy(&vif).await.unwrap();
    lab.caught_up().await;
    networks::delete(&lab.pool, "backplane").await.unwrap();
}

#[tokio::test]
async fn a_network_of_somebody_else_stays() {
    let lab = lab().await;
    let other = lab.controller(Uuid::from_u128(0xf0)).await;
    networks::create_internal(&other, "theirs").await.unwrap();
    lab.caught_up().await;
    let listed = networks::list(&lab.pool).await.unwrap();
    let own = listed.iter().find(|row| row.network.external).unwrap().network.name.clone();
    for name in ["theirs", own.as_str()] {
        let error = networks::delete(&lab.pool, name).await.unwrap_err();
        assert!(matches!(error, NetworkError::NotOurs { .. }), "{error:?}");
    }
}
