use std::collections::HashSet;

use bioxen_xcp::leaks::{self, Attempt, Fate, Kind, Knowledge, Leak, Reason};
use bioxen_xcp::tags::{MakingLabel, Tags};
use bioxen_xcp::{ConnectedPool, networks};
use jiff::Timestamp;
use uuid::Uuid;
use xenapi::enums::VdiType;
use xenapi::vdi;

use crate::support::{Lab, OWNER, lab, name, tags};

const DEAD: Uuid = Uuid::from_u128(0xdead);
const UNNOTED: Uuid = Uuid::from_u128(0x0f);
const OTHERS: Uuid = Uuid::from_u128(0xf0);

fn find(pool: &ConnectedPool, registered: &[Uuid]) -> Vec<Leak> {
    let attempt = |id| if id == DEAD { Attempt::Dead } else { Attempt::Unknown };
    let vms: HashSet<Uuid> = registered.iter().copied().collect();
    let known = Knowledge {
        owner: OWNER,
        now: "2027-01-02T00:00:00Z".parse().unwrap(),
        alive: &|_| false,
        attempt: &attempt,
        making: &|_| false,
        vms: &vms,
    };
    leaks::find(&pool.mirror().view(), &known)
}

fn label(attempt: Uuid, owner: Uuid, fleet: Option<Uuid>) -> String {
    MakingLabel { attempt, owner, fleet }.to_string()
}

fn expired() -> Tags {
    let at: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    Tags { expires: Some(at), ..tags("old") }
}

/// A seed disk of ours that no VM has.
async fn lost_seed(lab: &Lab) {
    let (sr, _) = lab.storage("Local storage").await;
    let wanted = vdi::Record {
        name_label: "seed".into(),
        sr,
        virtual_size: 10 << 20,
        r#type: VdiType::User,
        other_config: tags("gone").entries().collect(),
        ..Default::default()
    };
    lab.pool.client().vdi().create(&wanted).await.unwrap();
    lab.caught_up().await;
}

#[tokio::test]
async fn a_clean_pool_has_no_leaks() {
    let lab = lab().await;
    let machine = lab.ours("web").await;
    lab.vm("foreign", None).await;
    assert_eq!(find(&lab.pool, &[machine.uuid()]), []);
}

#[tokio::test]
async fn what_was_left_is_found_and_removed_and_nothing_else() {
    let lab = lab().await;
    let kept = lab.ours("web").await;
    let theirs = Tags { owner: OTHERS, ..expired() };
    lab.vm("theirs", Some(&theirs)).await;
    lab.vm(&label(DEAD, OTHERS, Some(DEAD)), None).await;
    // As a clone of what another installation has made, in its first moments.
    lab.vm(&label(OTHERS, OWNER, Some(DEAD)), Some(&theirs)).await;
    lab.vm(&format!("{} (copy)", label(DEAD, OWNER, None)), None).await;
    networks::create_internal(&lab.pool, "backplane").await.unwrap();
    let before = lab.counts().await;
    lab.vm(&label(DEAD, OWNER, None), None).await;
    lab.vm(&label(UNNOTED, OWNER, Some(DEAD)), None).await;
    let old = lab.vm("old", Some(&expired())).await;
    old.start(None).await.unwrap();
    old.snapshot("before").await.unwrap();
    lab.ours("unregistered").await;
    lab.vm("lone", Some(&Tags { fleet: Some(DEAD), ..tags("lone") })).await;
    let orphan = lab.ours("orphan").await;
    orphan.snapshot("left").await.unwrap();
    let disk = orphan.details().unwrap().disks.remove(0).uuid.to_string();
    lost_seed(&lab).await;
    let client = lab.pool.client();
    client.vm().destroy(orphan.reference()).await.unwrap();
    let disk = client.vdi().get_by_uuid(&disk).await.unwrap();
    client.vdi().destroy(&disk).await.unwrap();
    lab.caught_up().await;

    let found = find(&lab.pool, &[kept.uuid()]);
    let reason = |name: &str| &found.iter().find(|leak| leak.name == name).unwrap().reason;
    assert_eq!(reason(&label(DEAD, OWNER, None)), &Reason::AttemptDead { attempt: DEAD });
    let unnoted = reason(&label(UNNOTED, OWNER, Some(DEAD)));
    assert_eq!(unnoted, &Reason::ControllerGone { fleet: DEAD });
    let of_another = reason(&label(DEAD, OTHERS, Some(DEAD)));
    assert_eq!(of_another, &Reason::OfAnother { owner: OTHERS });
    let contested = reason(&label(OTHERS, OWNER, Some(DEAD)));
    assert_eq!(contested, &Reason::MarkedByAnother { owner: OTHERS });
    assert!(matches!(reason("old"), Reason::Expired { .. }));
    assert_eq!(reason("unregistered"), &Reason::Unregistered);
    assert_eq!(reason("lone"), &Reason::ControllerGone { fleet: DEAD });
    assert_eq!((reason("left"), reason("seed")), (&Reason::NoVm, &Reason::NoVm));
    assert_eq!(reason("backplane"), &Reason::Unused);
    assert_eq!(found.len(), 10, "{found:?}");
    let expired = found.iter().find(|leak| leak.name == "old").unwrap();
    assert_eq!(expired.age.unwrap().as_hours(), 24);
    assert!(found.iter().all(|leak| leak.size > 0 || leak.kind == Kind::Network));

    let outcomes = leaks::collect(&lab.pool, found).await;
    for outcome in &outcomes {
        let expected = outcome.leak.is_collectable();
        assert_eq!(matches!(outcome.fate, Fate::Removed { .. }), expected, "{outcome:?}");
        assert_eq!(matches!(outcome.fate, Fate::Kept), !expected, "{outcome:?}");
    }
    assert_eq!(lab.counts().await, before);
    let left = find(&lab.pool, &[kept.uuid()]);
    assert_eq!(left.len(), 3, "the network and what may be another installation's: {left:?}");
}

