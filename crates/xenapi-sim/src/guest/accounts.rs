//! The users of a guest, as its own files have them: `/etc/passwd`, `/etc/shadow` and each user's
//! `authorized_keys`.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use sha_crypt::{CustomizedPasswordHasher, PasswordHashRef, PasswordVerifier, ShaCrypt};

use super::cloud_config::{Password, User};
use super::files::Files;

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";
const USUAL_SHELL: &str = "/bin/bash";

/// Who logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) home: String,
    pub(super) shell: String,
}

/// A key that may log in, from a line of `authorized_keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AuthorizedKey {
    /// The key in base64, as the line has it.
    pub(super) key: String,
    /// What is run instead of what the client asks for.
    pub(super) command: Option<String>,
}

impl Account {
    /// The user of that name.
    pub(super) fn find(files: &Files, name: &str) -> Option<Self> {
        let passwd = files.read_text(PASSWD).ok()?;
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, _, _, _, home, shell] = fields[..] else { return None };
        Some(Self { name: name.to_owned(), home: home.to_owned(), shell: shell.to_owned() })
    }

    /// The keys that may log in as this user.
    pub(super) fn authorized_keys(&self, files: &Files) -> Vec<AuthorizedKey> {
        let path = format!("{}/.ssh/authorized_keys", self.home);
        let lines = files.read_text(&path).unwrap_or_default();
        lines.lines().filter_map(parse_key).collect()
    }

    /// Whether this is the user's password. Slow on purpose, as password hashes are.
    pub(super) fn accepts(&self, files: &Files, password: &str) -> bool {
        let shadow = files.read_text(SHADOW).unwrap_or_default();
        let mut lines = shadow.lines().map(|line| line.split(':'));
        let hash = lines.find_map(|mut fields| {
            (fields.next() == Some(&*self.name)).then(|| fields.next()).flatten()
        });
        // Locked accounts have a hash that starts with `!`.
        let Some(hash) = hash.filter(|hash| hash.starts_with('$')) else { return false };
        let Ok(hash) = PasswordHashRef::new(hash) else { return false };
        ShaCrypt::default().verify_password(password.as_bytes(), hash).is_ok()
    }
}

fn parse_key(line: &str) -> Option<AuthorizedKey> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let kinds = ["ssh-", "ecdsa-", "sk-"];
    let is_kind = |text: &str| kinds.iter().any(|kind| text.starts_with(kind));
    let (options, rest) = if is_kind(line) { ("", line) } else { split_options(line)? };
    let mut words = rest.split_whitespace();
    words.next().filter(|kind| is_kind(kind))?;
    Some(AuthorizedKey { key: words.next()?.to_owned(), command: command_option(options) })
}

/// Cuts a line behind its options, which may hold spaces in quotes.
fn split_options(line: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, character) in line.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => return Some((&line[..at], line[at..].trim_start())),
            _ => {}
        }
    }
    None
}

fn command_option(options: &str) -> Option<String> {
    let (_, rest) = options.split_once("command=\"")?;
    let mut command = String::new();
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return Some(command),
            '\\' => command.extend(characters.next()),
            other => command.push(other),
        }
    }
    None
}

/// Adds a user, or does nothing where there is one of that name.
pub(super) fn add(files: &Files, user: &User) -> io::Result<Account> {
    if let Some(account) = Account::find(files, &user.name) {
        return Ok(account);
    }
    let home = user.home.clone().unwrap_or_else(|| format!("/home/{}", user.name));
    let shell = user.shell.clone().unwrap_or_else(|| USUAL_SHELL.to_owned());
    // All users are the one that there is: see the module of the guests.
    let line = format!("{}:x:0:0::{home}:{shell}\n", user.name);
    let line = if files.exists(PASSWD) {
        line
    } else {
        format!("root:x:0:0:root:/root:{USUAL_SHELL}\n{line}")
    };
    files.append(PASSWD, line.as_bytes(), 0o644)?;
    files.make_directories(&home)?;
    files.set_mode(&home, 0o755)?;
    Ok(Account { name: user.name.clone(), home, shell })
}

/// Gives a user keys, beside those that it has.
pub(super) fn authorize(files: &Files, account: &Account, keys: &[String]) -> io::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let directory = format!("{}/.ssh", account.home);
    let path = format!("{directory}/authorized_keys");
    let present = files.read_text(&path).unwrap_or_default();
    let new =
        keys.iter().map(|key| key.trim()).filter(|key| !present.lines().any(|line| line == *key));
    let lines: String = new
        .flat_map(|key| {
            [
                key, "
",
            ]
        })
        .collect();
    files.append(&path, lines.as_bytes(), 0o600)?;
    files.set_mode(&directory, 0o700)
}

