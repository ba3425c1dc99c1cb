//! Machines are made on a simulated pool, with Lua in their guests, and leave nothing behind.

mod lab;

use bioxen_core::Event;
use bioxen_xcp::making::{make, remove_machine};

use lab::Lab;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_made_with_lua_in_it_and_removed_with_all_that_is_its() {
    let lab = Lab::new().await;
    let before = lab.ours().await;
    let made = make(lab.order(lab.spec("gc"))).await.unwrap();
    let timeline: Vec<_> = made.timeline.iter().map(|timed| (timed.step, timed.took)).collect();
    println!("{timeline:#?}\n{:?}", made.warnings);
    assert_eq!(made.lua.interpreter.version, "Lua 5.4.9");
    assert_eq!(made.lua.fallback, None);
    remove_machine(&lab.pool, &made.vm).await.unwrap();
    assert_eq!(lab.ours().await, before);
    let events = lab.events.lock().unwrap();
    let ended = events.iter().filter(|event| matches!(event, Event::StepEnded { failed: None, .. }));
    assert_eq!(ended.count(), made.timeline.len());
}
