//! What the keys of old files mean, however they are spelled.

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meaning {
    Host,
    User,
    Password,
    /// The pool by a name or uuid.
    PoolLabel,
    Template,
    GuestUser,
    Memory,
    Vcpus,
    Disk,
    /// A size in some files, a storage repository in others.
    DiskOrStorage,
    SizeClass,
    Network,
    Storage,
    NamePrefix,
    /// Not taken over, for this reason.
    NotTaken(&'static str),
    Unknown,
}

impl Meaning {
    /// Whether it is said of a pool, and not of VMs.
    pub(super) fn is_of_pool(self) -> bool {
        matches!(self, Self::Host | Self::User | Self::Password | Self::PoolLabel)
    }

    /// The meaning whose default has that name.
    pub(super) fn of_default(name: &str) -> Self {
        match name {
            "template" => Self::Template,
            "ssh_user" => Self::GuestUser,
            "memory" => Self::Memory,
            "vcpus" => Self::Vcpus,
            "disk" => Self::Disk,
            "size" => Self::SizeClass,
            "network" => Self::Network,
            "storage" => Self::Storage,
            "name_prefix" => Self::NamePrefix,
            _ => Self::Unknown,
        }
    }
}

const NO_GUEST_PASSWORD: &str = "guests have no passwords: each VM has a key of its own";
const NO_GUEST_KEY: &str = "each VM that is made has a key of its own; that of a VM that is there \
    already is named when it is adopted";
const VERIFIED: &str = "certificates are always verified: have the pool's own compared and trusted with \
    `bioxen pool trust NAME`";
const NO_EFFECT: &str = "it had no effect";
const A_GRANT: &str = "what a VM may touch is granted when it is made: `--allow-…`";
const LUA_PATH: &str = "a VM finds only what it was granted: `--allow-read` and `--env` of a run";

/// All spellings, in lowercase: variables of the environment are the same in capitals. Of several that
/// mean the same, the first counts.
const SPELLINGS: &[(&str, Meaning)] = &[
    ("xcp_host", Meaning::Host),
    ("xcpng_host", Meaning::Host),
    ("xapi_url", Meaning::Host),
    ("xo_api_url", Meaning::Host),
    ("host", Meaning::Host),
    ("xcp_username", Meaning::User),
    ("xcpng_username", Meaning::User),
    ("username", Meaning::User),
    ("xcp_password", Meaning::Password),
    ("xcpng_password", Meaning::Password),
    ("password", Meaning::Password),
    ("default_pool", Meaning::PoolLabel),
    ("pool_uuid", Meaning::PoolLabel),
    ("template_name", Meaning::Template),
    ("template", Meaning::Template),
    ("xcp_template", Meaning::Template),
    ("xcpng_template", Meaning::Template),
    ("vm_username", Meaning::GuestUser),
    ("ssh_user", Meaning::GuestUser),
    ("ssh_username", Meaning::GuestUser),
    ("vm_password", Meaning::NotTaken(NO_GUEST_PASSWORD)),
    ("ssh_password", Meaning::NotTaken(NO_GUEST_PASSWORD)),
    ("vm_key_file", Meaning::NotTaken(NO_GUEST_KEY)),
    ("ssh_key_path", Meaning::NotTaken(NO_GUEST_KEY)),
    ("ssh_key_file", Meaning::NotTaken(NO_GUEST_KEY)),
    ("memory", Meaning::Memory),
    ("vm_memory", Meaning::Memory),
    ("vcpus", Meaning::Vcpus),
    ("vm_vcpus", Meaning::Vcpus),
    ("disk_size", Meaning::Disk),
    ("storage", Meaning::DiskOrStorage),
    ("size", Meaning::SizeClass),
    ("size_class", Meaning::SizeClass),
    ("vm_network", Meaning::Network),
    ("default_network", Meaning::Network),
    ("network_uuid", Meaning::Network),
    ("storage_repository", Meaning::Storage),
    ("default_sr", Meaning::Storage),
    ("vm_name_prefix", Meaning::NamePrefix),
    ("vm_name", Meaning::NotTaken("a VM is named when it is made: `bioxen vm create NAME`")),
    ("description", Meaning::NotTaken("a VM is described by its name and its tags")),
    ("verify_ssl", Meaning::NotTaken(VERIFIED)),
    ("ssh_timeout", Meaning::NotTaken("each step of making a VM has its own deadline")),
    ("use_cloud_init", Meaning::NotTaken("VMs are always set up by cloud-init")),
    ("cloud_init_config", Meaning::NotTaken("a VM's own cloud-config is given when it is made")),
    ("save_credentials", Meaning::NotTaken("passwords are never saved, only where they are")),
    ("xo_cli_path", Meaning::NotTaken("no program of Xen Orchestra is used")),
    ("debug_mode", Meaning::NotTaken("ask for logs with `-v` or BIOXEN_LOG")),
    (
        "pylua_debug",
        Meaning::NotTaken("ask for logs with `-v` or BIOXEN_LOG; PYLUA_DEBUG=true works too"),
    ),
    ("lua_path", Meaning::NotTaken(LUA_PATH)),
    ("lua_cpath", Meaning::NotTaken(LUA_PATH)),
    ("lua_dev_mode", Meaning::NotTaken(NO_EFFECT)),
    ("lua_debug", Meaning::NotTaken(NO_EFFECT)),
    ("lua_production", Meaning::NotTaken(NO_EFFECT)),
    ("lua_networking", Meaning::NotTaken(A_GRANT)),
    ("networked", Meaning::NotTaken(A_GRANT)),
    ("persistent", Meaning::NotTaken("a VM keeps its state unless a run is fresh")),
    ("profile", Meaning::NotTaken("packages are chosen when a VM is made")),
];

/// The meaning of a key, in whatever case, and its place among the spellings.
pub(super) fn meaning(name: &str) -> (Meaning, usize) {
    let name = name.to_lowercase();
    match SPELLINGS.iter().position(|(spelling, _)| *spelling == name) {
        Some(place) => (SPELLINGS[place].1, place),
        None => (Meaning::Unknown, SPELLINGS.len()),
    }
}
