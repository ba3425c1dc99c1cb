//! Groups of VMs that start and stop together.

use std::sync::Arc;

use super::{Call, Handler, Outcome, later, vm};
use crate::value::Value;

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(match message {
        "start" => later!(start),
        "clean_shutdown" => later!(clean_shutdown),
        "hard_shutdown" => later!(hard_shutdown),
        "shutdown" => later!(shutdown),
        _ => return None,
    })
}

async fn start(call: Call) -> Outcome {
    let paused = call.flag(1);
    for member in members(&call)? {
        vm::start_one(&call.for_vm(member), member, None, paused).await?;
    }
    Ok(Value::Void)
}

async fn clean_shutdown(call: Call) -> Outcome {
    for member in members(&call)? {
        vm::shut_down_one(&call.for_vm(member), member).await?;
    }
    Ok(Value::Void)
}

async fn hard_shutdown(call: Call) -> Outcome {
    for member in members(&call)? {
        vm::power_off_one(&call.for_vm(member), member).await?;
    }
    Ok(Value::Void)
}

async fn shutdown(call: Call) -> Outcome {
    for member in members(&call)? {
        let call = call.for_vm(member);
        if vm::shut_down_one(&call, member).await.is_err() {
            vm::power_off_one(&call, member).await?;
        }
    }
    Ok(Value::Void)
}

fn members(call: &Call) -> Result<Vec<crate::value::Ref>, crate::error::ApiError> {
    let db = call.inner.read();
    let mut members = db.row("VM_appliance", call.subject()?)?.refs("VMs");
    members.sort_by_key(|vm| db.find("VM", *vm).map(|row| row.int("order")));
    Ok(members)
}

impl Call {
    /// The same call as if it were about this VM.
    fn for_vm(&self, vm: crate::value::Ref) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            host: self.host,
            session: self.session,
            method: self.method,
            args: vec![vm.into()],
            task: self.task,
        }
    }
}
