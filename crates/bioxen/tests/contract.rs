//! The contract of a VM, over the built-in interpreter and every other one.
//!
//! The cases are in `bioxen_testkit::contract`, as is the table of what differs by design.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

use bioxen_testkit::contract;

contract!(embedded, contract::embedded());
contract!(lua51, contract::program("lua5.1"));
contract!(lua52, contract::program("lua5.2"));
contract!(lua53, contract::program("lua5.3"));
contract!(lua54, contract::program("lua5.4"));
contract!(luajit, contract::program("luajit"));
