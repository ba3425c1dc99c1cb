//! Learning where a guest can be reached.

use std::net::IpAddr;
use std::time::Duration;

use bioxen_core::VmSpec;
use serde::{Deserialize, Serialize};
use xenapi::mirror::View;
use xenapi::{Map, Ref, class, enums};

use super::{Attempt, Cause, Failed, Progress};
use crate::call_home::Expected;
use crate::plan::StepKind;

/// How an address was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AddressSource {
    /// The guest's tools told the pool.
    GuestMetrics,
    /// It was chosen before the guest was made.
    Static,
    /// The guest called from there.
    CallHome,
}

impl AddressSource {
    /// Its name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::GuestMetrics => "guest_metrics",
            Self::Static => "static",
            Self::CallHome => "call_home",
        }
    }
}

impl Attempt {
    /// Listens for the guest, where it is to call.
    pub(super) async fn expect_call(&self) -> Result<Option<Expected>, Cause> {
        let of_spec = self.order.spec.machine().and_then(|machine| machine.call_home);
        let Some(at) = of_spec.or(self.order.pool.guests().call_home) else { return Ok(None) };
        let expected = self.order.pool.expect_call(at).await;
        expected.map(Some).map_err(|source| Cause::Listen { at, source })
    }

    pub(super) async fn address(&self, progress: &mut Progress) -> Result<IpAddr, Failed> {
        let limit = self.address_limit(progress);
        let learnt = async {
            let found = self.find_address(progress).await?;
            if let Some(known) = &mut progress.known {
                known.address = Some(found);
            }
            self.note(progress).await?;
            Ok(found.0)
        };
        self.step_within(limit, StepKind::Address, learnt).await
    }

    /// How long the address may take. A guest calls when it has done all else.
    fn address_limit(&self, progress: &Progress) -> Duration {
        let deadlines = &self.order.deadlines;
        let setting_up = progress.call.as_ref().map(|_| deadlines.of(StepKind::CloudInit));
        deadlines.of(StepKind::Address) + setting_up.unwrap_or_default()
    }

    async fn find_address(
        &self,
        progress: &mut Progress,
    ) -> Result<(IpAddr, AddressSource), Cause> {
        let mirror = self.order.pool.mirror();
        // A little less than all, so that it is told what was waited for.
        let limit = self.address_limit(progress).mul_f64(0.9);
        let of_spec = || Some((chosen(&self.order.spec)?, AddressSource::Static));
        let known = progress.known.as_ref().and_then(|known| known.address).or_else(of_spec);
        let Progress { vm: Some(vm), call, .. } = progress else { return Err(Cause::Abandoned) };
        match known {
            Some(chosen @ (_, AddressSource::Static)) => return Ok(chosen),
            Some(called @ (_, AddressSource::CallHome)) => {
                return Ok(told_or(&mirror.view(), vm, called));
            }
            Some((_, AddressSource::GuestMetrics)) | None => {}
        }
        let telling = mirror.wait_until("its address", limit, |view| address_of(view, vm));
        let calling = async {
            match call {
                Some(call) => call.heard().await,
                None => std::future::pending().await,
            }
        };
        let either = async {
            tokio::select! {
                biased;
                told = telling => Ok((told?, AddressSource::GuestMetrics)),
                called = calling => Ok((called, AddressSource::CallHome)),
            }
        };
        self.unless_abandoned(either).await?
    }
}

/// The address that a machine tells, or else the one that its guest has called from: that can be another by now.
pub(crate) fn told_or(
    view: &View<'_>,
    vm: &Ref<class::Vm>,
    called: (IpAddr, AddressSource),
) -> (IpAddr, AddressSource) {
    address_of(view, vm).map_or(called, |told| (told, AddressSource::GuestMetrics))
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
