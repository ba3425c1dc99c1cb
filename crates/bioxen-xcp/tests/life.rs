//! What becomes of VMs and networks on a simulated pool.

#![allow(clippy::unwrap_used, reason = "helpers of tests, as in tests")]

#[path = "life/cloning.rs"]
mod cloning;
#[path = "life/deleting.rs"]
mod deleting;
#[path = "life/faults.rs"]
mod faults;
#[path = "life/leaking.rs"]
mod leaking;
#[path = "life/moving.rs"]
mod moving;
#[path = "life/networks.rs"]
mod networks;
#[path = "life/power.rs"]
mod power;
#[path = "life/resizing.rs"]
mod resizing;
#[path = "life/restoring.rs"]
mod restoring;
#[path = "life/support.rs"]
mod support;
