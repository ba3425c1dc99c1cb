//! OpenSSH's server on a port of this machine, with keys, configuration and log of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bioxen_xcp::ssh::{ClientKey, HostKey, HostKeyCheck, Login, Patience, PublicKey, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

/// The account that is made for these tests where root runs them.
const TEST_USER: &str = "bioxen-test";

pub(crate) struct Server {
    process: Child,
    port: u16,
    place: TempDir,
    host_key: PublicKey,
    pub(crate) client_key: ClientKey,
    user: String,
    log: Arc<Mutex<String>>,
}

/// A server, or `None` with a word of why where there can be none. CI must have one.
pub(crate) fn server() -> Option<Server> {
    server_with("")
}

/// Whether nothing may be skipped.
pub(crate) fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true")
}

/// A server with lines of configuration before the usual ones, of which the first of a kind counts.
pub(crate) fn server_with(lines: &str) -> Option<Server> {
    if !Path::new(SSHD).exists() {
        assert!(!is_ci(), "CI needs Debian's openssh-server");
        eprintln!("skipped: there is no {SSHD} (Debian's openssh-server)");
        return None;
    }
    Some(Server::start(lines))
}

/// Who logs in: a user of our own with a plain shell, or else whoever runs the tests.
fn user() -> &'static str {
    static USER: OnceLock<String> = OnceLock::new();
    USER.get_or_init(|| {
        if !nix::unistd::geteuid().is_root() {
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap();
            return user.expect("whoever runs this has an account").name;
        }
        // Several test processes may come here at once; all but the first find it there.
        let add = ["--create-home", "--shell", "/bin/sh", TEST_USER];
        let _ = Command::new("useradd").args(add).stderr(Stdio::null()).status();
        let unlocked = Command::new("usermod").args(["-p", "*", TEST_USER]).status().unwrap();
        assert!(unlocked.success(), "the test's user could not be made");
        TEST_USER.into()
    })
}

impl Server {
    fn start(lines: &str) -> Self {
        let user = user().to_owned();
        let place = tempfile::Builder::new().prefix("bioxen-ssh-").tempdir().unwrap();
        // The server looks for keys as the user who logs in.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (host_key, client_key) = (HostKey::generate("server"), ClientKey::generate("test"));
        let write = |name: &str, text: &str, mode| {
            let path = place.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let host_key_path = write("host_key", host_key.to_openssh().expose(), 0o600);
        let keys = write("authorized_keys", &format!("{}\n", client_key.public()), 0o644);
        if nix::unistd::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = free_port();
        let pam = if nix::unistd::geteuid().is_root() { "yes" } else { "no" };
        let configuration = format!(
            "{lines}\nListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\n\
             PidFile none\nStrictModes no\nUsePAM {pam}\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin yes\nPrintMotd no\nUseDNS no\n\
             MaxStartups 500:30:500\nMaxSessions 500\nLogLevel DEBUG1\n\
             Subsystem sftp internal-sftp\n",
            host_key_path.display(),
            keys.display(),
        );
        let configuration = write("sshd_config", &configuration, 0o644);
        let mut process = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in lines.map_while(Result::ok) {
                    if line.contains("Server listening") {
                        let _ = ready.send(());
                    }
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        let listens = is_ready.recv_timeout(Duration::from_secs(20)).is_ok();
        assert!(listens, "sshd does not listen: {}", log.lock().unwrap());
        let host_key = host_key.public();
        Self { process, port, place, host_key, client_key, user, log }
    }

    #[allow(dead_code, reason = "only the benchmark asks")]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    /// The way in for another user of this machine.
    pub(crate) fn target_as(&self, user: &str) -> Target {
        let check = HostKeyCheck::Pinned(self.host_key.clone());
        Target::new("127.0.0.1", user, check, Login::Key(self.client_key.clone())).port(self.port)
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// The way in that should work, with patience for a slow machine.
    pub(crate) fn target(&self) -> Target {
        let login = Login::Key(self.client_key.clone());
        self.target_with(HostKeyCheck::Pinned(self.host_key.clone()), login)
    }

    pub(crate) fn target_with(&self, check: HostKeyCheck, login: Login) -> Target {
        Target::new("127.0.0.1", &self.user, check, login).port(self.port).patience(Patience {
            connect: Duration::from_secs(30),
            handshake: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            ..Patience::default()
        })
    }

    /// A directory of this machine into which the user of the guest may write.
    pub(crate) fn shared(&self) -> PathBuf {
        let path = self.place.path().join("shared");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        path
    }

    pub(crate) fn write_key(&self) -> PathBuf {
        let path = self.place.path().join("client_key");
        fs::write(&path, self.client_key.to_openssh().expose()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// What the server has said so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The processes that serve connections.
    pub(crate) fn children(&self) -> Vec<Pid> {
        let all = |parent: i32| -> Vec<i32> {
            let path = format!("/proc/{parent}/task/{parent}/children");
            let text = fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
        };
        let monitors = all(self.process.id().try_into().unwrap());
        let sessions = monitors.iter().flat_map(|&monitor| all(monitor));
        let is_sshd = |pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim() == "sshd"
        };
        sessions.chain(monitors.iter().copied()).filter(is_sshd).map(Pid::from_raw).collect()
    }

    /// Sends a signal to all that serve connections.
    pub(crate) fn signal_children(&self, signal: Signal) {
        for child in self.children() {
            let _ = kill(child, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal_children(Signal::SIGCONT);
        self.signal_children(Signal::SIGKILL);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether a process is there and has not ended.
pub(crate) fn runs(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
