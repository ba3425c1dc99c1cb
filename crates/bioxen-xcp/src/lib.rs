//! XCP-ng pools for BioXen: which there are, whether they work, and what they hold.
//!
//! A pool has a name in the user's [`Configuration`], with its address, whom to log in as, and how its
//! certificate is known; the password is kept elsewhere and referred to. [`check`] finds out whether a
//! pool can be used, and [`inventory`] lists what is in it. What a new guest is to become is said with
//! [`cloud_init`], and reaches it on a [`seed_disk`]; [`ssh`] reaches into the VMs there. A [`Machine`]
//! is one VM on a [`ConnectedPool`] with all that can become of it, [`networks`] makes and removes
//! networks, and [`leaks`] finds what was left behind.
//!
//! ```no_run
//! use bioxen_xcp::Configuration;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let configuration = Configuration::read("/home/ada/.config/bioxen/config.toml")?;
//! let client = configuration.pool("lab")?.connect().await?;
//! for template in bioxen_xcp::inventory::templates(&client).await? {
//!     println!("{} ({:?})", template.name, template.kind);
//! }
//! client.close().await?;
//! # Ok(())
//! # }
//! ```

mod backend;
mod call_home;
pub mod check;
pub mod cloud_init;
mod configuration;
mod connected_pool;
mod defaults;
mod guest_settings;
pub mod import;
pub mod inventory;
pub mod leaks;
pub mod machine;
pub mod making;
pub mod networks;
pub mod plan;
mod pool;
mod secret_reference;
pub mod seed_disk;
mod settings;
pub mod ssh;
pub mod tags;

pub use backend::{XcpngBackend, XcpngBuilder};
pub use configuration::{Configuration, ConfigurationError, NoSuchPool};
pub use connected_pool::{Care, ConnectedPool, Permit};
pub use defaults::{GuestUser, InvalidDefault, Label, NamePrefix, Size, XcpngDefaults};
pub use guest_settings::{
    DeclaredRange, GuestSettings, Identity, InvalidDeclaration, InvalidJump, Jump, JumpPlace,
};
pub use machine::{Machine, MachineError};
pub use pool::{
    DEFAULT_USER, InvalidPool, InvalidPoolName, PoolError, PoolName, PoolSettings, TrustSettings,
};
pub use secret_reference::{InvalidReference, SecretError, SecretReference};
pub use settings::{
    Origin, PROJECT_FILE, Place, Project, Settings, SettingsError, VARIABLE_PREFIX,
};
pub use xenapi::{Endpoint, Fingerprint};

/// Doors for fuzzing to what is not public.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    /// What is made of a guest's call home, as text; nothing while more is to come.
    pub fn call_home(said: &[u8]) -> Option<String> {
        crate::call_home::read(said)
    }
}
