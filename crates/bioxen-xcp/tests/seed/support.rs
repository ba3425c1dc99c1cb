//! Programs that these tests need, and settings that ask for everything.

use std::path::{Path, PathBuf};
use std::process::{Command as Program, Output};

use bioxen_xcp::cloud_init::*;
use bioxen_xcp::seed_disk::SeedDisk;

pub(crate) const PUBLIC: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f a test";

/// Where a program is. In CI it has to be somewhere; elsewhere its absence is said.
pub(crate) fn find(program: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file());
    let in_ci = std::env::var_os("CI").is_some();
    assert!(found.is_some() || !in_ci, "`{program}` (Debian: {package}) must be installed in CI");
    if found.is_none() {
        eprintln!("skipped: `{program}` (Debian: {package}) is not installed");
    }
    found
}

/// What a program printed, which has to succeed.
pub(crate) fn run(program: &Path, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{} {arguments:?}: {shown}", program.display());
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn output(program: &Path, arguments: &[&str]) -> Output {
    Program::new(program).args(arguments).env("LC_ALL", "C.UTF-8").output().unwrap()
}

/// What a script says, as JSON, of its arguments; it is run by cloud-init's own Python.
pub(crate) fn ask(cloud_init: &Path, script: &str, arguments: &[&str]) -> serde_json::Value {
    let program = std::fs::read_to_string(cloud_init).unwrap();
    let python = program.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap();
    let arguments = [&["-c", script], arguments].concat();
    serde_json::from_str(&run(Path::new(python.trim()), &arguments)).unwrap()
}

pub(crate) fn instance() -> InstanceId {
    InstanceId::new("5f9d6b5e-7a0c-4f1b-8f39-0c8f0a9f6f11").unwrap()
}

/// A private key as OpenSSH writes it from outside, for [`PUBLIC`].
fn private() -> xenapi::Secret {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let blob = engine.decode(PUBLIC.split(' ').nth(1).unwrap()).unwrap();
    let mut bytes = b"openssh-key-v1\0".to_vec();
    for part in [&b"none"[..], b"none", b""] {
        bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        bytes.extend(part);
    }
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 51]);
    bytes.extend(blob);
    let body = engine.encode(bytes);
    let kind = "OPENSSH PRIVATE KEY";
    format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n").into()
}

pub(crate) fn name(name: &str) -> AccountName {
    AccountName::new(name).unwrap()
}

/// Settings that use every key that is ever written.
pub(crate) fn everything() -> CloudInit {
    let hash = PasswordHash::sha512_with_salt(&"open sesame".into(), &[7; 12]);
    let ada = User::new(name("ada"))
        .full_name("Ada, Countess: no".replace(':', "").as_str())
        .unwrap()
        .group(name("sudo"))
        .group(name("adm"))
        .shell("/bin/bash")
        .unwrap()
        .sudo(Sudo::Everything)
        .authorized_key(PUBLIC.parse().unwrap())
        .password(hash.clone(), Expiry::AtFirstLogin);
    let bo = User::new(name("bo"))
        .sudo(Sudo::Rule(SudoRule::new("ALL=(root) NOPASSWD:/usr/bin/true").unwrap()))
        .password(hash, Expiry::Never);
    let file = FileToWrite::new("/home/ada/notes #1", "grüße\0".as_bytes())
        .unwrap()
        .owner(name("ada"), name("ada"))
        .permissions(0o600)
        .unwrap();
    CloudInit::new()
        .hostname("node".parse().unwrap())
        .fqdn("node.lab.example".parse().unwrap())
        .etc_hosts(EtcHosts::OwnNames)
        .time_zone("Europe/Berlin".parse().unwrap())
        .locale("en_GB.UTF-8".parse().unwrap())
        .ntp(["ntp.lab.example".parse().unwrap()])
        .keep_default_user()
        .user(ada)
        .user(bo)
        .ssh_passwords(false)
        .host_key(HostKey::new(private(), PUBLIC).unwrap())
        .packages(["lua5.4".parse().unwrap(), "git".parse().unwrap()])
        .package_version("curl".parse().unwrap(), "7.88.1-10+deb12u12".parse().unwrap())
        .package_update(true)
        .package_upgrade(false)
        .file(file)
        .file(FileToWrite::new("/etc/environment", "A=b\n").unwrap().append().late())
        .boot_command(Command::arguments(["true", "yes"]).unwrap())
        .command(Command::arguments(["touch", "/tmp/it is 'ready'"]).unwrap())
        .command(Command::shell("echo $HOME | tee /tmp/home").unwrap())
        .grow_root(true)
        .call_home(CallHome::new("http://192.0.2.1:8080/home/$INSTANCE_ID").unwrap().tries(5))
        .interface(fixed())
        .interface(Interface::dhcp("0a:00:00:00:00:02".parse().unwrap()).mtu(9000).unwrap())
}

fn fixed() -> Interface {
    Interface::fixed("0a:00:00:00:00:01".parse().unwrap(), "192.0.2.7/24".parse().unwrap())
        .address("2001:db8::7/64".parse().unwrap())
        .gateway("192.0.2.1".parse().unwrap())
        .unwrap()
        .gateway("2001:db8::1".parse().unwrap())
        .unwrap()
        .name_server("192.0.2.53".parse().unwrap())
        .name_server("2001:db8::53".parse().unwrap())
        .search("lab.example".parse().unwrap())
}

/// A seed's disk, in a file below a directory.
pub(crate) fn disk_in(directory: &Path, seed: &Seed) -> String {
    let path = directory.join("seed.img");
    std::fs::write(&path, SeedDisk::new(seed).bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}
