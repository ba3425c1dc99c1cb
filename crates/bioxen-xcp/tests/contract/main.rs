//! The contract of a VM, over VMs in machines of a simulated pool.
//!
//! All cases of this program share one pool; each has a controller of its own, of which nothing may be
//! left when the case is over. The cases are in `bioxen_testkit::contract`.

#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

mod guests;
#[path = "../support/mod.rs"]
mod support;

use bioxen_testkit::contract;

contract!(embedded, Some(guests::embedded()));
contract!(lua51, guests::program("lua5.1"));

// An interpreter of the guest's own, which our worker does not hold in. It keeps what has to do with values,
// state, output, errors, sessions and several calls. What is left out is what only our worker does in a
// guest: refusing what was not granted (`grants`, `programs`), limits on memory and on processor time and
// the ends of workers (`endings`), variables and directories of one run (`scripts`), and saying what holds
// Lua in (`records`).
contract!(bare, guests::bare(), [values state output errors sessions concurrency]);
