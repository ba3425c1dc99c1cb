//! Finding addresses for a virtual machine that is to be made.

use std::net::IpAddr;

use super::{Attempt, Cause};
use crate::plan::{Plan, PlanError, Wanted};

impl Attempt {
    /// The same plan with an address for each interface that is to be given one.
    pub(super) async fn lease(&self, plan: Plan) -> Result<Plan, Cause> {
        let mut given = Vec::new();
        for wanted in plan.wanted() {
            given.push(self.lease_one(wanted).await?);
        }
        Ok(plan.with_addresses(given))
    }

    /// A free address. Journals know what other controllers have given, the pool what this one has.
    async fn lease_one(&self, mut wanted: Wanted) -> Result<IpAddr, Cause> {
        let (pool, vm) = (&self.order.pool, &self.order.spec.name);
        let network = wanted.network.uuid.clone();
        loop {
            wanted.excluded.extend(pool.given_on(&network));
            let Some(address) = self.order.journal.lease(vm, &wanted).await? else {
                let (vm, network, range) = (vm.clone(), wanted.network.name, wanted.range);
                return Err(PlanError::NoAddressFree { vm, network, range }.into());
            };
            if pool.give(&network, address, self.making.attempt) {
                return Ok(address);
            }
        }
    }
}
