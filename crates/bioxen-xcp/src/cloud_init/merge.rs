//! A cloud-config of the user's own, and how it is joined with ours.

use std::fmt;

use super::yaml::{self, Node, Scalar};

/// Keys that decide how the guest reads its configuration at all. They are dropped.
const RESERVED: [&str; 7] = [
    "cloud_config_modules",
    "cloud_final_modules",
    "cloud_init_modules",
    "datasource",
    "datasource_list",
    "merge_how",
    "merge_type",
];

/// Lists to which both sides add, ours first, and what tells the items of each apart.
const JOINED: [(&str, Option<&str>); 5] = [
    ("bootcmd", None),
    ("packages", None),
    ("runcmd", None),
    ("users", Some("name")),
    ("write_files", Some("path")),
];

const HEADER: &str = "#cloud-config";

/// A cloud-config that the user wrote, to be merged with
/// [`CloudInit::merge`](super::CloudInit::merge).
#[derive(Clone)]
pub struct CloudConfig(Vec<(Scalar, Node)>);

/// Why a text cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cloud-config cannot be merged: {reason}")]
pub struct InvalidCloudConfig {
    reason: String,
}

impl InvalidCloudConfig {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        "check it with `cloud-init schema --config-file FILE`".into()
    }
}

impl CloudConfig {
    /// Reads the text, which starts with the line `#cloud-config`. Scripts, templates and archives of
    /// several parts cannot be merged.
    pub fn new(text: &str) -> Result<Self, InvalidCloudConfig> {
        let invalid = |reason: &str| Err(InvalidCloudConfig { reason: reason.into() });
        let text = text.trim_start_matches('\u{feff}');
        if text.lines().next().is_none_or(|line| line.trim_end() != HEADER) {
            return invalid("its first line is not `#cloud-config`");
        }
        let node =
            yaml::parse(text).map_err(|error| InvalidCloudConfig { reason: error.to_string() })?;
        let entries = match node {
            Node::Map(entries) => entries,
            node if node.is_null() => Vec::new(),
            Node::Scalar(_) | Node::List(_) => return invalid("it is not a map of settings"),
        };
        if entries.iter().any(|(key, _)| key.text == "<<") {
            return invalid("it has a merge key (`<<`) at its top");
        }
        Ok(Self(entries))
    }
}

impl fmt::Debug for CloudConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may hold secrets.
        f.debug_set().entries(self.0.iter().map(|(key, _)| &key.text)).finish()
    }
}

/// What a user's cloud-config said and the guest will not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overridden {
    /// The key, with the item of its list where only that is dropped: `users[ada]`.
    pub key: String,
    /// Why it is dropped.
    pub why: Why,
}

/// Why a setting is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The configuration that it is merged with sets it too.
    SetByUs,
    /// It would change how the guest reads its configuration.
    Reserved,
}

impl fmt::Display for Overridden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::SetByUs => "is set by the VM's own settings",
            Why::Reserved => "would change how the guest reads its configuration",
        };
        write!(f, "`{}` of the cloud-config is left out: it {why}", self.key)
    }
}

/// Joins settings: `ours` win over `theirs`, and those over `defaults`.
pub(super) fn merge(
    ours: Vec<(&'static str, Node)>,
    theirs: Option<&CloudConfig>,
    defaults: Vec<(&'static str, Node)>,
) -> (Node, Vec<Overridden>) {
    let mut merged: Vec<(Scalar, Node)> =
        ours.into_iter().map(|(key, value)| (Scalar::text(key), value)).collect();
    let mut overridden = Vec::new();
    for (key, value) in theirs.map_or(&[][..], |config| &config.0) {
        if RESERVED.contains(&key.text.as_str()) {
            overridden.push(Overridden { key: key.text.clone(), why: Why::Reserved });
        } else if let Some((_, present)) =
            merged.iter_mut().find(|(other, _)| other.text == key.text)
        {
            join(&key.text, present, value, &mut overridden);
        } else {
            merged.push((key.clone(), value.clone()));
        }
    }
    for (key, value) in defaults {
        if !merged.iter().any(|(other, _)| other.text == key) {
            merged.push((Scalar::text(key), value));
        }
    }
    (Node::Map(merged), overridden)
}

/// Adds to a list of ours, or leaves what is ours as it is.
fn join(key: &str, ours: &mut Node, theirs: &Node, overridden: &mut Vec<Overridden>) {
    let mut drop = |key: String| overridden.push(Overridden { key, why: Why::SetByUs });
    let joined = JOINED.iter().find(|(list, _)| *list == key);
    let (Some((_, name)), Node::List(ours), Node::List(theirs)) = (joined, ours, theirs) else {
        return drop(key.to_owned());
    };
    let count = ours.len();
    for item in theirs {
        let id = name.and_then(|name| item.get(name)).and_then(Node::as_text);
        let is_ours =
            |other: &Node| name.and_then(|name| other.get(name)).and_then(Node::as_text) == id;
        match id {
            Some(id) if ours[..count].iter().any(is_ours) => drop(format!("{key}[{id}]")),
            Some(_) | None => ours.push(item.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(theirs: &str, ours: Vec<(&'static str, Node)>) -> (String, Vec<String>) {
        let config = CloudConfig::new(&format!("#cloud-config\n{theirs}")).unwrap();
        let (node, overridden) = merge(ours, Some(&config), vec![("grow", Node::plain(true))]);
        (
            node.write().split_whitespace().collect(),
            overridden.iter().map(|o| o.key.clone()).collect(),
        )
    }

    #[test]
    fn ours_win_theirs_are_kept_and_defaults_give_way() {
        let (text, overridden) = merged(
            "hostname: b\nswap: yes\ngrow: no\nmerge_how: x\n",
            vec![("hostname", Node::text("a"))],
        );
        assert_eq!(text, r#"{"hostname":"a",swap:yes,grow:no}"#);
        assert_eq!(overridden, ["hostname", "merge_how"]);
    }

    #[test]
    fn lists_are_joined_and_an_item_of_the_same_name_is_ours() {
        let users = Node::List(vec![Node::map([("name", Node::text("ada"))])]);
        let (text, overridden) = merged(
            "users: [default, {name: ada, sudo: x}, {name: bo}]\nruncmd: [a]\n",
            vec![("users", users), ("runcmd", Node::texts(["b"]))],
        );
        assert_eq!(
            text,
            r#"{"users":[{"name":"ada"},default,{name:bo}],"runcmd":["b",a],"grow":true}"#
        );
        assert_eq!(overridden, ["users[ada]"]);
    }

    #[test]
    fn what_is_no_cloud_config_is_refused() {
        for text in [
            "",
            "hostname: a\n",
            "#!/bin/sh\n",
            "## template: jinja\n#cloud-config\n",
            "#cloud-config-archive\n",
            "#cloud-config\n- a\n",
            "#cloud-config\n<<: {a: 1}\n",
            "#cloud-config\na: [\n",
        ] {
            assert!(CloudConfig::new(text).is_err(), "{text}");
        }
        for text in ["#cloud-config", "#cloud-config\r\n# nothing\r\n", "#cloud-config\n---\n"] {
            assert!(CloudConfig::new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn values_are_not_shown() {
        let config = CloudConfig::new("#cloud-config\npassword: hunter2\n").unwrap();
        assert_eq!(format!("{config:?}"), r#"{"password"}"#);
    }
}
