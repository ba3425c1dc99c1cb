//! The part of a cloud-config that simulated guests carry out.

use serde_json::{Map, Value};

use super::yaml::{boolean, text, texts};

/// The user that images come with.
const DEFAULT_USER: &str = "debian";

/// What a cloud-config asks for. Keys that are not here are ignored, and named in a warning where a
/// guest without them would not be what was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudConfig {
    /// The guest's name.
    pub hostname: Option<String>,
    /// The guest's name with its domain.
    pub fqdn: Option<String>,
    /// The users to be made, the default one first if it is wanted.
    pub users: Vec<User>,
    /// Keys for the default user.
    pub authorized_keys: Vec<String>,
    /// Whether `root` is told to log in as somebody else. On unless switched off.
    pub disable_root: Option<bool>,
    /// Whether SSH takes passwords.
    pub password_logins: Option<bool>,
    /// Passwords to be set, by user.
    pub passwords: Vec<(String, Password)>,
    /// Host keys by what they are, as in `ed25519_private`.
    pub host_keys: Vec<(String, String)>,
    /// Files to be written.
    pub files: Vec<FileToWrite>,
    /// Commands of every boot, early.
    pub boot_commands: Vec<Command>,
    /// Commands of the first boot, at its end.
    pub run_commands: Vec<Command>,
    /// Packages that must be there.
    pub packages: Vec<String>,
    /// Whom the guest calls when it is done.
    pub phone_home: Option<PhoneHome>,
    /// What is done when all is done.
    pub power_state: Option<PowerState>,
}

/// A user to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The home directory, unless it is the usual one.
    pub home: Option<String>,
    /// The login shell, unless it is the usual one.
    pub shell: Option<String>,
    /// Keys that may log in.
    pub authorized_keys: Vec<String>,
    /// The password, unless there is none.
    pub password: Option<Password>,
    /// Whether logins by password are barred.
    pub locked: bool,
}

/// A password as it was given.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// In clear.
    Plain(String),
    /// As a crypt hash: `$6$…`.
    Hashed(String),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A command: words, or a line for a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A program and its arguments.
    Words(Vec<String>),
    /// A line for `sh`.
    Line(String),
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileToWrite {
    /// Where.
    pub path: String,
    /// What.
    pub contents: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// Whether it is added to what is there.
    pub append: bool,
    /// Whether it is written at the end, when users are there.
    pub deferred: bool,
}

/// A call that the guest makes when it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhoneHome {
    /// Where it posts to; `$INSTANCE_ID` stands for the instance id.
    pub url: String,
    /// What it posts, by name; `None` is all.
    pub post: Option<Vec<String>>,
    /// How often it tries.
    pub tries: u64,
}

impl PhoneHome {
    /// Whether it posts what has this name.
    pub(super) fn posts(&self, name: &str) -> bool {
        self.post.as_ref().is_none_or(|wanted| wanted.iter().any(|it| it == name))
    }
}

/// What becomes of the guest in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerState {
    /// It is switched off.
    Off,
    /// It is started again.
    Reboot,
}

/// Keys without which the guest would lack what was asked for, and that are not carried out.
const NOT_SIMULATED: [&str; 9] =
    ["apt", "ansible", "bootstrap", "disk_setup", "fs_setup", "mounts", "puppet", "snap", "swap"];

impl CloudConfig {
    /// The name of the user that images come with.
    pub const DEFAULT_USER: &str = DEFAULT_USER;

    /// Reads a configuration, and says what in it was not understood.
    pub(super) fn from_map(map: &Map<String, Value>) -> (Self, Vec<String>) {
        let mut reader = Reader { map, warnings: Vec::new() };
        let config = reader.config();
        let ignored = NOT_SIMULATED.iter().filter(|key| map.contains_key(**key));
        let ignored = ignored.map(|key| format!("`{key}` is not carried out in simulated guests"));
        reader.warnings.extend(ignored);
        (config, reader.warnings)
    }
}

