//! What a guest is told to become: its user, its keys, its addresses.

use bioxen_core::{MacAddress, VmSpec};
use xenapi::Secret;

use super::{Cause, Entry};
use crate::cloud_init::{
    self, AccountName, AuthorizedKey, CallHome, CloudConfig, CloudInit, HostName, InstanceId,
    Interface, InvalidSetting, PackageName, Seed, User,
};
use crate::plan::{Interfaces, Plan, PlannedInterface};
use crate::ssh::{ClientKey, HostKey, Login};

/// A guest's seed, and how the guest is entered once it has grown.
pub(super) struct Setup {
    pub(super) seed: Seed,
    pub(super) entry: Entry,
    /// What the user's own cloud-config said and the guest will not see.
    pub(super) overridden: Vec<String>,
}

impl Setup {
    /// Makes keys for the guest and for us, and all that the guest is to know: `call` is what it is to post to
    /// when it is done, if anything.
    pub(super) fn new(
        spec: &VmSpec,
        plan: &Plan,
        uuid: &str,
        macs: &[MacAddress],
        call: Option<&str>,
    ) -> Result<Self, Cause> {
        let (host, client) = (HostKey::generate(spec.name.as_str()), client_key(spec));
        let entry = Entry {
            user: plan.user.clone(),
            port: plan.port,
            host_key: host.public(),
            login: Login::Key(client.clone()),
        };
        let mut settings = settings(spec, plan, &host, &client, macs)?;
        if let Some(url) = call {
            settings = settings.call_home(CallHome::new(url)?);
        }
        let seed = settings.seed(&InstanceId::new(uuid)?)?;
        let overridden = seed.overridden().iter().map(ToString::to_string).collect();
        Ok(Self { seed, entry, overridden })
    }
}

fn client_key(spec: &VmSpec) -> ClientKey {
    ClientKey::generate(&format!("bioxen {}", spec.name))
}

fn settings(
    spec: &VmSpec,
    plan: &Plan,
    host: &HostKey,
    client: &ClientKey,
    macs: &[MacAddress],
) -> Result<CloudInit, Cause> {
    let machine = spec.machine().cloned().unwrap_or_default();
    let public = client.public().to_string();
    let mut user = User::new(AccountName::new(&plan.user)?)
        .shell("/bin/sh")?
        .authorized_key(AuthorizedKey::new(&public)?);
    for key in &machine.authorized_keys {
        user = user.authorized_key(AuthorizedKey::new(key)?);
    }
    let private: Secret = host.to_openssh();
    let host_key = cloud_init::HostKey::new(private, &host.public().to_string())?;
    // A VM's name may have what a host's may not.
    let name = spec.name.as_str().replace('_', "-");
    let mut settings = CloudInit::new()
        .hostname(HostName::new(name.trim_end_matches('-'))?)
        .user(user)
        .host_key(host_key);
    for package in &machine.packages {
        settings = settings.package(PackageName::new(package.as_str())?);
    }
    if let Interfaces::These(interfaces) = &plan.interfaces {
        for (planned, mac) in interfaces.iter().zip(macs) {
            settings = settings.interface(interface(planned, *mac)?);
        }
    }
    if let Some(config) = &machine.cloud_config {
        settings = settings.merge(CloudConfig::new(config)?);
    }
    Ok(settings)
}

fn interface(planned: &PlannedInterface, mac: MacAddress) -> Result<Interface, InvalidSetting> {
    let mut interface = match planned.spec.address {
        Some(address) => Interface::fixed(mac, address),
        None => Interface::dhcp(mac),
    };
    if let Some(gateway) = planned.spec.gateway {
        interface = interface.gateway(gateway)?;
    }
    for server in &planned.spec.name_servers {
        interface = interface.name_server(*server);
    }
    Ok(interface)
}

/// A hardware address for each interface: the one that was said, or one of those that anybody may make
/// up (`02:…`). The guest knows its interfaces by them, so that they are made here and not by the pool.
pub(super) fn mac_addresses(interfaces: &[PlannedInterface]) -> Vec<MacAddress> {
    let made_up = || {
        let mut bytes = uuid::Uuid::new_v4().into_bytes();
        bytes[0] = 0x02;
        let bytes = bytes.first_chunk().copied().unwrap_or_default();
        MacAddress::new(bytes).expect("it is one interface's")
    };
    interfaces.iter().map(|interface| interface.mac().unwrap_or_else(made_up)).collect()
}
