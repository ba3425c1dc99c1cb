//! Limits on time, one run after another in the same VM.

use std::time::Duration;

use bioxen::{EndedBy, VmSpec};
use bioxen_testkit::{block_on, fleet};

#[test]
fn a_deadline_holds_after_a_run_that_was_watched_for_a_later_one() {
    block_on(async {
        let fleet = fleet();
        let vm = fleet.create(VmSpec::basic("deadlines").unwrap()).await.unwrap();
        let busy = "local till = os.clock() + 0.02 while os.clock() < till do end";
        for _ in 0..3 {
            let watched = vm.eval(busy).await.unwrap();
            assert_eq!(watched.record.ending.ended_by, EndedBy::Finished);
            let limit = Duration::from_millis(50);
            let stopped = vm.eval("while true do end").wall_time(limit).await.unwrap();
            assert_eq!(stopped.record.ending.ended_by, EndedBy::WallTime);
            assert!(stopped.record.ending.state_kept, "the worker heard its own timer");
        }
        let running = vm.eval("while true do end").start().await.unwrap();
        running.canceller().cancel();
        let cancelled = running.finish().await.unwrap();
        assert_eq!(cancelled.record.ending.ended_by, EndedBy::Cancelled);
        assert!(cancelled.record.ending.state_kept);
    });
}