struct Reader<'a> {
    map: &'a Map<String, Value>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn config(&mut self) -> CloudConfig {
        let text_of = |key: &str| self.map.get(key).and_then(text);
        let list = |key: &str| self.map.get(key).and_then(Value::as_array).cloned();
        let keys = |value: Option<&Value>| value.map(texts).unwrap_or_default();
        let commands = |key: &str| -> Vec<Command> {
            list(key).unwrap_or_default().iter().filter_map(command).collect()
        };
        let mut config = CloudConfig {
            hostname: text_of("hostname"),
            fqdn: text_of("fqdn"),
            users: Vec::new(),
            authorized_keys: keys(self.map.get("ssh_authorized_keys")),
            disable_root: self.map.get("disable_root").and_then(boolean),
            password_logins: self.map.get("ssh_pwauth").and_then(boolean),
            passwords: Vec::new(),
            host_keys: self.host_keys(),
            files: Vec::new(),
            boot_commands: commands("bootcmd"),
            run_commands: commands("runcmd"),
            packages: list("packages").unwrap_or_default().iter().filter_map(package).collect(),
            phone_home: self.map.get("phone_home").and_then(phone_home),
            power_state: self.map.get("power_state").and_then(power_state),
        };
        config.users = self.users();
        config.passwords = self.passwords(&config.users);
        config.files = self.files(&list("write_files").unwrap_or_default());
        config
    }

    fn host_keys(&self) -> Vec<(String, String)> {
        let Some(Value::Object(keys)) = self.map.get("ssh_keys") else { return Vec::new() };
        keys.iter().filter_map(|(kind, key)| Some((kind.clone(), text(key)?))).collect()
    }

    fn users(&mut self) -> Vec<User> {
        let default = User { name: DEFAULT_USER.into(), locked: true, ..User::default() };
        let Some(users) = self.map.get("users") else { return vec![default] };
        let Value::Array(users) = users else {
            self.warnings.push("`users` is not a list".into());
            return vec![default];
        };
        let mut made: Vec<User> = Vec::new();
        for user in users {
            match user {
                Value::String(name) if name == "default" => made.insert(0, default.clone()),
                Value::String(name) if is_user_name(name) => {
                    made.push(User { name: name.clone(), locked: true, ..User::default() });
                }
                Value::Object(map) => match parse_user(map) {
                    Some(user) => made.push(user),
                    None => self.warnings.push("an entry of `users` has no usable `name`".into()),
                },
                _ => self.warnings.push("an entry of `users` is neither a name nor a map".into()),
            }
        }
        made
    }

    fn passwords(&mut self, users: &[User]) -> Vec<(String, Password)> {
        let mut passwords = Vec::new();
        if let Some(password) = self.map.get("password").and_then(text) {
            let first = users.first().map_or(DEFAULT_USER, |user| &user.name);
            passwords.push((first.to_owned(), plain_or_hashed(password)));
        }
        let Some(Value::Object(chpasswd)) = self.map.get("chpasswd") else { return passwords };
        let lines = match chpasswd.get("list") {
            Some(Value::String(lines)) => lines.lines().map(str::to_owned).collect(),
            Some(list) => texts(list),
            None => Vec::new(),
        };
        for line in lines.iter().filter(|line| !line.trim().is_empty()) {
            match line.split_once(':') {
                Some((user, password)) => {
                    passwords.push((user.trim().to_owned(), plain_or_hashed(password.to_owned())));
                }
                None => self.warnings.push("a line of `chpasswd` has no colon".into()),
            }
        }
        for user in chpasswd.get("users").and_then(Value::as_array).into_iter().flatten() {
            let (name, password) =
                (user.get("name").and_then(text), user.get("password").and_then(text));
            let (Some(name), Some(password)) = (name, password) else { continue };
            let hashed = user.get("type").and_then(Value::as_str).unwrap_or("hash") == "hash";
            let password =
                if hashed { Password::Hashed(password) } else { Password::Plain(password) };
            passwords.push((name, password));
        }
        passwords
    }

    fn files(&mut self, files: &[Value]) -> Vec<FileToWrite> {
        let mut parsed = Vec::new();
        for file in files {
            match parse_file(file) {
                Ok(file) => parsed.push(file),
                Err(reason) => self.warnings.push(format!("an entry of `write_files` {reason}")),
            }
        }
        parsed
    }
}