#[tokio::test]
async fn one_that_cannot_be_removed_does_not_keep_the_others() {
    let lab = lab().await;
    let before = lab.counts().await;
    let stuck = lab.ours("a-stuck").await;
    lab.ours("b-loose").await;
    let vms = lab.pool.client().vm();
    let blocked = xenapi::enums::VmOperation::Destroy;
    vms.add_to_blocked_operations(stuck.reference(), blocked.clone(), "precious").await.unwrap();
    let outcomes = leaks::collect(&lab.pool, find(&lab.pool, &[])).await;
    assert_eq!(outcomes.len(), 2);
    let Fate::Failed(error) = &outcomes[0].fate else { panic!("{outcomes:?}") };
    assert_eq!(error.code(), Some("OPERATION_BLOCKED"));
    assert!(matches!(outcomes[1].fate, Fate::Removed { .. }), "{outcomes:?}");
    vms.remove_from_blocked_operations(stuck.reference(), blocked).await.unwrap();
    leaks::collect(&lab.pool, find(&lab.pool, &[])).await;
    assert_eq!(lab.counts().await, before);
}

#[tokio::test]
async fn what_has_changed_since_it_was_found_is_left_alone() {
    let lab = lab().await;
    let later = lab.vm("later", Some(&expired())).await;
    let foreign = lab.vm("foreign", None).await;
    lost_seed(&lab).await;
    let found = find(&lab.pool, &[]);
    assert_eq!(found.len(), 2);
    later.expire(None).await.unwrap();
    let outcomes = leaks::collect(&lab.pool, found.clone()).await;
    assert!(matches!(outcomes[0].fate, Fate::Changed), "{outcomes:?}");
    assert!(matches!(outcomes[1].fate, Fate::Removed { .. }), "{outcomes:?}");
    let outcomes = leaks::collect(&lab.pool, found.clone()).await;
    assert!(matches!(outcomes[1].fate, Fate::Gone), "{outcomes:?}");
    // Whatever a caller takes for a leak.
    let made_up = Leak {
        name: "foreign".into(),
        uuid: foreign.uuid(),
        tags: None,
        reason: Reason::Unregistered,
        ..found[0].clone()
    };
    let outcomes = leaks::collect(&lab.pool, vec![made_up]).await;
    assert!(matches!(outcomes[0].fate, Fate::Changed), "{outcomes:?}");
    foreign.details().unwrap();
}

#[tokio::test]
async fn an_adopted_vm_is_never_a_leak() {
    let lab = lab().await;
    let machine = lab.vm("found", None).await;
    machine.adopt(&name("found")).await.unwrap();
    assert_eq!(find(&lab.pool, &[]), []);
}
