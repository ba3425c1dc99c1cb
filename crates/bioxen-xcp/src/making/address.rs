//! Learning where a guest can be reached.

use std::net::IpAddr;

use bioxen_core::VmSpec;
use serde::{Deserialize, Serialize};
use xenapi::mirror::View;
use xenapi::{Map, Ref, class, enums};

use super::{Attempt, Cause, Progress};
use crate::plan::StepKind;

/// How an address was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressSource {
    /// The guest's tools told the pool.
    GuestMetrics,
    /// It was chosen before the guest was made.
    Static,
}

impl AddressSource {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::GuestMetrics => "guest_metrics",
            Self::Static => "static",
        }
    }
}

impl Attempt {
    pub(super) async fn address(
        &self,
        progress: &mut Progress,
    ) -> Result<IpAddr, (Option<StepKind>, Cause)> {
        let mut timeline = std::mem::take(&mut progress.timeline);
        let learnt = async {
            let known = progress.known.as_ref().and_then(|known| known.address);
            let known = known.filter(|(_, source)| *source == AddressSource::Static);
            let of_spec = || Some((chosen(&self.order.spec)?, AddressSource::Static));
            let found = match known.or_else(of_spec) {
                Some(found) => found,
                None => (self.told(progress).await?, AddressSource::GuestMetrics),
            };
            if let Some(known) = &mut progress.known {
                known.address = Some(found);
            }
            self.note(progress).await?;
            Ok(found.0)
        };
        let address = self.step(StepKind::Address, &mut timeline, learnt).await?;
        progress.timeline = timeline;
        Ok(address)
    }

    async fn told(&self, progress: &Progress) -> Result<IpAddr, Cause> {
        let Some(vm) = &progress.vm else { return Err(Cause::Abandoned) };
        let mirror = self.order.pool.mirror();
        let limit = self.order.deadlines.within(StepKind::Address);
        let looking = mirror.wait_until("its address", limit, |view| address_of(view, vm));
        Ok(self.unless_abandoned(looking).await??)
    }
}

/// The first address that was chosen for it.
fn chosen(spec: &VmSpec) -> Option<IpAddr> {
    spec.machine()?.networks.iter().find_map(|network| Some(network.address?.ip()))
}

/// The address that a machine which runs has told.
pub(crate) fn address_of(view: &View<'_>, vm: &Ref<class::Vm>) -> Option<IpAddr> {
    let record = view.get(vm)?;
    if record.power_state != enums::VmPowerState::Running {
        return None;
    }
    // A machine that was started has new metrics: old addresses are not seen here.
    best_address(&view.get(&record.guest_metrics)?.networks)
}

/// The address to use of those that guest tools told, as `0/ip`, `0/ipv4/0` or `1/ipv6/0`: of the first
/// interface that has one, version 4 before 6. Addresses that are good on one wire only do not count.
fn best_address(networks: &Map<String, String>) -> Option<IpAddr> {
    let told = networks.iter().filter_map(|(key, value)| {
        let (device, _) = key.split_once('/')?;
        let (device, ip) = (device.parse::<u32>().ok()?, value.parse::<IpAddr>().ok()?);
        let is_of_use = match ip {
            IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_unspecified(),
        };
        is_of_use.then_some((device, ip.is_ipv6(), ip))
    });
    told.min().map(|(.., ip)| ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_interfaces_address_of_version_4_is_used() {
        let networks = |entries: &[(&str, &str)]| {
            let entries = entries.iter().map(|(key, value)| ((*key).into(), (*value).into()));
            best_address(&entries.collect())
        };
        let all = [("1/ip", "10.0.0.1"), ("0/ipv6/0", "fd00::1"), ("0/ipv4/0", "10.0.0.9")];
        assert_eq!(networks(&all), Some("10.0.0.9".parse().unwrap()));
        assert_eq!(networks(&all[..2]), Some("fd00::1".parse().unwrap()));
        let useless = [("0/ip", "169.254.3.4"), ("0/ipv6/0", "fe80::1"), ("x/ip", "10.0.0.1")];
        assert_eq!(networks(&useless), None);
    }
}