fn parse_user(map: &Map<String, Value>) -> Option<User> {
    let text_of = |key: &str| map.get(key).and_then(text);
    let keys = ["ssh_authorized_keys", "ssh-authorized-keys"];
    let password = text_of("plain_text_passwd")
        .map(Password::Plain)
        .or_else(|| text_of("hashed_passwd").or_else(|| text_of("passwd")).map(Password::Hashed));
    Some(User {
        name: text_of("name").filter(|name| is_user_name(name))?,
        home: text_of("homedir").filter(|home| home.starts_with('/')),
        shell: text_of("shell").filter(|shell| shell.starts_with('/')),
        authorized_keys: keys.iter().filter_map(|key| map.get(*key)).flat_map(texts).collect(),
        password,
        locked: map.get("lock_passwd").and_then(boolean).unwrap_or(true),
    })
}

/// What fits a line of `/etc/passwd` and a directory's name.
fn is_user_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !name.is_empty() && name.len() <= 32 && !name.starts_with(['-', '.']) && name.bytes().all(good)
}

fn plain_or_hashed(password: String) -> Password {
    // As cloud-init tells them apart.
    if password.starts_with('$') && password.matches('$').count() >= 3 {
        Password::Hashed(password)
    } else {
        Password::Plain(password)
    }
}

fn command(value: &Value) -> Option<Command> {
    match value {
        Value::Array(_) => Some(Command::Words(texts(value)))
            .filter(|command| matches!(command, Command::Words(words) if !words.is_empty())),
        other => text(other).map(Command::Line),
    }
}

fn package(value: &Value) -> Option<String> {
    match value {
        // A name with a version.
        Value::Array(parts) => parts.first().and_then(text),
        other => text(other),
    }
}

fn phone_home(value: &Value) -> Option<PhoneHome> {
    let post = match value.get("post") {
        None => None,
        Some(Value::String(all)) if all == "all" => None,
        Some(names) => Some(texts(names)),
    };
    let tries = value.get("tries").and_then(Value::as_u64).unwrap_or(10);
    Some(PhoneHome { url: value.get("url").and_then(text)?, post, tries })
}

fn power_state(value: &Value) -> Option<PowerState> {
    match value.get("mode").and_then(Value::as_str)? {
        "poweroff" | "halt" => Some(PowerState::Off),
        "reboot" => Some(PowerState::Reboot),
        _ => None,
    }
}

fn parse_file(value: &Value) -> Result<FileToWrite, String> {
    let text_of = |key: &str| value.get(key).and_then(text);
    let path = text_of("path").filter(|path| path.starts_with('/')).ok_or("has no full `path`")?;
    let content = text_of("content").unwrap_or_default();
    let contents = match text_of("encoding").as_deref() {
        None | Some("text/plain") => content.into_bytes(),
        Some("b64" | "base64") => {
            decode_base64(&content).ok_or_else(|| format!("for `{path}` is not base64"))?
        }
        Some(other) => return Err(format!("for `{path}` is in the unknown encoding `{other}`")),
    };
    let mode = match value.get("permissions") {
        None => 0o644,
        Some(Value::Number(mode)) => {
            mode.as_u64().and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644)
        }
        Some(other) => {
            let digits = text(other).unwrap_or_default();
            let digits = digits.trim_start_matches("0o");
            u32::from_str_radix(digits, 8)
                .map_err(|_| format!("for `{path}` has no octal `permissions`"))?
        }
    };
    let flag = |key: &str| value.get(key).and_then(boolean).unwrap_or(false);
    Ok(FileToWrite {
        path,
        contents,
        mode: mode & 0o7777,
        append: flag("append"),
        deferred: flag("defer"),
    })
}

