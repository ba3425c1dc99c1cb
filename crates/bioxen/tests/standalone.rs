//! The contract of a VM, over workers that run by themselves as they do in a guest.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests, as in tests")]
#![cfg(target_os = "linux")]

use bioxen_testkit::{Wire, contract, standalone_fleet};

contract!(embedded_over_pipes, contract::embedded_in(standalone_fleet(Wire::Pipes)));
contract!(embedded_over_a_socket, contract::embedded_in(standalone_fleet(Wire::Socket)));
contract!(lua51_over_pipes, contract::program_in(standalone_fleet(Wire::Pipes), "lua5.1"));
contract!(luajit_over_a_socket, contract::program_in(standalone_fleet(Wire::Socket), "luajit"));
