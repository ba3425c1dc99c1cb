//! How to get what a machine lacks.

use bioxen::Mechanism;

/// What to do so that a mechanism becomes active.
pub(super) fn for_mechanism(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Process => "please report this: every VM has a process of its own",
        Mechanism::NoNewPrivileges => "needs Linux 3.5 or later",
        Mechanism::Capabilities => "in a container, let the program change its own capabilities",
        Mechanism::ResourceLimits => {
            "raise the hard limits of this shell (`ulimit -H -a` shows them)"
        }
        Mechanism::LandlockFiles => {
            "needs Linux 5.13 or later with `landlock` among the security modules \
             (/sys/kernel/security/lsm; boot option `lsm=landlock,…`)"
        }
        Mechanism::LandlockNetwork => {
            "needs Linux 6.7 or later with `landlock` among the security modules"
        }
        Mechanism::NetworkHosts => "grant no network, or filter hosts outside with a firewall",
        Mechanism::LandlockScope => {
            "needs Linux 6.12 or later with `landlock` among the security modules"
        }
        Mechanism::Seccomp => {
            "needs a kernel with CONFIG_SECCOMP_FILTER; in a container, let seccomp(2) through"
        }
        Mechanism::NetworkNamespace | Mechanism::IpcNamespace => {
            "run as root, or allow user namespaces: `sysctl user.max_user_namespaces` above 0, and \
             on Ubuntu `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
        }
        Mechanism::Cgroup => {
            "run as root, or with a delegated cgroup: `systemd-run --user --scope -p Delegate=yes \
             bioxen …`"
        }
    }
}

/// Interpreters that `--lua` and `--on` can use, and where they come from.
pub(super) const INTERPRETERS: [(&str, &str); 5] = [
    ("lua5.1", "`apt install lua5.1`; elsewhere build it from https://www.lua.org/ftp"),
    ("lua5.2", "`apt install lua5.2`; elsewhere build it from https://www.lua.org/ftp"),
    ("lua5.3", "`apt install lua5.3`; elsewhere build it from https://www.lua.org/ftp"),
    (
        "lua5.4",
        "`apt install lua5.4`, `dnf install lua`, `brew install lua@5.4`; Lua 5.4 is also built in",
    ),
    ("luajit", "`apt install luajit`, `dnf install luajit`, `brew install luajit`"),
];
