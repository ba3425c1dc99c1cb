//! What stays from one evaluation to the next, and what does not.

use bioxen::{Script, Value};

use super::{Subject, finished, text};

pub async fn globals_stay_between_evaluations(subject: &Subject) {
    let vm = subject.vm().await;
    finished(vm.eval("count = 1 function double(x) return 2 * x end").await);
    finished(vm.eval("count = count + 1").await);
    assert_eq!(finished(vm.eval("double(count)").await).value(), &Value::Integer(4));
}

pub async fn a_fresh_evaluation_sees_and_leaves_nothing(subject: &Subject) {
    let vm = subject.vm().await;
    finished(vm.eval("kept = 'kept'").await);
    let code = "local seen = kept kept = 'changed' made = true string.upper = nil return seen";
    assert_eq!(finished(vm.eval(code).fresh().await).value(), &Value::Nil);
    let run = finished(vm.eval("kept, made, ('a'):upper()").await);
    assert_eq!(run.record.values, [text("kept"), Value::Nil, text("A")]);
    assert_eq!(finished(vm.eval("made").fresh().await).value(), &Value::Nil);
}

pub async fn a_script_is_fresh_unless_it_is_to_keep_the_state(subject: &Subject) {
    let vm = subject.vm().await;
    let script = || Script::code("s", "x = (x or 0) + 1 return x");
    let fresh = finished(vm.run(script()).await);
    assert_eq!((fresh.value(), fresh.record.fresh), (&Value::Integer(1), true));
    assert_eq!(finished(vm.run(script()).await).value(), &Value::Integer(1));
    assert_eq!(finished(vm.run(script()).keep_state().await).value(), &Value::Integer(1));
    let kept = finished(vm.run(script()).keep_state().await);
    assert_eq!((kept.value(), kept.record.fresh), (&Value::Integer(2), false));
}

pub async fn what_code_does_to_the_libraries_stays_in_its_own_state(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "string.len = function() return -1 end \
                getmetatable('').__index = function() return 'stolen' end \
                getmetatable('').__add = function() return 'added' end \
                table.concat = nil _G.print = nil math.pi = 3 \
                return ('abc').anything, 'a' + 'b'";
    let run = finished(vm.eval(code).fresh().await);
    assert_eq!(run.record.values, [text("stolen"), text("added")]);
    let code = "('abc'):len(), table.concat({1, 2}), type(print), math.pi > 3, \
                (pcall(function() return 'a' + 'b' end))";
    for run in [vm.eval(code).fresh().await, vm.eval(code).await] {
        let expected = [
            Value::Integer(3),
            text("12"),
            text("function"),
            Value::Boolean(true),
            Value::Boolean(false),
        ];
        assert_eq!(finished(run).record.values, expected);
    }
}

pub async fn starting_again_empties_the_state(subject: &Subject) {
    let vm = subject.vm().await;
    finished(vm.eval("x = 1").await);
    vm.stop().await.expect("it stops");
    vm.start().await.expect("it starts");
    assert_eq!(finished(vm.eval("x").await).value(), &Value::Nil);
}

pub async fn an_error_leaves_the_state_as_it_was(subject: &Subject) {
    let vm = subject.vm().await;
    let run = vm.eval("x = 1 error('after x')").await.expect("it runs");
    assert!(run.record.ending.state_kept);
    assert_eq!(finished(vm.eval("x").await).value(), &Value::Integer(1));
}

pub async fn a_coroutine_that_is_left_open_disturbs_nothing(subject: &Subject) {
    let vm = subject.vm().await;
    let code = "co = coroutine.create(function() for i = 1, 9 do coroutine.yield(i) end end) \
                return select(2, coroutine.resume(co))";
    assert_eq!(finished(vm.eval(code).await).value(), &Value::Integer(1));
    let next = "select(2, coroutine.resume(co)), coroutine.status(co)";
    let run = finished(vm.eval(next).await);
    assert_eq!(run.record.values, [Value::Integer(2), text("suspended")]);
    let outside = vm.eval("coroutine.yield(1)").await.expect("it runs");
    assert!(outside.record.error.is_some(), "there is nothing to yield to");
}

pub async fn random_numbers_differ_between_vms(subject: &Subject) {
    let (one, other) = (subject.vm().await, subject.vm().await);
    let code = "local t = {} for i = 1, 8 do t[i] = math.random(1, 1000000) end return t";
    let (one, other) = (finished(one.eval(code).await), finished(other.eval(code).await));
    assert_ne!(one.value(), other.value());
}
