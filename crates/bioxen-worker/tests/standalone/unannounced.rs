//! A platform on which nothing announces that a message has come.
#![expect(unsafe_code, reason = "applying a filter between fork and exec has no safe form")]

use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use bioxen_core::protocol::Status;
use bioxen_testkit::Wire;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::guest::{Guest, command, order};

/// Refuses to have a process (which is named by a positive number) told of what comes on a descriptor.
fn no_announcements() -> BpfProgram {
    let condition = |argument, how, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value).unwrap()
    };
    let asks = condition(1, SeccompCmpOp::Eq, libc::F_SETOWN.cast_unsigned().into());
    let for_a_process = condition(2, SeccompCmpOp::Lt, 1 << 31);
    let rule = SeccompRule::new(vec![asks, for_a_process]).unwrap();
    let refused = SeccompAction::Errno(libc::EINVAL.cast_unsigned());
    let rules = [(libc::SYS_fcntl, vec![rule])].into();
    let processor = std::env::consts::ARCH.try_into().unwrap();
    SeccompFilter::new(rules, SeccompAction::Allow, refused, processor).unwrap().try_into().unwrap()
}

#[test]
fn a_message_is_heard_where_nothing_announces_it() {
    let filter = no_announcements();
    let mut command = command();
    // SAFETY: only makes a system call, with memory that was prepared before the fork.
    unsafe {
        command.pre_exec(move || {
            seccompiler::apply_filter(&filter).map_err(|_| std::io::ErrorKind::Other.into())
        });
    }
    let mut guest = Guest::start_by(command, Wire::Pipes);
    guest.accepted(&order(|spec| spec));
    guest.begun("print('begun') while true do end");
    let start = Instant::now();
    guest.cancel();
    assert_eq!(guest.end().status, Status::Cancelled);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(guest.evaluate("return 1").values, [bioxen::Value::Integer(1)]);
}
