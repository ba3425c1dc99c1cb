//! Files that cloud-init writes, and commands that it runs.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::setting::{AccountName, InvalidSetting, check_path};
use super::yaml::Node;

/// A file that cloud-init writes: by `root`, for all to read, before packages are installed.
#[derive(Clone)]
#[must_use]
pub struct FileToWrite {
    pub(super) path: String,
    content: Vec<u8>,
    owner: Option<(AccountName, AccountName)>,
    permissions: u16,
    append: bool,
    late: bool,
}

impl FileToWrite {
    /// A file with this content, of any bytes, at an absolute path. Folders on the way are made.
    pub fn new(path: &str, content: impl Into<Vec<u8>>) -> Result<Self, InvalidSetting> {
        check_path("path", path)?;
        Ok(Self {
            path: path.to_owned(),
            content: content.into(),
            owner: None,
            permissions: 0o644,
            append: false,
            late: false,
        })
    }

    /// Sets whose it is. One that belongs to a user of this configuration is written
    /// [`late`](Self::late), as users are made after other files.
    pub fn owner(mut self, user: AccountName, group: AccountName) -> Self {
        self.owner = Some((user, group));
        self
    }

    /// Sets who may do what with it, as `chmod` takes it.
    pub fn permissions(mut self, mode: u16) -> Result<Self, InvalidSetting> {
        if mode > 0o7777 {
            let mode = format!("{mode:o}");
            return Err(InvalidSetting::new("file mode", &mode, "it is at most 7777"));
        }
        self.permissions = mode;
        Ok(self)
    }

    /// Adds to what the file has, instead of replacing it.
    pub fn append(mut self) -> Self {
        self.append = true;
        self
    }

    /// Writes it near the end, when users are made and packages installed (cloud-init 21.3 and newer;
    /// older ones write it at once).
    pub fn late(mut self) -> Self {
        self.late = true;
        self
    }

    pub(super) fn appends(&self) -> bool {
        self.append
    }

    pub(super) fn belongs_to(&self, name: &AccountName) -> bool {
        self.owner.as_ref().is_some_and(|(user, _)| user == name)
    }

    pub(super) fn node(&self, late: bool) -> Node {
        let mut entries = vec![
            ("path", Node::text(&self.path)),
            ("encoding", Node::text("b64")),
            ("content", Node::text(STANDARD.encode(&self.content))),
            ("permissions", Node::text(format!("0{:03o}", self.permissions))),
        ];
        if let Some((user, group)) = &self.owner {
            entries.push(("owner", Node::text(format!("{user}:{group}"))));
        }
        if self.append {
            entries.push(("append", Node::plain(true)));
        }
        if self.late || late {
            entries.push(("defer", Node::plain(true)));
        }
        Node::map(entries)
    }
}

impl fmt::Debug for FileToWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileToWrite")
            .field("path", &self.path)
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// A command that cloud-init runs as `root`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Arguments(Vec<String>),
    Shell(String),
}

impl Command {
    /// A program and its arguments, which no shell reads.
    pub fn arguments<T: Into<String>>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, InvalidSetting> {
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        let invalid = |reason| InvalidSetting::new("command", &words.join(" "), reason);
        if words.first().is_none_or(String::is_empty) {
            return Err(invalid("it starts with a program"));
        }
        if words.iter().any(|word| word.contains('\0')) {
            return Err(invalid("its words hold no zero byte"));
        }
        Ok(Self(Kind::Arguments(words)))
    }

    /// Text for the guest's `/bin/sh`, for those who want its pipes and variables.
    pub fn shell(text: impl Into<String>) -> Result<Self, InvalidSetting> {
        let text = text.into();
        if text.trim().is_empty() || text.contains('\0') {
            return Err(InvalidSetting::new(
                "shell text",
                &text,
                "it says something, without zero bytes",
            ));
        }
        Ok(Self(Kind::Shell(text)))
    }

    pub(super) fn node(&self) -> Node {
        match &self.0 {
            Kind::Arguments(words) => Node::texts(words),
            Kind::Shell(text) => Node::text(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_s_content_is_not_shown() {
        let file = FileToWrite::new("/etc/token", "hunter2").unwrap();
        assert!(!format!("{file:?}").contains("hunter2"));
    }

    #[test]
    fn a_mode_is_written_in_octal_digits() {
        let file = FileToWrite::new("/a", "").unwrap();
        for (mode, text) in [(0o600, "0600"), (0o4755, "04755"), (0, "0000")] {
            let node = file.clone().permissions(mode).unwrap().node(false);
            assert_eq!(node.get("permissions").and_then(Node::as_text), Some(text));
        }
        assert!(file.permissions(0o1_0000).is_err());
    }

    #[test]
    fn commands_that_are_none_are_refused() {
        assert!(Command::arguments(Vec::<String>::new()).is_err());
        assert!(Command::arguments([""]).is_err());
        assert!(Command::arguments(["a", "b\0"]).is_err());
        assert!(Command::shell(" \n").is_err());
    }
}
