//! The process group of a program in a guest, by which the program and what it started can be ended.
//!
//! SSH has a message for signals, but servers heed it only at times: OpenSSH does not for root, nor
//! when it runs without privileges. So a program is started by a few words of shell that first say,
//! on standard error, which group it leads; that line is taken out again here.

use super::{Command, Connection, Signal, SshError};

/// What the announcing line starts with.
const MARK: &[u8] = b"bioxen-group=";

/// Says which process this is, and becomes the program.
const ANNOUNCE: &str = r#"echo "bioxen-group=$$" >&2; exec "$@""#;

/// Sends a signal to a group; to end it, also to what has left the group but not the session.
const SEND: &str = r#"kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null
if [ "$1" = KILL ] && command -v pkill >/dev/null; then pkill -KILL -s "$2"; fi
:"#;

/// What waits at most for an announcement that does not come.
const LONGEST_WAIT: usize = 16 << 10;

/// A process group in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(u32);

impl Group {
    /// The number of the group, which is that of the process that leads it.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// The command that announces its group before it becomes the given one.
pub(super) fn announcing(command: &Command) -> Command {
    command.within("/bin/sh", &["-c", ANNOUNCE, "sh"])
}

impl Connection {
    /// Sends a signal to a program's group, if it is still there.
    pub async fn signal_group(&self, group: Group, signal: Signal) -> Result<(), SshError> {
        let name = signal.name();
        let command = Command::new("/bin/sh").arguments(["-c", SEND, "sh", name]);
        self.start_as_is(&command.argument(group.0.to_string())).await?.collect(0).await?;
        Ok(())
    }
}

/// Standard error as it arrives, from which the announcement is taken.
#[derive(Debug, Default)]
pub(super) struct Announcement {
    waiting: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Awaited,
    Heard(Group),
    /// It will not come.
    None,
}

impl Announcement {
    /// For a program that announces nothing.
    pub(super) fn none() -> Self {
        Self { waiting: Vec::new(), state: State::None }
    }

    pub(super) fn group(&self) -> Option<Group> {
        match self.state {
            State::Heard(group) => Some(group),
            State::Awaited | State::None => None,
        }
    }

    /// Whether bytes need not be looked at any more.
    pub(super) fn is_settled(&self) -> bool {
        self.state != State::Awaited
    }

    /// Takes bytes while the announcement is awaited; returns what is the program's own.
    pub(super) fn hear(&mut self, data: &[u8]) -> Vec<u8> {
        self.waiting.extend_from_slice(data);
        let Some((start, end, group)) = find(&self.waiting) else {
            return if self.waiting.len() > LONGEST_WAIT { self.rest() } else { Vec::new() };
        };
        self.state = State::Heard(group);
        self.waiting.drain(start..end);
        std::mem::take(&mut self.waiting)
    }

    /// What has waited, once no more will come.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        if self.state == State::Awaited {
            self.state = State::None;
        }
        std::mem::take(&mut self.waiting)
    }
}

/// The announcing line: where it starts, where the next one does, and what it says.
fn find(text: &[u8]) -> Option<(usize, usize, Group)> {
    let mut start = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let end = start + line.len();
        let number = line.strip_prefix(MARK).and_then(|rest| rest.strip_suffix(b"\n"));
        let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        // Groups 0 and 1 would be our own, or everybody.
        if let Some(number) = number.filter(|&number| number > 1) {
            return Some((start, end, Group(number)));
        }
        start = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_announcement_is_found_and_nothing_else_is_lost(
            before in prop::collection::vec("[ -~]{0,10}", 0..3),
            after in "[ -~\n]{0,30}",
            step in 1_usize..9,
        ) {
            prop_assume!(before.iter().all(|line| !line.starts_with("bioxen-group")));
            let before: String = before.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
            let text = format!("{before}bioxen-group=4711\n{after}");
            let mut announcement = Announcement::default();
            let mut own = Vec::new();
            for bytes in text.as_bytes().chunks(step) {
                if announcement.is_settled() {
                    own.extend_from_slice(bytes);
                } else {
                    own.extend(announcement.hear(bytes));
                }
            }
            prop_assert_eq!(announcement.group(), Some(Group(4711)));
            prop_assert_eq!(String::from_utf8(own).unwrap(), format!("{before}{after}"));
        }
    }

    #[test]
    fn what_is_no_announcement_is_passed_on_in_the_end() {
        for text in ["bioxen-group=1\n", "bioxen-group=x\n", "bioxen-group=12", "oh\n"] {
            let mut announcement = Announcement::default();
            assert!(announcement.hear(text.as_bytes()).is_empty());
            assert_eq!(announcement.rest(), text.as_bytes());
            assert_eq!(announcement.group(), None);
        }
        let mut announcement = Announcement::default();
        assert_eq!(announcement.hear(&vec![b'x'; LONGEST_WAIT + 1]).len(), LONGEST_WAIT + 1);
    }
}