/// Sets a user's password; `locked` keeps it from being used.
pub(super) fn set_password(
    files: &Files,
    name: &str,
    password: &Password,
    locked: bool,
) -> io::Result<()> {
    let hash = match password {
        Password::Hashed(hash) => hash.replace([':', '\n'], ""),
        Password::Plain(plain) => hash(plain)?,
    };
    let line = format!("{name}:{}{hash}:19000:0:99999:7:::\n", if locked { "!" } else { "" });
    let shadow = files.read_text(SHADOW).unwrap_or_default();
    let others = shadow.lines().filter(|line| line.split(':').next() != Some(name));
    let others: String = others
        .flat_map(|line| {
            [
                line, "
",
            ]
        })
        .collect();
    files.write(SHADOW, format!("{others}{line}").as_bytes(), 0o600)
}

fn hash(plain: &str) -> io::Result<String> {
    let mut salt = [0; 8];
    getrandom(&mut salt, GetRandomFlags::empty())?;
    // As few rounds as there can be: nothing here is worth protecting.
    let params = sha_crypt::Params::new(1000).map_err(io::Error::other)?;
    let hasher = ShaCrypt::default();
    let hash = hasher.hash_password_with_params(plain.as_bytes(), &salt, params);
    Ok(hash.map_err(|error| io::Error::other(error.to_string()))?.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    fn files() -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let root =
            rustix::fs::open(directory.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        (directory, Files::new(root.unwrap(), None, None))
    }

    #[test]
    fn a_user_is_found_with_its_keys_and_password() {
        let (_directory, files) = files();
        let user = User { name: "lua".into(), ..User::default() };
        let account = add(&files, &user).unwrap();
        assert_eq!(Account::find(&files, "lua"), Some(account.clone()));
        assert_eq!(account.home, "/home/lua");
        authorize(&files, &account, &["ssh-ed25519 AAAA me".into()]).unwrap();
        authorize(&files, &account, &["ssh-ed25519 AAAA me".into()]).unwrap();
        let keys = account.authorized_keys(&files);
        assert_eq!(keys, [AuthorizedKey { key: "AAAA".into(), command: None }]);

        assert!(!account.accepts(&files, ""));
        set_password(&files, "lua", &Password::Plain("secret".into()), true).unwrap();
        assert!(!account.accepts(&files, "secret"), "it is locked");
        set_password(&files, "lua", &Password::Plain("secret".into()), false).unwrap();
        assert!(account.accepts(&files, "secret") && !account.accepts(&files, "other"));
        assert_eq!(Account::find(&files, "nobody"), None);
    }

    #[test]
    fn a_hash_made_elsewhere_is_accepted() {
        let (_directory, files) = files();
        let account = add(&files, &User { name: "x".into(), ..User::default() }).unwrap();
        // `openssl passwd -6 -salt saltsalt Hello`, and `-5 -salt abcd Hello`.
        let long = "$6$saltsalt$LDXPTlgBwvos30nDQYE87p0HOcSSLvqM4sFnKbmhnABtBtA32fiC3O10o2AoRuO4wxB\
                    /8/wHS5Kpe4CLBip/10";
        let short = "$5$abcd$yx0ye/EUI4NAqPHpMziZGlI96jMToPJPSu1d6/KhEh/";
        for hash in [long, short] {
            set_password(&files, "x", &Password::Hashed(hash.into()), false).unwrap();
            assert!(
                account.accepts(&files, "Hello") && !account.accepts(&files, "hello"),
                "{hash}"
            );
        }
    }

    #[test]
    fn options_of_a_key_may_hold_a_command() {
        let line = r#"no-pty,command="echo \"hi there\"; exit 142" ssh-ed25519 AAAA me"#;
        let key = parse_key(line).unwrap();
        assert_eq!(key.command.as_deref(), Some("echo \"hi there\"; exit 142"));
        assert_eq!(key.key, "AAAA");
        for bad in ["", "# ssh-ed25519 AAAA", "ssh-ed25519", "hello world", "command=\"x"] {
            assert_eq!(parse_key(bad), None, "{bad}");
        }
    }
}
