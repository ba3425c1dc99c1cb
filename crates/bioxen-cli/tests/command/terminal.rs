//! The command on a real terminal, through tmux.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::support::has;

const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal of its own with the command in it. Gone when dropped.
pub(crate) struct Terminal {
    directory: tempfile::TempDir,
}

impl Terminal {
    /// Starts the command in a home of its own.
    fn start(arguments: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("home");
        Self::with(directory, &home, arguments)
    }

    /// Starts the command in this home.
    pub(crate) fn start_in(home: &Path, arguments: &str) -> Self {
        Self::with(tempfile::tempdir().unwrap(), home, arguments)
    }

    fn with(directory: tempfile::TempDir, home: &Path, arguments: &str) -> Self {
        let terminal = Self { directory };
        let line = format!("{} {arguments}; echo \"[exit $?]\"; cat", env!("CARGO_BIN_EXE_bioxen"));
        let home = format!("BIOXEN_HOME={}", home.display());
        let size = ["-x", "80", "-y", "40"];
        terminal.tmux(&[&["new-session", "-d"], &size[..], &["-e", &home, &line]].concat());
        terminal
    }

    fn home(&self) -> std::path::PathBuf {
        self.directory.path().join("home")
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let socket = self.directory.path().join("tmux");
        let mut tmux = Command::new("tmux");
        tmux.env_remove("TMUX").args(["-f", "/dev/null", "-S"]).arg(socket).args(arguments);
        tmux.output().unwrap()
    }

    pub(crate) fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    pub(crate) fn type_in(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    fn screen(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).unwrap()
    }

    /// Looks at the screen until it shows `text`.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < deadline, "no `{text}` on the screen:\n{screen}");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn mode_of(path: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::mode(&path.metadata().unwrap()) & 0o777
}

#[test]
fn a_conversation_completes_names_stops_on_ctrl_c_and_keeps_its_history() {
    if !has("tmux") {
        return;
    }
    let terminal = Terminal::start("repl");
    terminal.wait_for("Ctrl-D leaves");

    terminal.type_in("gc = {content = 49.5}");
    terminal.press(&["Enter"]);
    terminal.type_in("gc.con");
    terminal.press(&["Tab"]);
    terminal.wait_for("> gc.content");
    terminal.press(&["Enter"]);
    terminal.wait_for("\n49.5\n");

    terminal.type_in("for i = 1, 2 do");
    terminal.press(&["Enter"]);
    terminal.wait_for("\n>>\n");
    terminal.type_in("print('line ' .. i) end");
    terminal.press(&["Enter"]);
    terminal.wait_for("\nline 2\n");

    terminal.type_in("print('busy') while true do end");
    terminal.press(&["Enter"]);
    terminal.wait_for("\nbusy\n");
    terminal.press(&["C-c"]);
    terminal.wait_for("error: cancelled");
    terminal.type_in("'still ' .. gc.content");
    terminal.press(&["Enter"]);
    terminal.wait_for("\n\"still 49.5\"\n");

    terminal.press(&["C-d"]);
    terminal.wait_for("[exit 0]");
    let history = terminal.home().join("state/repl_history");
    let kept = std::fs::read_to_string(&history).unwrap();
    assert!(kept.contains("gc.content") && kept.contains("'still '"), "{kept}");
    assert_eq!(mode_of(&history), 0o600);
}

#[test]
fn the_demonstration_fits_the_terminal_and_leaves_only_its_summary() {
    if !has("tmux") {
        return;
    }
    let terminal = Terminal::start("demo");
    let screen = terminal.wait_for("[exit 0]");
    assert!(screen.contains("ORFs of at least 100 codons"), "{screen}");
    assert!(!screen.contains("waiting"), "progress is gone:\n{screen}");
}
