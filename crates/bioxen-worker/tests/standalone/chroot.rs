//! The worker that is put into guests: it needs nothing there but the kernel.

use std::process::Command;

use bioxen::Value;
use bioxen_testkit::{Scratch, Wire, guest_worker_program};

use crate::guest::{Guest, order};

#[test]
fn the_worker_for_guests_runs_in_an_empty_root_directory() {
    let scratch = Scratch::new();
    std::fs::copy(guest_worker_program(), scratch.at("worker")).unwrap();
    scratch.file("data.txt", "GATTACA");
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("chroot");
        command.arg(scratch.path());
        command
    } else {
        let mut command = Command::new("unshare");
        command.arg("--map-root-user").arg("--root").arg(scratch.path());
        command
    };
    command.args(["/worker", bioxen_worker::SERVE]);
    let mut guest = Guest::start_by(command, Wire::Pipes);
    let order = order(|spec| spec.grants(bioxen::Grants::none().read("/data.txt")));
    let (accepted, isolation, _) = guest.accepted(&order);
    assert!(isolation.active.len() > 4, "{isolation:?}");
    assert!(accepted.grants.read.contains(std::path::Path::new("/data.txt")), "{accepted:?}");
    let end = guest.evaluate("return io.open('/data.txt'):read('a'), os.date('!%Y', 0)");
    let text = |text: &str| Value::String(text.into());
    assert_eq!(end.values, [text("GATTACA"), text("1970")], "{end:?}");
}
