//! Whose a VM is: adopting and forgetting it, and when it expires.

use bioxen_core::VmName;
use jiff::Timestamp;
use xenapi::{Ref, class};

use super::asking::Step;
use super::{Done, Machine, MachineError, Refusal};
use crate::tags::Tags;

impl Machine {
    /// Adopts it under this name: it can be used like those that were made here, and is never deleted.
    /// Adopting it again gives it the new name.
    pub async fn adopt(&self, name: &VmName) -> Result<Done, MachineError> {
        let step = self.step("adopt");
        let adopted = Tags { vm: Some(name.clone()), adopted: true, ..Tags::of(self.pool.owner()) };
        match self.tags_now(step).await? {
            Some(tags) if tags == adopted => return Ok(Done::Already),
            Some(tags) if tags.owner != adopted.owner => {
                return Err(self.refused(step.name, Refusal::NotOurs { owner: Some(tags.owner) }));
            }
            Some(tags) if !tags.adopted => return Err(self.refused(step.name, Refusal::Made)),
            Some(_) | None => {}
        }
        self.retag(step, &self.reference, Some(&adopted)).await?;
        Ok(Done::Now)
    }

    /// Takes the marks of an adopted VM off again. Nothing else of it changes.
    pub async fn forget(&self) -> Result<Done, MachineError> {
        let step = self.step("forget");
        match self.tags_now(step).await? {
            None => return Ok(Done::Already),
            Some(tags) if tags.owner != self.pool.owner() => {
                return Err(self.refused(step.name, Refusal::NotOurs { owner: Some(tags.owner) }));
            }
            Some(tags) if !tags.adopted => return Err(self.refused(step.name, Refusal::Made)),
            Some(_) => {}
        }
        self.retag(step, &self.reference, None).await?;
        Ok(Done::Now)
    }

    /// Lets it expire at this time, or never. What has expired may be deleted without asking.
    pub async fn expire(&self, at: Option<Timestamp>) -> Result<Done, MachineError> {
        let step = self.step("set the expiry of");
        let tags = self.owned(step).await?;
        if tags.expires == at {
            return Ok(Done::Already);
        }
        self.retag(step, &self.reference, Some(&Tags { expires: at, ..tags })).await?;
        Ok(Done::Now)
    }

    /// Its marks, where it is this installation's to delete.
    pub(super) async fn owned(&self, step: Step<'_>) -> Result<Tags, MachineError> {
        let tags = self.tags_now(step).await?;
        self.check_owned(step, tags)
    }

    /// Its marks, where by those it is this installation's to delete.
    pub(super) fn check_owned(
        &self,
        step: Step<'_>,
        tags: Option<Tags>,
    ) -> Result<Tags, MachineError> {
        let reason = match tags {
            Some(tags) if tags.owner == self.pool.owner() => {
                if !tags.adopted {
                    return Ok(tags);
                }
                Refusal::Adopted
            }
            other => Refusal::NotOurs { owner: other.map(|tags| tags.owner) },
        };
        Err(self.refused(step.name, reason))
    }

    /// What the pool says now of whose it is.
    async fn tags_now(&self, step: Step<'_>) -> Result<Option<Tags>, MachineError> {
        let other_config =
            step.call(|client| client.vm().get_other_config(&self.reference)).await?;
        Ok(Tags::read(&other_config))
    }

    /// Gives these marks to a row of the class VM, key by key: others write there too.
    pub(super) async fn retag(
        &self,
        step: Step<'_>,
        vm: &Ref<class::Vm>,
        tags: Option<&Tags>,
    ) -> Result<(), MachineError> {
        let other_config = step.call(|client| client.vm().get_other_config(vm)).await?;
        for (key, value) in Tags::changes(tags, &other_config) {
            step.set(|client| client.vm().remove_from_other_config(vm, key)).await?;
            if let Some(value) = value {
                step.set(|client| client.vm().add_to_other_config(vm, key, &value)).await?;
            }
        }
        let shown = self.pool.mirror().wait_for(vm, "the marks of a VM", step.left(), |vm| {
            vm.is_none_or(|vm| Tags::read(&vm.other_config).as_ref() == tags).then_some(())
        });
        shown.await.map_err(|source| step.failed(source))
    }
}