/// Standard base64; white space is passed over.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let bytes: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let unpadded = text.trim_end().trim_end_matches('=').bytes();
    let digits: Vec<u8> =
        unpadded.filter(|byte| !byte.is_ascii_whitespace()).map(digit).collect::<Option<_>>()?;
    if !bytes.len().is_multiple_of(4) || bytes.len() - digits.len() > 2 {
        return None;
    }
    let mut decoded = Vec::with_capacity(bytes.len() / 4 * 3);
    for group in digits.chunks(4) {
        let value = group.iter().fold(0_u32, |value, digit| value << 6 | u32::from(*digit));
        let value = value << (6 * (4 - group.len()));
        decoded.extend_from_slice(&value.to_be_bytes()[1..group.len()]);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::yaml;

    fn config(text: &str) -> (CloudConfig, Vec<String>) {
        let Value::Object(map) = yaml::parse(text.as_bytes()).unwrap() else { panic!("{text}") };
        CloudConfig::from_map(&map)
    }

    #[test]
    fn without_users_there_is_the_default_one() {
        let (config, warnings) = config("ssh_authorized_keys: [ssh-ed25519 AAAA me]\n");
        assert_eq!(config.users[0].name, "debian");
        assert_eq!(config.authorized_keys, ["ssh-ed25519 AAAA me"]);
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn users_are_read_with_keys_and_passwords() {
        let (config, _) = config(
            "users:\n- default\n- name: lua\n  shell: /bin/bash\n  lock_passwd: false\n  \
             plain_text_passwd: secret\n  ssh_authorized_keys:\n  - ssh-ed25519 AAAA me\n- name: a/b\n",
        );
        let names: Vec<&str> = config.users.iter().map(|user| &*user.name).collect();
        assert_eq!(names, ["debian", "lua"]);
        assert_eq!(config.users[1].password, Some(Password::Plain("secret".into())));
        assert!(!config.users[1].locked);
    }

    #[test]
    fn files_come_with_modes_and_encodings() {
        let (config, warnings) = config(
            "write_files:\n- path: /a\n  content: aGVsbG8=\n  encoding: b64\n  permissions: '0600'\n\
             - path: /b\n  content: |\n    x\n  append: yes\n- content: no path\n- {path: /c, \
             encoding: gzip}\n",
        );
        assert_eq!(config.files[0].contents, b"hello");
        assert_eq!((config.files[0].mode, config.files[1].mode), (0o600, 0o644));
        assert!(config.files[1].append);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn commands_are_words_or_lines() {
        let (config, _) = config("runcmd:\n- [ls, -l, 1]\n- echo $HOME\n- null\n");
        let words = ["ls", "-l", "1"].map(str::to_owned).to_vec();
        assert_eq!(
            config.run_commands,
            [Command::Words(words), Command::Line("echo $HOME".into())]
        );
    }

    #[test]
    fn passwords_come_from_three_places() {
        let (config, _) = config(
            "password: one\nchpasswd:\n  list: |\n    lua:$6$a$b\n  users:\n  - {name: x, password: y, \
             type: text}\n",
        );
        let hashed = Password::Hashed("$6$a$b".into());
        assert_eq!(config.passwords[0], ("debian".into(), Password::Plain("one".into())));
        assert_eq!(config.passwords[1], ("lua".into(), hashed));
        assert_eq!(config.passwords[2], ("x".into(), Password::Plain("y".into())));
    }

    #[test]
    fn base64_is_decoded_or_refused() {
        assert_eq!(decode_base64("aGk=\n").unwrap(), b"hi");
        assert_eq!(decode_base64("").unwrap(), b"");
        for bad in ["a", "aGk", "aGk=x", "====", "a===", "aG~="] {
            assert_eq!(decode_base64(bad), None, "{bad}");
        }
    }
}
