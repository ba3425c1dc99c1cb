//! Users of a guest.

use super::password::{Expiry, PasswordHash};
use super::setting::{AccountName, InvalidSetting, check_path};
use super::ssh_keys::AuthorizedKey;
use super::yaml::Node;

/// A user that cloud-init makes. Without a password, which is how one begins, only keys log in.
#[derive(Clone, Debug)]
#[must_use]
pub struct User {
    name: AccountName,
    full_name: Option<String>,
    groups: Vec<AccountName>,
    shell: Option<String>,
    sudo: Option<Sudo>,
    keys: Vec<AuthorizedKey>,
    password: Option<(PasswordHash, Expiry)>,
}

/// What a user may do as others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sudo {
    /// Everything, without a password.
    Everything,
    /// What this rule of `sudoers` says, its first word (the user) left out.
    Rule(SudoRule),
}

/// A rule as in `sudoers`, such as `ALL=(root) NOPASSWD:/usr/bin/systemctl restart node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SudoRule(String);

impl SudoRule {
    /// Checks the rule, which is one line with a `=`; `sudo` itself reads it in the guest.
    pub fn new(rule: &str) -> Result<Self, InvalidSetting> {
        let is_line = !rule.contains(char::is_control) && !rule.ends_with('\\');
        if is_line && rule.contains('=') && !rule.contains('#') {
            Ok(Self(rule.to_owned()))
        } else {
            let reason = "it is one line, such as `ALL=(ALL) NOPASSWD:ALL`";
            Err(InvalidSetting::new("rule for sudo", rule, reason))
        }
    }
}

impl User {
    /// A user without keys, password or special rights.
    pub fn new(name: AccountName) -> Self {
        Self {
            name,
            full_name: None,
            groups: Vec::new(),
            shell: None,
            sudo: None,
            keys: Vec::new(),
            password: None,
        }
    }

    /// The user's name.
    pub fn name(&self) -> &AccountName {
        &self.name
    }

    /// Sets the comment of the account (GECOS), by custom the person's name.
    pub fn full_name(mut self, name: &str) -> Result<Self, InvalidSetting> {
        if name.contains(|letter: char| letter == ':' || letter.is_control()) {
            return Err(InvalidSetting::new("full name", name, "it is one line without `:`"));
        }
        self.full_name = Some(name.to_owned());
        Ok(self)
    }

    /// Puts the user into a further group, which is made if there is none.
    pub fn group(mut self, group: AccountName) -> Self {
        if !self.groups.contains(&group) {
            self.groups.push(group);
        }
        self
    }

    /// Sets the login shell; without one, the guest's default is taken.
    pub fn shell(mut self, path: &str) -> Result<Self, InvalidSetting> {
        check_path("login shell", path)?;
        if path.contains(':') {
            return Err(InvalidSetting::new("login shell", path, "it has no `:`"));
        }
        self.shell = Some(path.to_owned());
        Ok(self)
    }

    /// Sets what the user may do as others.
    pub fn sudo(mut self, sudo: Sudo) -> Self {
        self.sudo = Some(sudo);
        self
    }

    /// Lets a key log in.
    pub fn authorized_key(mut self, key: AuthorizedKey) -> Self {
        if !self.keys.contains(&key) {
            self.keys.push(key);
        }
        self
    }

    /// Gives the user a password. It opens the console and `sudo`, and SSH only when
    /// [`CloudInit::ssh_passwords`](super::CloudInit::ssh_passwords) says so too.
    pub fn password(mut self, hash: PasswordHash, expiry: Expiry) -> Self {
        self.password = Some((hash, expiry));
        self
    }

    pub(super) fn node(&self) -> Node {
        let mut entries = vec![("name", Node::text(self.name.as_str()))];
        if let Some(name) = &self.full_name {
            entries.push(("gecos", Node::text(name)));
        }
        if !self.groups.is_empty() {
            entries.push(("groups", Node::texts(&self.groups)));
        }
        if let Some(shell) = &self.shell {
            entries.push(("shell", Node::text(shell)));
        }
        if let Some(sudo) = &self.sudo {
            let rule = match sudo {
                Sudo::Everything => "ALL=(ALL) NOPASSWD:ALL",
                Sudo::Rule(rule) => &rule.0,
            };
            entries.push(("sudo", Node::text(rule)));
        }
        entries.push(("lock_passwd", Node::plain(self.password.is_none())));
        if let Some((hash, Expiry::Never)) = &self.password {
            entries.push(("passwd", Node::text(hash.expose())));
        }
        if !self.keys.is_empty() {
            let keys = self.keys.iter().map(AuthorizedKey::as_str);
            entries.push(("ssh_authorized_keys", Node::texts(keys)));
        }
        Node::map(entries)
    }

    /// The entry of `chpasswd` that sets a password which has to be changed.
    pub(super) fn expiring_password(&self) -> Option<Node> {
        let Some((hash, Expiry::AtFirstLogin)) = &self.password else { return None };
        Some(Node::map([
            ("name", Node::text(self.name.as_str())),
            ("password", Node::text(hash.expose())),
            ("type", Node::text("hash")),
        ]))
    }
}
