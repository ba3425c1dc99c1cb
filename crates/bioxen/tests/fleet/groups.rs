//! Several VMs at once.

use bioxen::{CreateGroupError, EndedBy, EvalError, Event};
use bioxen_testkit::{block_on, fleet};

use crate::common::{ENDLESS, begun, check_works, create, ended, names, spec};

#[test]
fn members_are_numbered_from_000() {
    block_on(async {
        let fleet = fleet();
        let group = fleet.create_group("gc", 3, spec("unused")).await.unwrap();
        assert_eq!(names(&fleet), ["gc_000", "gc_001", "gc_002"]);
        assert_eq!(group.name().as_str(), "gc");
        let members: Vec<&str> = group.members().iter().map(|vm| vm.name().as_str()).collect();
        assert_eq!(members, ["gc_000", "gc_001", "gc_002"]);
        let none = fleet.create_group("empty", 0, spec("unused")).await.unwrap();
        assert!(none.members().is_empty() && none.broadcast("1").wait().await.is_empty());
    });
}

#[test]
fn a_broadcast_gives_one_result_for_each_vm_in_the_order_of_their_names() {
    block_on(async {
        let fleet = fleet();
        let group = fleet.create_group("gc", 5, spec("unused")).await.unwrap();
        create(&fleet, "other").await;
        for (number, vm) in group.members().iter().enumerate() {
            vm.eval(format!("number = {number}")).await.unwrap();
        }
        let broadcast = fleet.broadcast("gc_*", "number * 10").unwrap();
        assert_eq!((broadcast.len(), broadcast.is_empty()), (5, false));
        let results = broadcast.wait().await;
        for ((name, run), number) in results.into_iter().zip(0_i64..) {
            assert_eq!(name.as_str(), format!("gc_{number:03}"));
            assert_eq!(run.unwrap().value().as_i64(), Some(number * 10));
        }
        let all = fleet.broadcast("*", "1").unwrap().wait().await;
        assert_eq!(all.len(), 6);
        assert!(fleet.broadcast("nobody*", "1").unwrap().is_empty());
        assert_eq!(group.broadcast("1").wait().await.len(), 5);
    });
}

#[test]
fn a_failure_of_some_does_not_hide_the_results_of_others() {
    block_on(async {
        let fleet = fleet();
        let group = fleet.create_group("vm", 4, spec("unused")).await.unwrap();
        group.members()[1].eval("bad = true").await.unwrap();
        group.members()[2].stop().await.unwrap();
        let results = group.broadcast("if bad then error('bad') end return 'good'").wait().await;
        let shown: Vec<String> = results
            .into_iter()
            .map(|(name, result)| match result {
                Ok(run) => format!("{name} {}", run.record.ending.ended_by),
                Err(EvalError::NotRunning { state, .. }) => format!("{name} is {state}"),
                Err(error) => panic!("{error}"),
            })
            .collect();
        assert_eq!(
            shown,
            ["vm_000 finished", "vm_001 error", "vm_002 is stopped", "vm_003 finished"]
        );
    });
}

#[test]
fn a_broadcast_that_is_dropped_is_cancelled() {
    block_on(async {
        let fleet = fleet();
        let group = fleet.create_group("vm", 2, spec("unused")).await.unwrap();
        let mut events = fleet.events();
        let broadcast = group.broadcast(ENDLESS);
        let mut started = 0;
        while started < 2 {
            let event = events.next().await.unwrap();
            started += usize::from(matches!(event, Event::RunStarted { .. }));
        }
        assert!(broadcast.finished().is_empty());
        drop(broadcast);
        let mut ended = 0;
        while ended < 2 {
            if let Event::RunEnded { record } = events.next().await.unwrap() {
                assert_eq!(record.ending.ended_by, EndedBy::Cancelled);
                ended += 1;
            }
        }
        for vm in group.members() {
            check_works(vm).await;
        }
    });
}

#[test]
fn a_group_is_made_as_a_whole_or_not_at_all() {
    block_on(async {
        let fleet = fleet();
        let before = create(&fleet, "gc_001").await;
        let error = fleet.create_group("gc", 4, spec("unused")).await.unwrap_err();
        let CreateGroupError::Members { count, failed, ref source, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((count, failed), (4, 1));
        assert!(source.to_string().contains("`gc_001` exists"), "{source}");
        assert!(error.to_string().contains("1 of 4 vms of group `gc`") && error.hint().is_some());
        assert_eq!(names(&fleet), ["gc_001"]);
        check_works(&before).await;
    });
}

#[test]
fn a_group_whose_members_would_have_no_valid_name_is_refused() {
    block_on(async {
        let fleet = fleet();
        for bad in ["", "UPPER", &"a".repeat(60)] {
            let error = fleet.create_group(bad, 1, spec("unused")).await.unwrap_err();
            assert!(matches!(error, CreateGroupError::Name(_)), "{error}");
        }
        assert_eq!(fleet.stats().vms, 0);
    });
}

#[test]
fn the_status_of_a_group_has_each_member() {
    block_on(async {
        let fleet = fleet();
        let group = fleet.create_group("vm", 3, spec("unused")).await.unwrap();
        group.members()[0].stop().await.unwrap();
        let states = |infos: Vec<bioxen::VmInfo>| -> Vec<&str> {
            infos.iter().map(|info| info.state.name()).collect()
        };
        assert_eq!(states(group.status()), ["stopped", "running", "running"]);
        assert_eq!(states(fleet.status("vm_00[12]").unwrap()), ["running", "running"]);
    });
}

#[test]
fn removing_by_a_pattern_removes_what_matches_and_nothing_else() {
    block_on(async {
        let fleet = fleet();
        let group = fleet.create_group("gc", 3, spec("unused")).await.unwrap();
        create(&fleet, "gcx").await;
        let running = begun(&group.members()[0], ENDLESS).await;
        let removed = fleet.remove_matching("gc_*").await.unwrap();
        assert_eq!(removed.removed.len(), 3);
        assert!(removed.failed.is_empty());
        ended(running.finish().await, EndedBy::Cancelled);
        assert_eq!(names(&fleet), ["gcx"]);
        assert!(fleet.remove_matching("gc_*").await.unwrap().removed.is_empty());
        let again = group.remove().await;
        assert_eq!((again.removed.len(), again.failed.len()), (0, 3), "they are gone already");
    });
}

#[test]
fn a_pattern_that_is_none_is_refused() {
    block_on(async {
        let fleet = fleet();
        assert!(fleet.broadcast("[", "1").is_err());
        assert!(fleet.status("{").is_err());
        let error = fleet.remove_matching("[z-a]").await.unwrap_err().to_string();
        assert!(error.contains("`[z-a]` is not a pattern"), "{error}");
    });
}
