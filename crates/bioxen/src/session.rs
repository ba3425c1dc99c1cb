//! A person's or a program's attachment to one VM's interpreter.

use bioxen_core::protocol::Form;

use crate::evaluation::{Code, EvalError, Evaluation, Run, Running};
use crate::vm::Vm;

/// Input line by line, as in a terminal: each evaluated with its output, in the VM's own Lua state.
///
/// Sessions on one VM share its state; what each evaluates stands in one queue.
#[derive(Clone, Debug)]
pub struct Session {
    vm: Vm,
}

impl Session {
    pub(crate) fn new(vm: Vm) -> Self {
        Self { vm }
    }

    /// The VM that it is attached to.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Evaluates an expression or statements, and returns their output and values.
    ///
    /// When more lines could complete the input, nothing is run and [`Run::incomplete`] says so:
    /// call again with all lines.
    pub async fn evaluate(&self, input: &str) -> Result<Run, EvalError> {
        self.evaluation(input).await
    }

    /// Starts to evaluate, for output as it comes and for cancelling.
    pub async fn start(&self, input: &str) -> Result<Running, EvalError> {
        self.evaluation(input).start().await
    }

    fn evaluation(&self, input: &str) -> Evaluation {
        let source = Ok(input.as_bytes().to_vec().into());
        let code =
            Code { name: "=stdin".into(), source, form: Form::Input, may_be_incomplete: true };
        Evaluation::new(self.vm.clone(), code, false)
    }
}
